//! What ms-users can be told, by flags or environment.

use auth::Tokens;
use boot::config::{Environment, Process, SecretString};
use clap::Args;
use database::Bounds;

/// How to reach the database; all that most commands need.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The database, as a postgres:// URL.
    #[arg(
        long,
        env = "USERS_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://users:users@127.0.0.1:5432/users",
        hide_default_value = true
    )]
    pub database_url: SecretString,

    /// What may be asked of it.
    #[command(flatten)]
    pub bounds: Bounds,
}

/// How the keys that sign tokens are kept.
#[derive(Debug, Clone, Args)]
pub struct KeyEncryption {
    /// Encrypts the private keys in the database: at least 16 characters, the same for all instances. With another one
    /// the keys in the database cannot be read.
    #[arg(
        long,
        env = "KEY_ENCRYPTION_SECRET",
        hide_env_values = true,
        default_value = boot::demo::KEY_ENCRYPTION_SECRET,
        hide_default_value = true
    )]
    pub key_encryption_secret: SecretString,
}

/// Everything `serve` can be told.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// How to listen, log and stop.
    #[command(flatten)]
    pub process: Process,

    /// The port of GraphQL, keys, health and metrics; 0 picks a free one.
    #[arg(long, env = "USERS_PORT", default_value_t = 8002)]
    pub port: u16,

    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// The keys that sign tokens.
    #[command(flatten)]
    pub keys: KeyEncryption,

    /// What tokens say.
    #[command(flatten)]
    pub tokens: Tokens,

    /// The accounts there are from the start.
    #[command(flatten)]
    pub accounts: FirstAccounts,

    /// How passwords are checked.
    #[command(flatten)]
    pub login: Login,
}

/// The accounts there are from the start. Those that are there already stay as they are.
#[derive(Debug, Clone, Args)]
pub struct FirstAccounts {
    /// The e-mail address of the first ADMIN, who then makes others ADMIN by setRole.
    #[arg(long, env = "ADMIN_EMAIL", requires = "admin_password")]
    pub admin_email: Option<String>,

    /// The first ADMIN's password, to be changed after the first login.
    #[arg(long, env = "ADMIN_PASSWORD", hide_env_values = true, requires = "admin_email")]
    pub admin_password: Option<SecretString>,

    /// Whether there are admin@example.com and user@example.com with passwords that everybody knows. In development only.
    #[arg(long, env = "DEMO_ACCOUNTS", default_value = "false")]
    pub demo_accounts: DemoAccounts,
}

/// Whether there are demo accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DemoAccounts {
    /// There are none.
    False,
    /// There are, and this must be development.
    True,
    /// There are if this is development.
    InDevelopment,
}

impl FirstAccounts {
    /// Whether demo accounts are to be opened.
    pub fn opens_demo(&self, environment: Environment) -> bool {
        match self.demo_accounts {
            DemoAccounts::False => false,
            DemoAccounts::True => true,
            DemoAccounts::InDevelopment => environment == Environment::Development,
        }
    }
}

/// How passwords are checked, and how often.
#[derive(Debug, Clone, Args)]
pub struct Login {
    /// How many passwords are hashed at once. Each takes 19 MiB and keeps one processor busy for some 20 ms.
    #[arg(long, env = "PASSWORD_HASHES_AT_ONCE", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub password_hashes_at_once: u32,

    /// How many logins and registrations one client may try in a minute.
    #[arg(long, env = "LOGINS_PER_MINUTE", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub logins_per_minute: u32,

    /// How long a session lasts, in days, however often it is refreshed.
    #[arg(long, env = "SESSION_TTL_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=400))]
    pub session_ttl_days: u32,
}

impl Config {
    /// See [`boot::demo::refuse`].
    ///
    /// # Errors
    /// When a secret or an account is for development, and this is not.
    pub fn refuse_demo_secrets(&self) -> anyhow::Result<()> {
        let mut secrets = vec![
            ("USERS_DATABASE_URL", &self.database.database_url),
            ("KEY_ENCRYPTION_SECRET", &self.keys.key_encryption_secret),
        ];
        secrets.extend(self.accounts.admin_password.as_ref().map(|password| ("ADMIN_PASSWORD", password)));
        boot::demo::refuse(self.process.environment, &secrets)?;
        anyhow::ensure!(
            !self.accounts.opens_demo(self.process.environment) || self.process.environment == Environment::Development,
            "DEMO_ACCOUNTS is for development: set ENVIRONMENT=development, or leave it out"
        );
        Ok(())
    }
}

use clap::Subcommand;
use database::Pool;

use super::{Seal, rotate, stored};

/// What can be done with the keys that sign tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Show the keys whose tokens count, and which of them signs.
    List,
    /// Have a new key sign in a minute. Nobody notices: the old one is published until its last token has ended.
    Rotate {
        /// The old keys are known to somebody else: they end in a few seconds, and everybody needs a refresh.
        #[arg(long)]
        at_once: bool,
    },
}

impl Command {
    /// Does it, and prints what there is to know. The database is migrated already.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run(&self, pool: &Pool, seal: &Seal) -> anyhow::Result<()> {
        match self {
            Self::List => {
                let keys = stored(&mut *pool.acquire().await?).await?;
                let signing = keys.iter().rposition(|key| key.signs);
                for (n, key) in keys.iter().enumerate() {
                    let state = match key.retires_at {
                        _ if Some(n) == signing => "signs".to_owned(),
                        None => format!("signs from {}", key.signs_from.to_rfc3339()),
                        Some(at) => format!("retires at {}", at.to_rfc3339()),
                    };
                    println!("{}  {state}", key.kid);
                }
            }
            Self::Rotate { at_once } => {
                let kid = rotate(pool, seal, *at_once).await?;
                let when = if *at_once { "in a few seconds, and no other" } else { "in a minute" };
                println!("{kid} signs {when}");
            }
        }
        Ok(())
    }
}

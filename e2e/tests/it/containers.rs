//! What `docker compose` makes of our files, as far as it can be told without an engine.

use std::collections::{BTreeMap, BTreeSet};

use serde_norway::Value;

use crate::documents::read;

/// The lines of the Dockerfile by stage: the name of the stage it builds on, and its instructions.
fn stages() -> BTreeMap<String, (String, Vec<String>)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let mut stages = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(from) = line.strip_prefix("FROM ") {
            let (base, name) = from.split_once(" AS ").expect("each stage has a name");
            current = name.to_owned();
            stages.insert(current.clone(), (base.to_owned(), Vec::new()));
        } else {
            stages.get_mut(&current).expect("a stage").1.push(line.to_owned());
        }
    }
    stages
}

/// Whether a path is in the build context, by the rules of `.dockerignore`: the last pattern that matches wins.
fn is_in_context(path: &str) -> bool {
    let matches = |pattern: &str| {
        let pattern = pattern.trim_end_matches('/');
        match pattern.strip_prefix("**/") {
            Some(name) if name.starts_with('*') => path.ends_with(&name[1..]),
            Some(name) => path.split('/').any(|part| part == name),
            None => {
                pattern == "*"
                    || path == pattern
                    || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    };
    let ignored =
        read(".dockerignore").lines().map(str::trim).fold(false, |ignored, line| match line.strip_prefix('!') {
            _ if line.is_empty() || line.starts_with('#') => ignored,
            Some(pattern) if matches(pattern) => false,
            None if matches(line) => true,
            _ => ignored,
        });
    !ignored
}

#[test]
fn everything_the_dockerfile_copies_is_in_the_build_context() {
    let mut copied = 0;
    for (_, instructions) in stages().values() {
        for copy in instructions.iter().filter_map(|line| line.strip_prefix("COPY ")) {
            if copy.starts_with("--from=") {
                continue;
            }
            let sources: Vec<&str> = copy.split_whitespace().collect();
            for source in &sources[..sources.len() - 1] {
                // Of these two the context has a part: what cargo needs to know the workspace.
                let probe = if ["e2e", "bench"].contains(source) {
                    format!("{source}/Cargo.toml")
                } else {
                    (*source).to_owned()
                };
                assert!(is_in_context(&probe), "{source} is kept out by .dockerignore");
                copied += 1;
            }
        }
    }
    assert!(copied >= 9, "{copied}");
    let members = read("Cargo.toml");
    let members = members.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        assert!(is_in_context(&format!("{member}/Cargo.toml")), "cargo needs {member}");
    }
    for secret in [".env", "ms-users/.env", "crates/boot/tls.key", ".dev/env", "target/debug/ms-users", ".git/config"] {
        assert!(!is_in_context(secret), "{secret} is in the build context");
    }
}

#[test]
fn each_image_says_which_program_it_runs_and_with_what_command() {
    let stages = stages();
    for service in ["ms-inventory", "ms-orders", "ms-users"] {
        let (base, instructions) = &stages[service];
        assert_eq!(base, "service");
        let entrypoint = instructions.iter().position(|line| *line == format!("ENTRYPOINT [\"{service}\"]"));
        let command = instructions.iter().position(|line| line == "CMD [\"serve\"]");
        assert!(
            entrypoint.is_some() && command > entrypoint,
            "an ENTRYPOINT resets the CMD before it: {instructions:?}"
        );
    }
}

/// The environment of each container, by the rules of the compose specification: `env_file` first, then `environment`, in
/// which merged maps yield to its own keys.
struct Compose {
    services: BTreeMap<String, Value>,
    dotenv: BTreeMap<String, String>,
}

impl Compose {
    /// Where `.env` says this.
    fn with(dotenv: BTreeMap<String, String>) -> Self {
        let mut compose: Value = serde_norway::from_str(&read("docker-compose.yml")).unwrap();
        // A list of maps to merge is a merge of one after the other.
        compose.apply_merge().unwrap();
        let services = compose["services"].as_mapping().unwrap();
        let services = services.iter().map(|(name, service)| (name.as_str().unwrap().to_owned(), service.clone()));
        Self { services: services.collect(), dotenv }
    }

    /// Where `.env` is `.env.example` with every line uncommented, and each value told from all others.
    fn with_everything_told() -> Self {
        let dotenv = read(".env.example");
        let lines = dotenv.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
        let lines = lines.filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase()));
        Self::with(lines.map(|(name, value)| (name.to_owned(), format!("told-{name}-{value}"))).collect())
    }

    fn environment(&self, service: &str) -> BTreeMap<String, String> {
        let service = &self.services[service];
        let mut environment = BTreeMap::new();
        if service.get("env_file").is_some() {
            environment.extend(self.dotenv.clone());
        }
        for (name, value) in service["environment"].as_mapping().unwrap() {
            let value = match value {
                Value::String(text) => self.interpolate(text),
                Value::Number(number) => number.to_string(),
                Value::Bool(yes) => yes.to_string(),
                other => panic!("{other:?}"),
            };
            environment.insert(name.as_str().unwrap().to_owned(), value);
        }
        environment
    }

    /// `${NAME:-default}`.
    fn interpolate(&self, text: &str) -> String {
        let mut parts = text.split("${");
        let mut whole = parts.next().unwrap().to_owned();
        for part in parts {
            let (variable, rest) = part.split_once('}').unwrap();
            let (name, default) = variable.split_once(":-").unwrap();
            whole += self.dotenv.get(name).map_or(default, String::as_str);
            whole += rest;
        }
        whole
    }
}

#[test]
fn each_container_gets_its_own_secrets_and_no_other() {
    let compose = Compose::with_everything_told();
    let secrets: BTreeSet<&str> = compose.dotenv.keys().map(String::as_str).filter(|name| is_secret(name)).collect();
    assert!(secrets.len() >= 10, "{secrets:?}");
    let own: [(&str, &[&str]); 8] = [
        (
            "postgres",
            &[
                "POSTGRES_PASSWORD",
                "INVENTORY_DATABASE_PASSWORD",
                "ORDERS_DATABASE_PASSWORD",
                "USERS_DATABASE_PASSWORD",
            ],
        ),
        ("rabbitmq", &["RABBITMQ_PASSWORD", "INVENTORY_RABBITMQ_PASSWORD", "ORDERS_RABBITMQ_PASSWORD"]),
        ("ms-inventory", &["INVENTORY_DATABASE_URL", "AMQP_URL"]),
        ("seed", &["INVENTORY_DATABASE_URL", "AMQP_URL"]),
        ("ms-orders", &["ORDERS_DATABASE_URL", "AMQP_URL"]),
        ("ms-users", &["USERS_DATABASE_URL", "KEY_ENCRYPTION_SECRET", "ADMIN_PASSWORD"]),
        ("test-events", &["AMQP_URL"]),
        ("place-orders", &["ADMIN_PASSWORD"]),
    ];
    assert_eq!(own.len(), compose.services.len());
    for (service, own) in own {
        let environment = compose.environment(service);
        let told = |name: &&&str| environment.get(**name).is_some_and(|value| !value.is_empty());
        let told: BTreeSet<&str> = secrets.iter().filter(told).copied().collect();
        assert_eq!(told, own.iter().copied().collect(), "{service}");
    }
}

#[test]
fn a_container_has_more_time_to_stop_than_its_service_takes() {
    let compose = Compose::with_everything_told();
    for service in ["ms-inventory", "ms-orders", "ms-users"] {
        let grace = compose.services[service]["stop_grace_period"].as_str().unwrap();
        let grace: u32 = grace.strip_suffix('s').unwrap().parse().unwrap();
        // Whatever `.env` says.
        let drain: u32 = compose.environment(service)["DRAIN_TIMEOUT_SECONDS"].parse().unwrap();
        assert!(drain < grace, "{service} drains for {drain} s of {grace}");
    }
}

#[test]
fn what_dot_env_says_reaches_the_services() {
    let compose = Compose::with_everything_told();
    let is_set_by_compose = |name: &str| {
        name.ends_with("_URL") || name.ends_with("_PORT") || ["BIND_ADDRESS", "DRAIN_TIMEOUT_SECONDS"].contains(&name)
    };
    for service in ["ms-inventory", "ms-orders", "ms-users"] {
        let environment = compose.environment(service);
        for (name, told) in &compose.dotenv {
            if !is_secret(name) && !is_set_by_compose(name) {
                assert_eq!(environment.get(name), Some(told), "{service}");
            }
        }
    }
    // The passwords of logins, at both ends.
    for (service, url, server, password) in [
        ("ms-inventory", "INVENTORY_DATABASE_URL", "postgres", "INVENTORY_DATABASE_PASSWORD"),
        ("ms-orders", "ORDERS_DATABASE_URL", "postgres", "ORDERS_DATABASE_PASSWORD"),
        ("ms-users", "USERS_DATABASE_URL", "postgres", "USERS_DATABASE_PASSWORD"),
        ("ms-inventory", "AMQP_URL", "rabbitmq", "INVENTORY_RABBITMQ_PASSWORD"),
        ("ms-orders", "AMQP_URL", "rabbitmq", "ORDERS_RABBITMQ_PASSWORD"),
        ("test-events", "AMQP_URL", "rabbitmq", "RABBITMQ_PASSWORD"),
    ] {
        let told = &compose.dotenv[password];
        assert!(compose.environment(service)[url].contains(&format!(":{told}@")), "{service} {url}");
        assert_eq!(&compose.environment(server)[password], told);
    }
}

fn is_secret(name: &str) -> bool {
    name.ends_with("_PASSWORD") || name.ends_with("_SECRET") || name.ends_with("_DATABASE_URL") || name == "AMQP_URL"
}

#[test]
fn demo_accounts_are_opened_in_development_only() {
    for (dotenv, environment) in [(None, "development"), (Some("production"), "production")] {
        let dotenv = dotenv.map(|told: &str| ("ENVIRONMENT".to_owned(), told.to_owned()));
        let users = Compose::with(dotenv.into_iter().collect()).environment("ms-users");
        assert_eq!(users["ENVIRONMENT"], environment);
        assert_eq!(users["DEMO_ACCOUNTS"], "in-development");
    }
}

/// Where there is an engine with Compose and the base images can be had.
#[test]
#[ignore = "it needs a Docker engine, and builds for minutes"]
fn the_containers_build_start_and_answer_orders() {
    let docker = |arguments: &[&str]| {
        let mut command = std::process::Command::new("docker");
        command.args(arguments).current_dir(dev::workspace::root().unwrap());
        command.status().is_ok_and(|status| status.success())
    };
    if !docker(&["info", "--format", "{{.ServerVersion}}"]) {
        println!("NOTICE: there is no Docker engine; the containers were NOT CHECKED");
        return;
    }
    let compose =
        |arguments: &[&str]| docker(&[&["compose", "--project-name", "order-inventory-test"], arguments].concat());
    let is_up = compose(&["up", "--build", "--wait", "--wait-timeout", "300"]);
    let answers = is_up && compose(&["run", "--rm", "test-events"]) && compose(&["run", "--rm", "place-orders"]);
    assert!(compose(&["down", "--volumes", "--timeout", "20"]));
    assert!(is_up, "it does not start");
    assert!(answers, "orders are not answered");
}

/// `up --wait` takes a container that has ended for a failure, unless another one waits for its end.
#[test]
fn whatever_ends_by_itself_is_waited_for() {
    let compose = Compose::with_everything_told();
    let waited_for = compose.services.values().any(|service| {
        let seed = service.get("depends_on").and_then(|on| on.get("seed"));
        seed.is_some_and(|seed| seed["condition"] == "service_completed_successfully")
    });
    assert!(waited_for);
}

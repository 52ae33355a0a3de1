//! `.env.example` and `docker-compose.yml` say what the services can be told, and nothing else.

use std::process::Command;

use dev::logins::Logins;
use dev::services::SERVICES;
use dev::{instance, rabbitmq};

use crate::documents::read;
use crate::service::PROFILE;

/// A variable and its default, where that is shown.
type Setting = (String, Option<String>);

/// Variables and their values.
type Variables = Vec<(String, String)>;

/// What a service can be told, in the order of its help.
fn settings(program: &str) -> Vec<Setting> {
    let mut command = Command::new(instance::program(program, PROFILE).unwrap());
    // Neither the environment nor a file of it in a folder above is to be told of.
    let help = command.args(["serve", "--help"]).env_clear().current_dir("/").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let variables = help.split("[env: ").skip(1);
    let setting = |text: &str| {
        let name: String = text.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        let default = text.split("[default: ").nth(1).map(|rest| rest.split(']').next().unwrap().to_owned());
        (name, default)
    };
    let settings: Vec<Setting> = variables.map(setting).collect();
    assert!(settings.len() > 10, "{help}");
    settings
}

/// The variables of `.env.example`: those of the services, and those of `docker compose`.
fn examples() -> (Variables, Variables) {
    let text = read(".env.example");
    let (services, compose) = text.split_once("# Only `docker compose`").unwrap();
    let variables = |text: &str| -> Variables {
        let lines = text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
        let lines = lines.filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase()));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    (variables(services), variables(compose))
}

#[test]
fn the_example_names_every_setting_with_its_default_in_the_order_of_the_help() {
    let services = ["ms-inventory", "ms-orders", "ms-users"].map(settings);
    let (mut examples, _) = examples();
    assert_eq!(examples.pop().map(|(name, _)| name).as_deref(), Some("RUST_LOG"), "told by the environment only");
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in services.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    assert_eq!(examples.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    for (name, default) in services.iter().flatten() {
        let (_, example) = examples.iter().find(|(example, _)| example == name).unwrap();
        assert!(default.as_ref().is_none_or(|default| default == example), "{name} is {default:?} by default");
    }
}

#[test]
fn the_containers_are_told_what_there_is_to_tell() {
    let compose = read("docker-compose.yml");
    for service in ["inventory", "orders", "users"] {
        let program = format!("ms-{service}");
        let settings = settings(&program);
        let section = compose.split(&format!("\n  {program}:\n")).nth(1).unwrap();
        let section = section.split("environment:").nth(1).unwrap().lines().skip(1);
        let told: Vec<&str> = section
            .take_while(|line| line.starts_with("      "))
            .map(|line| line.trim().split(':').next().unwrap())
            .filter(|name| *name != "<<")
            .collect();
        assert!(told.len() >= 2, "{program} is told {told:?}");
        for name in told {
            assert!(settings.iter().any(|(known, _)| known == name), "{program} cannot be told {name}");
        }
    }
    let (_, mut examples) = examples();
    let mut used: Variables = compose
        .split("${")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap().split_once(":-").unwrap())
        .map(|(name, default)| (name.to_owned(), default.to_owned()))
        .collect();
    used.sort_unstable();
    used.dedup();
    examples.sort_unstable();
    assert_eq!(used, examples, "each variable of docker-compose.yml, with its default");
}

#[test]
fn each_container_logs_in_to_the_broker_as_itself() {
    let compose = read("docker-compose.yml");
    let logins = Logins::read().unwrap();
    for service in SERVICES {
        let Some(password) = logins.password(service.program) else { continue };
        let variable = format!("{}_RABBITMQ_PASSWORD:-{password}", service.name.to_uppercase());
        let url = format!("AMQP_URL: amqp://{}:${{{variable}}}@rabbitmq:5672/%2f\n", service.program);
        assert!(compose.contains(&url), "{url}");
    }
    let for_people = logins.users().next().unwrap();
    assert_eq!(for_people, (rabbitmq::USER, rabbitmq::PASSWORD));
    let services = compose.split("\n  test-events:\n").next().unwrap();
    let used = services.lines().filter(|line| line.contains("AMQP_URL")).all(|line| !line.contains("RABBITMQ_USER"));
    assert!(used, "a service logs in as the administrator");
}

#[test]
fn no_image_has_a_tag_that_moves() {
    let (compose, dockerfile) = (read("docker-compose.yml"), read("Dockerfile"));
    let stages: Vec<&str> = dockerfile.lines().filter_map(|line| line.split(" AS ").nth(1)).collect();
    let based = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next());
    let run = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    let images: Vec<&str> = based.filter(|image| !stages.contains(image)).chain(run).collect();
    assert!(images.len() >= 7, "{images:?}");
    for image in images {
        let version = image.split_once(':').map_or("", |(_, tag)| tag.split('-').next().unwrap());
        assert!(version.matches('.').count() >= 1, "{image}");
        assert!(version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{image}");
    }
}

//! The stack for Docker, looked at without Docker: our commands and settings are real, and what waits for something finds it.

use serde_yaml_ng::Value;

use super::{assert_configures, assert_is_command, read};

fn stack() -> Value {
    let mut stack: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    stack.apply_merge().unwrap();
    stack
}

fn services(stack: &Value) -> Vec<(&str, &Value)> {
    stack["services"].as_mapping().unwrap().iter().map(|(name, service)| (name.as_str().unwrap(), service)).collect()
}

pub(super) fn words(list: &Value) -> Vec<&str> {
    list.as_sequence().unwrap_or_else(|| panic!("{list:?} is no list")).iter().map(|word| word.as_str().unwrap()).collect()
}

fn ours(stack: &Value) -> Vec<(&str, &Value)> {
    services(stack).into_iter().filter(|(_, service)| service["image"].as_str() == Some("outboxd")).collect()
}

#[test]
fn our_services_run_commands_and_settings_that_exist() {
    let stack = stack();
    assert_eq!(ours(&stack).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["migrate", "outboxd"]);
    for (_, service) in ours(&stack) {
        assert_is_command(words(&service["command"]));
        let environment = service["environment"].as_mapping().unwrap().iter();
        assert_configures(environment.map(|(name, value)| (name.as_str().unwrap(), value.as_str().unwrap())));
        assert_eq!((service["read_only"].as_bool(), service["build"].as_str()), (Some(true), Some(".")));
    }
}

#[test]
fn who_waits_for_something_finds_it_and_can_tell() {
    let stack = stack();
    let mut waits = 0;
    for (name, service) in services(&stack) {
        for (wanted, how) in service["depends_on"].as_mapping().into_iter().flatten() {
            waits += 1;
            let found = &stack["services"][wanted];
            match how["condition"].as_str().unwrap() {
                "service_healthy" => {
                    assert!(found["healthcheck"]["test"].is_sequence(), "{name} waits for {wanted:?}, which tells nothing")
                }
                "service_completed_successfully" => assert!(!words(&found["command"]).contains(&"run"), "{wanted:?} never ends"),
                other => panic!("{name} waits for {wanted:?} to be {other}"),
            }
            let profiles = |service: &Value| words(&service["profiles"]).into_iter().map(str::to_owned).collect::<Vec<_>>();
            assert!(profiles(service).iter().all(|profile| profiles(found).contains(profile)), "{name} needs {wanted:?}");
        }
    }
    assert_eq!(waits, 3);
}

#[test]
fn the_profiles_are_everything_and_the_servers_alone() {
    let stack = stack();
    let of = |profile: &str| -> Vec<&str> {
        let services = services(&stack).into_iter();
        services.filter(|(_, service)| words(&service["profiles"]).contains(&profile)).map(|(name, _)| name).collect()
    };
    assert_eq!(of("servers"), ["postgres", "kafka"]);
    assert_eq!(of("all").len(), services(&stack).len());
    assert!(read(".env").lines().any(|line| line == "COMPOSE_PROFILES=all"), "`docker compose up` alone starts nothing");
}

#[test]
fn every_volume_and_every_door_is_named() {
    let stack = stack();
    for (name, service) in services(&stack) {
        for volume in service["volumes"].as_sequence().into_iter().flatten() {
            let volume = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(stack["volumes"].as_mapping().unwrap().contains_key(volume), "{name}: {volume}");
        }
        for port in service["ports"].as_sequence().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} can be reached from other machines: {port:?}");
        }
    }
}

#[test]
fn the_container_is_given_the_time_that_draining_takes() {
    let stack = stack();
    let grace = stack["services"]["outboxd"]["stop_grace_period"].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    assert!(grace > outboxd::config::Config::default().relay.shutdown_grace.as_secs());
}

/// The lines of an instruction, without continuations.
fn instructions<'a>(file: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    file.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
}

#[test]
fn the_image_is_built_with_our_compiler_and_runs_without_rights() {
    let file = read("Dockerfile");
    let rust = read("rust-toolchain.toml");
    let version = rust.split('"').nth(1).unwrap();
    let version = version.rsplitn(2, '.').last().filter(|short| short.contains('.')).unwrap_or(version);
    let stages: Vec<&str> = instructions(&file, "FROM").collect();
    assert!(stages.len() == 2 && stages[0].starts_with(&format!("rust:{version}-")), "{stages:?}, but {rust}");
    let debian = |image: &str| image.split_once("bookworm").is_some();
    assert!(stages.iter().all(|stage| debian(stage)), "built against another libc than it runs with: {stages:?}");
    let last = file.rsplit("\nFROM ").next().unwrap();
    let user = instructions(last, "USER").next().unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{user}: a name could be root, a number tells orchestrators");
    assert!(file.contains("--features full") && file.contains("--locked"));
    let check = last.lines().find(|line| line.starts_with("HEALTHCHECK ")).and_then(|line| line.split_once(" CMD ")).unwrap().1;
    for command in [check, instructions(last, "CMD").next().unwrap()] {
        let words: Vec<String> = serde_json::from_str(command).unwrap();
        assert_is_command(words.iter().map(String::as_str).filter(|word| *word != "outboxd"));
    }
    assert_eq!(instructions(last, "ENTRYPOINT").next(), Some(r#"["outboxd"]"#));
}

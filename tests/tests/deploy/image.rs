//! The Dockerfile, read by hadolint, and instruction by instruction.

use serde_json::Value;
use tests::binary::workspace;

use super::{Environment, binary_name, checked_by, path, read, run, settings};

/// What the boot may take: 5 tries of the store within 30 s, 3 of the bus within 15 s, 5 s until all is warm.
const BOOT_S: u64 = 50;

/// What `app healthcheck` takes at most.
const HEALTHCHECK_S: u64 = 3;

/// The instructions of the Dockerfile in order, each as its word and the rest of it.
fn instructions() -> Vec<(String, String)> {
    let file = read("Dockerfile").replace("\\\n", " ");
    let lines = file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    lines.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

/// The rest of each instruction of this word in the last stage, the one that runs.
fn last_stage(word: &str) -> Vec<String> {
    let all = instructions();
    let from = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    all[from..].iter().filter(|(found, _)| found == word).map(|(_, rest)| rest.clone()).collect()
}

/// The one instruction of this word in the last stage.
fn one(word: &str) -> String {
    let mut found = last_stage(word);
    assert_eq!(found.len(), 1, "{word}: {found:?}");
    found.remove(0)
}

/// A command in the exec form; a shell to run another one in there is none.
fn exec(command: &str) -> Vec<String> {
    let words: Vec<Value> = serde_json::from_str(command).unwrap_or_else(|_| panic!("not the exec form: {command}"));
    words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The environment that the image gives.
pub fn environment() -> Environment {
    let variables = last_stage("ENV");
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The directory that the binary runs in.
pub fn directory() -> String {
    one("WORKDIR")
}

/// The words after the binary that ask a running container for its health.
pub fn healthcheck() -> Vec<String> {
    exec(one("HEALTHCHECK").split_once("CMD ").unwrap().1)
}

/// The seconds of an option of the health check.
fn healthcheck_s(option: &str) -> u64 {
    let check = one("HEALTHCHECK");
    let value = check.split_whitespace().find_map(|word| word.strip_prefix(option)).unwrap();
    value.trim_start_matches('=').trim_end_matches('s').parse().unwrap()
}

#[test]
fn hadolint_finds_nothing() {
    checked_by("hadolint", &["--no-color"], &path("Dockerfile"));
}

#[test]
fn every_image_is_chosen_by_a_tag_that_is_not_latest() {
    let all = instructions();
    let images = all.iter().filter(|(word, _)| word == "FROM").map(|(_, rest)| rest.split(' ').next().unwrap());
    let stages: Vec<&str> = all.iter().filter_map(|(_, rest)| Some(rest.split_once(" AS ")?.1)).collect();
    let foreign: Vec<&str> = images.filter(|image| !stages.contains(image)).collect();
    assert_eq!(foreign.len(), 2, "one to build, one to run: {foreign:?}");
    for image in foreign {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{image}");
    }
}

#[test]
fn the_image_runs_the_binary_that_it_builds_by_its_name() {
    let entry = exec(&one("ENTRYPOINT"));
    assert_eq!(entry.len(), 1);
    let built = format!("/build/target/release/{}", binary_name());
    assert!(last_stage("COPY").iter().any(|copy| *copy == format!("--from=build {built} {}", entry[0])));
    assert!(instructions().iter().any(|(_, run)| run.contains(&format!("--bin {}", binary_name()))));
    assert_eq!(exec(&one("CMD")), ["run"]);
    assert_eq!((healthcheck()[0].as_str(), healthcheck()[1..].len()), (entry[0].as_str(), 1));
}

#[test]
fn its_health_check_is_a_subcommand_that_says_no_when_nobody_serves() {
    let environment = production(["APP__ADMIN__LISTEN", "127.0.0.1:1"]);
    let arguments = healthcheck();
    let asked = run(&[arguments[1].as_str()], &environment);
    assert_eq!(asked.status.code(), Some(1), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("/readyz"));
}

#[test]
fn its_health_check_waits_for_the_boot_and_for_its_own_answer() {
    assert!(healthcheck_s("--start-period") > BOOT_S);
    assert!(healthcheck_s("--timeout") > HEALTHCHECK_S);
}

#[test]
fn it_runs_as_a_number_that_is_not_root_and_owns_its_directory() {
    let user = one("USER");
    let numbers: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
    assert!(numbers.len() == 2 && numbers.iter().all(|id| *id > 0), "{user}");
    let owned = format!("--chown={user} /state {}", directory());
    assert!(last_stage("COPY").iter().any(|copy| copy.ends_with(&owned)), "{owned}");
}

#[test]
fn it_exposes_the_api_and_stops_by_the_signal_that_the_service_drains_at() {
    let settings = settings(&production(["APP__LOG__FORMAT", "json"]));
    assert_eq!(settings["api.listen"].0, format!("0.0.0.0:{}", one("EXPOSE")));
    assert_eq!(one("STOPSIGNAL"), "SIGTERM");
}

#[test]
fn it_is_of_the_production_profile_and_starts_only_when_told_where_telemetry_goes() {
    let refused = run(&["run"], &environment());
    assert_eq!(refused.status.code(), Some(78));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("otel.endpoint") && said.lines().count() <= 3, "{said}");
    assert_eq!(settings(&production(["APP__LOG__FORMAT", "json"]))["profile"].0, "production");
}

#[test]
fn all_that_the_build_needs_is_in_its_context() {
    let ignored = std::fs::read_to_string(workspace().join(".dockerignore")).unwrap();
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<String> = serde_json::from_str(members).unwrap();
    for needed in members.iter().map(String::as_str).chain(["Cargo.toml", "Cargo.lock", ".cargo"]) {
        assert!(!ignored.lines().any(|line| line.trim_matches('/') == needed), "{needed}");
    }
    assert!(ignored.lines().any(|line| line == "/target"));
}

/// The environment of the image, with what it asks for and one variable more.
fn production(variable: [&str; 2]) -> Environment {
    let pairs = [["APP__OTEL__ENDPOINT", "off"], variable].map(|[name, value]| (name.to_owned(), value.to_owned()));
    environment().into_iter().chain(pairs).collect()
}

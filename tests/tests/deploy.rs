//! What `deploy/` says, held against what the binary does.

use std::process::Command;

use tests::binary::{app, workspace};

/// The values of a key of the systemd unit, in order.
fn unit(key: &str) -> Vec<String> {
    let unit = std::fs::read_to_string(workspace().join("deploy/systemd/perennial.service")).unwrap();
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

/// The binary in an empty directory with the environment of the unit, and nothing else.
fn run(arguments: &[&str]) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(app());
    command.args(arguments).current_dir(directory.path()).env_clear();
    for variable in unit("Environment") {
        let (name, value) = variable.split_once('=').unwrap();
        command.env(name, value);
    }
    command.output().unwrap()
}

#[test]
fn the_environment_of_the_systemd_unit_is_a_right_configuration() {
    let checked = run(&["config", "check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("profile production"));
}

#[test]
fn the_systemd_unit_starts_the_binary_by_its_name_and_gives_it_its_grace_period() {
    let start = unit("ExecStart").remove(0);
    let program = start.split_whitespace().next().unwrap();
    assert_eq!(program.rsplit('/').next(), app().file_name().and_then(|name| name.to_str()));
    let shown = run(&["config"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let grace = shown.lines().find(|line| line.contains("grace_period_ms")).unwrap();
    let grace_ms: u64 = grace.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse().ok()).unwrap();
    let stop_s: u64 = unit("TimeoutStopSec").remove(0).parse().unwrap();
    assert!(stop_s * 1000 > grace_ms, "{grace}");
}

#[test]
fn the_systemd_unit_does_not_start_a_wrong_configuration_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(app());
    let ended = command.current_dir(directory.path()).env_clear().env("APP__API__LISTEN", "nowhere").output().unwrap();
    assert_eq!(ended.status.code().map(|code| code.to_string()), unit("RestartPreventExitStatus").pop());
}

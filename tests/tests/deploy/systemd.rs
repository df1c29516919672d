//! The unit for systemd.

use super::{Environment, binary_name, descriptors, number, read, run};

/// The values of a key of the unit, in order.
fn unit(key: &str) -> Vec<String> {
    let unit = read("systemd/perennial.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

fn environment() -> Environment {
    let variables = unit("Environment");
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_environment_of_the_unit_is_a_right_configuration() {
    let checked = run(&["config", "check"], &environment());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("profile production"));
}

#[test]
fn the_unit_starts_the_binary_by_its_name_and_gives_it_its_grace_period() {
    let start = unit("ExecStart").remove(0);
    let program = start.split_whitespace().next().unwrap();
    assert_eq!(program.rsplit('/').next(), Some(binary_name()));
    let stop_s: u64 = unit("TimeoutStopSec").remove(0).parse().unwrap();
    assert!(stop_s * 1000 > number(&environment(), "shutdown.grace_period_ms"));
}

#[test]
fn the_unit_gives_a_descriptor_to_each_connection_and_socket_that_the_limits_allow() {
    let limit: u64 = unit("LimitNOFILE").remove(0).parse().unwrap();
    assert!(limit > descriptors(&environment()));
}

#[test]
fn the_unit_does_not_start_a_wrong_configuration_again() {
    let wrong = Environment::from([("APP__API__LISTEN".to_owned(), "nowhere".to_owned())]);
    let ended = run(&[], &wrong);
    assert_eq!(ended.status.code().map(|code| code.to_string()), unit("RestartPreventExitStatus").pop());
}

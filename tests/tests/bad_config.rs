//! Configurations that must be refused: with 78, before anything is bound or made, each with its exact line.

use tests::process::Process;
use tests::{Ended, Home, Setup, binary};

/// Variables, and below them, indented, the one line they are answered with: the list stands beside the settings.
fn cases() -> Vec<(Vec<(String, String)>, String)> {
    let list = std::fs::read_to_string(binary::workspace().join("app/src/settings/bad_variables.txt")).unwrap();
    let (mut cases, mut variables) = (Vec::new(), Vec::new());
    for line in list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match (line.strip_prefix("  "), line.split_once('=')) {
            (Some(fault), _) => cases.push((std::mem::take(&mut variables), fault.to_owned())),
            (None, Some((name, value))) => variables.push((name.to_owned(), value.to_owned())),
            (None, None) => panic!("neither a variable nor a fault: {line}"),
        }
    }
    cases
}

async fn run(setup: Setup, arguments: &[&str]) -> Ended {
    arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).run().await
}

fn refusal_of(ended: &Ended) -> Vec<String> {
    assert_eq!(ended.code, 78, "{ended:?}");
    let faults = ended.stderr.iter().filter_map(|line| line.strip_prefix("  "));
    faults.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_bad_variable_is_refused_with_78_and_its_exact_line() {
    let cases = cases();
    assert!(cases.len() >= 20);
    for (variables, fault) in cases {
        let setup = variables.iter().fold(Setup::bare(), |setup, (name, value)| setup.env(name, value));
        let ended = run(setup, &["config", "check"]).await;
        assert_eq!(refusal_of(&ended), [fault]);
    }
}

#[tokio::test]
async fn a_start_with_a_bad_configuration_makes_and_binds_nothing() {
    let home = Home::empty();
    let ended = Setup::bare().home(&home).set("scheduler.batch", 0).run().await;
    assert_eq!(refusal_of(&ended).len(), 1);
    assert_eq!(ended.stdout, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn all_faults_are_told_at_once_each_with_the_place_it_came_from() {
    let home = Home::empty();
    std::fs::write(home.path().join("own.toml"), "[api]\nlisten = 8080\n\n[bus]\nurl = \"kafka:\"\n").unwrap();
    let setup = Setup::bare().home(&home).set("scheduler.batch", "many").set("sheduler.batch", 5);
    let ended = run(setup, &["--config", "own.toml", "config", "check"]).await;
    assert_eq!(ended.stderr[0], "the configuration has 4 faults");
    let mut faults = refusal_of(&ended);
    faults.sort();
    assert_eq!(
        faults,
        [
            "api.listen = 8080 (file own.toml): must be an IP address and a port, such as 127.0.0.1:8080",
            "bus.url = \"kafka:\" (file own.toml): must be memory: or redis://HOST:PORT",
            "scheduler.batch = \"many\" (environment variable APP__SCHEDULER__BATCH): must be an integer from 1 to 1000",
            "sheduler.batch (environment variable APP__SHEDULER__BATCH): unknown key, did you mean \
             APP__SCHEDULER__BATCH?",
        ]
    );
}

#[tokio::test]
async fn a_secret_is_shown_neither_when_it_is_right_nor_when_it_is_wrong() {
    let production = || Setup::bare().set("profile", "production").set("otel.endpoint", "off");
    for (token, code) in [("a-long-secret-of-our-own-7", 0), ("shrt-7", 78)] {
        let ended = run(production().set("admin.token", token), &["config"]).await;
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(!ended.log().contains(token) && !ended.stdout.join("\n").contains(token));
    }
}

#[tokio::test]
async fn the_effective_configuration_is_printed_with_the_origin_of_each_value_and_the_stop_budgets() {
    let ended = run(Setup::bare().set("scheduler.batch", 7), &["config"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let line = |key: &str| ended.stdout.iter().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}"));
    assert!(line("scheduler.batch").contains("APP__SCHEDULER__BATCH"), "{ended:?}");
    assert!(line("scheduler.lease_ms").contains("default.toml"), "{ended:?}");
    assert!(ended.stdout.iter().any(|line| line.contains("30000")), "{ended:?}");
    for key in ["api.listen", "store.url", "shutdown.grace_period_ms", "otel.endpoint", "liveness_monitor.interval_ms"]
    {
        line(key);
    }
}

#[tokio::test]
async fn a_good_configuration_passes_the_check_and_starts_nothing() {
    let home = Home::empty();
    let ended = run(Setup::bare().home(&home), &["config", "check"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_command_line_that_cannot_be_read_is_explained() {
    let process: Process = Setup::bare().arg("--no-such-argument").spawn();
    let ended = process.wait(std::time::Duration::from_secs(20)).await;
    assert_eq!(ended.code, 2);
    assert!(ended.log().contains("--no-such-argument"), "{ended:?}");
}

//! The policy `crash_process` on a real process, which is this test itself, run again.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use supervision::{GuardSite, Policy, crash_process, ensure, guard};
use telemetry::{
    incidents::Incident,
    reporters::{self, ErrorReporter, Failed},
};

/// Two seconds to say it, two to send it, and what it takes to start and die on a busy machine.
const LIMIT: Duration = Duration::from_secs(4 + 3);

fn run(test: &str) -> (Output, Duration) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    let began = SystemTime::now();
    let output = command.output().unwrap();
    (output, began.elapsed().unwrap())
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| line.starts_with("told: ")).map(str::to_owned).collect()
}

#[test]
fn a_panic_under_the_crash_policy_is_reported_and_ends_the_process_with_sigabrt() {
    let (output, took) = run("a_process_whose_migration_panics");
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(took < LIMIT, "{took:?}");
    let told = "told: store crash_process migrate \"half the table is written\" [condition=1 > 2, rows=7]";
    assert_eq!(lines(&output), [told]);
}

#[test]
fn crash_process_reports_its_reason_and_its_caller_and_runs_no_destructor() {
    let (output, took) = run("a_process_that_decides_to_crash");
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(lines(&output), ["told: ledger crash_process crash_process \"two totals\" [] crash_process.rs"]);
}

#[test]
fn a_reporter_that_hangs_does_not_keep_the_process_from_aborting() {
    let (output, took) = run("a_process_whose_reporter_hangs");
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(took < LIMIT, "{took:?}");
}

struct Prints;

impl ErrorReporter for Prints {
    fn name(&self) -> &'static str {
        "prints"
    }

    fn report(&mut self, incident: &Incident) -> Result<(), Failed> {
        let detail: Vec<_> = incident.detail.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let Incident { component, policy, phase, message, .. } = incident;
        let place = incident.location.as_deref().unwrap_or_default();
        assert!(incident.backtrace.as_deref().is_some_and(|stack| stack.contains("crash_process.rs:")));
        let file = if phase == "crash_process" && place.contains("tests/crash_process.rs:") {
            " crash_process.rs"
        } else {
            ""
        };
        println!("told: {component} {policy} {phase} {message:?} [{}]{file}", detail.join(", "));
        Ok(())
    }
}

#[tokio::test]
#[ignore = "a process that a test above starts"]
async fn a_process_whose_migration_panics() {
    telemetry::panic::install_hook();
    reporters::set(vec![Box::new(Prints)]).unwrap();
    let site = GuardSite {
        component: "store",
        actor: "store",
        policy: Policy::CrashProcess,
        phase: "migrate",
        tenant: None,
        detail: Vec::new(),
    };
    let result = guard(site, async { ensure!(1 > 2, "half the table is written"; rows = 7) }).await;
    println!("told: it goes on: {result:?}");
}

#[tokio::test]
#[ignore = "a process that a test above starts"]
async fn a_process_that_decides_to_crash() {
    struct Says;
    impl Drop for Says {
        fn drop(&mut self) {
            println!("told: dropped");
        }
    }
    reporters::set(vec![Box::new(Prints)]).unwrap();
    let _says = Says;
    crash_process("ledger", "two totals");
}

#[tokio::test]
#[ignore = "a process that a test above starts"]
async fn a_process_whose_reporter_hangs() {
    struct Hangs;
    impl ErrorReporter for Hangs {
        fn name(&self) -> &'static str {
            "hangs"
        }

        fn report(&mut self, _: &Incident) -> Result<(), Failed> {
            loop {
                std::thread::park();
            }
        }
    }
    reporters::set(vec![Box::new(Hangs)]).unwrap();
    crash_process("ledger", "two totals");
}

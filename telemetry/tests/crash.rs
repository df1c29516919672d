//! A process under the crash policy: what it knew arrives at the collector before it aborts. The process is this test
//! itself, run again.

#![allow(clippy::unwrap_used, reason = "a test")]

mod collector;

use collector::{Collector, attribute};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};
use telemetry::export::{Endpoint, LogFormat, Settings, Variables};
use telemetry::incidents::Incident;
use telemetry::panic::{PanicSite, Policy};
use telemetry::reporters::{ErrorReporter, Failed};
use tracing::info_span;

/// Where the process sends to; set for it alone.
const ENDPOINT: &str = "CRASH_TEST_ENDPOINT";

/// Two seconds to say it, two to send it, and what it takes to start and die on a busy machine.
const LIMIT: Duration = Duration::from_secs(4 + 3);

fn crash(endpoint: &str) -> (Output, Duration) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_crashes", "--ignored", "--nocapture"]).env(ENDPOINT, endpoint);
    let began = SystemTime::now();
    let output = command.output().unwrap();
    (output, began.elapsed().unwrap())
}

#[tokio::test]
async fn what_a_crashing_process_knew_is_sent_and_reported_before_it_aborts() {
    let (collector, address) = Collector::http().await;
    let (output, took) = crash(&format!("http://{address}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "SIGABRT: {log}");
    assert!(took < LIMIT, "{took:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("reported: half the table is written"), "{output:?}");

    let event = &collector.span("panic.recovered").events[0];
    let value = |key| attribute(&event.attributes, key);
    assert_eq!(value("policy").as_deref(), Some("crash_process"));
    assert_eq!(value("exception.message").as_deref(), Some("half the table is written"));
    assert_eq!(value("panic.context.rows").as_deref(), Some("7"));
    assert!(value("exception.stacktrace").unwrap().contains("tests/crash.rs:"));
    let told = collector.log_records().into_iter().find(|record| record.event_name == "panic.recovered").unwrap();
    assert_eq!(attribute(&told.attributes, "policy").as_deref(), Some("crash_process"));
    assert!(collector.metric("panic_recovered_total").is_some());
}

#[test]
fn a_process_aborts_in_time_though_the_collector_never_answers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (output, took) = crash(&format!("http://{}", silent.local_addr().unwrap()));
    assert_eq!(output.status.signal(), Some(6));
    assert!(took < LIMIT, "{took:?}");
}

struct Prints;

impl ErrorReporter for Prints {
    fn name(&self) -> &'static str {
        "prints"
    }

    fn report(&mut self, incident: &Incident) -> Result<(), Failed> {
        println!("reported: {}", incident.message);
        Ok(())
    }
}

#[tokio::test]
#[ignore = "the process that the tests above start"]
async fn a_process_that_crashes() {
    let endpoint = std::env::var(ENDPOINT).unwrap();
    let settings = Settings {
        service_name: "crashing".into(),
        service_version: "1".into(),
        instance_id: "1".into(),
        environment: "development".into(),
        endpoint: Endpoint::Url(endpoint),
        log_filter: "info".into(),
        log_format: LogFormat::Text,
        sample_ratio: None,
        recorder: telemetry::recorder::RecorderSettings::default(),
    };
    let _telemetry = telemetry::export::start_with(settings, &Variables::of_pairs([])).unwrap();
    telemetry::panic::install_hook();
    telemetry::reporters::set(vec![Box::new(Prints)]).unwrap();
    let work = async {
        info_span!("migration").in_scope(|| telemetry::ensure!(1 > 2, "half the table is written"; rows = 7));
    };
    let site = PanicSite {
        component: "store",
        actor: "store",
        policy: Policy::CrashProcess,
        phase: "migrate",
        message_type: None,
        incarnation: 1,
        tenant: None,
        detail: Vec::new(),
    };
    telemetry::panic::record(site, telemetry::panic::catch(work).await.unwrap_err());
    telemetry::crash(Duration::from_secs(2));
}

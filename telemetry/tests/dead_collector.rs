//! A collector that takes the connection and never answers: the worst kind of dead.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;
use telemetry::export::{Endpoint, LogFormat, Outcome, Settings, Variables};
use tokio::time::Instant;
use tracing::info_span;

const BUDGET: Duration = Duration::from_millis(800);

#[tokio::test]
async fn a_flush_to_a_dead_collector_stays_within_its_budget_and_says_what_was_lost() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let telemetry = telemetry::export::start_with(settings(url), &Variables::of_pairs([])).unwrap();

    let started = Instant::now();
    for _ in 0..20_000 {
        info_span!("more than the queue holds").in_scope(|| ());
    }
    let emitting = started.elapsed();
    assert!(emitting < Duration::from_secs(10), "the hot path waited for the collector: {emitting:?}");

    let started = Instant::now();
    let report = telemetry.flush_and_stop(BUDGET).await;
    let took = started.elapsed();
    // Without the budget it would be the exporter's 3 s at least.
    assert!(took < Duration::from_millis(2500), "took {took:?}");
    assert!(!report.is_clean());
    let traces = report.signals.iter().find(|signal| signal.signal == telemetry::export::Signal::Traces).unwrap();
    assert_ne!(traces.outcome, Outcome::Sent);
    assert!(report.to_string().contains("traces lost"), "{report}");
    assert!((4_096..=8_192).contains(&traces.waiting), "of a queue of 8192, {} wait still", traces.waiting);

    let again = telemetry.flush_and_stop(BUDGET).await;
    assert!(again.signals.is_empty(), "a second flush does nothing");
}

fn settings(url: String) -> Settings {
    Settings {
        service_name: "the-service".into(),
        service_version: "1.2.3".into(),
        instance_id: "the-instance".into(),
        environment: "development".into(),
        endpoint: Endpoint::Url(url),
        log_filter: "info".into(),
        log_format: LogFormat::Text,
        sample_ratio: None,
        recorder: telemetry::recorder::RecorderSettings::default(),
    }
}

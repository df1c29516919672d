//! With export off: ids exist, headers carry them, the metrics page works, and the end is quick.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;
use telemetry::context::{TraceContext, extract, inject};
use telemetry::export::{Endpoint, LogFormat, Settings, StartError, Variables};
use tracing::info_span;

telemetry::declare_metrics! {
    /// Counted before telemetry started.
    static EARLY: Counter = ("test.early", "{thing}");
}

#[tokio::test]
async fn with_export_off_everything_but_export_works() {
    EARLY.add(2, ());
    let telemetry = telemetry::export::start_with(settings(), &Variables::of_pairs([])).unwrap();
    assert_eq!(telemetry.destination(), "off");

    let context = info_span!("here").in_scope(TraceContext::current);
    assert!(context.trace_id().is_some(), "no ids");
    let mut headers = http::HeaderMap::new();
    inject(&context, &mut headers);
    assert_eq!(headers["traceparent"].to_str().unwrap(), context.traceparent().unwrap());
    assert_eq!(extract(&headers), context);

    let page = telemetry.prometheus();
    assert!(page.contains("test_early_total 2\n"), "{page}");
    assert!(page.contains("# HELP test_early_total Counted before telemetry started."), "{page}");
    assert!(page.contains("target_info{"), "{page}");

    let second = telemetry::export::start_with(settings(), &Variables::of_pairs([])).unwrap_err();
    assert!(matches!(second, StartError::AlreadyStarted), "{second}");

    let report = telemetry.flush_and_stop(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report}");
    assert!(report.took_ms < 5000);
}

fn settings() -> Settings {
    Settings {
        service_name: "the-service".into(),
        service_version: "1.2.3".into(),
        instance_id: "the-instance".into(),
        environment: "development".into(),
        endpoint: Endpoint::Environment,
        log_filter: String::new(),
        log_format: LogFormat::Text,
        sample_ratio: None,
        recorder: telemetry::recorder::RecorderSettings::default(),
    }
}

//! All three signals over gRPC, chosen by the environment, from a runtime of one thread that ends first.

#![allow(clippy::unwrap_used, reason = "a test")]

mod collector;

use collector::Collector;
use std::time::Duration;
use telemetry::export::{Endpoint, LogFormat, Settings, Variables};
use tracing::info_span;

telemetry::declare_metrics! {
    /// Something counted.
    static COUNTED: Counter = ("test.counted", "{thing}");
}

#[test]
fn nothing_is_lost_over_grpc_though_the_applications_runtime_went_first() {
    let application = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (collector, telemetry) = application.block_on(async {
        let (collector, address) = Collector::grpc().await;
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ];
        let variables = Variables::of_pairs(variables.iter().map(|(name, value)| (*name, value.as_str())));
        let telemetry = telemetry::export::start_with(settings(), &variables).unwrap();
        info_span!("over grpc").in_scope(|| tracing::info!("inside"));
        COUNTED.add(3, ());
        (collector, telemetry)
    });
    drop(application);
    let last = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = last.block_on(telemetry.flush_and_stop(Duration::from_secs(10)));
    assert!(report.is_clean(), "{report}");
    let span = collector.span("over grpc");
    let records = collector.log_records();
    assert_eq!(records.len(), 1, "what exporting itself says must not be exported: {records:?}");
    assert_eq!(records[0].trace_id, span.trace_id);
    assert!(collector.metric("test.counted").is_some());
}

fn settings() -> Settings {
    Settings {
        service_name: "the-service".into(),
        service_version: "1.2.3".into(),
        instance_id: "the-instance".into(),
        environment: "development".into(),
        endpoint: Endpoint::Environment,
        // The exporters' own chatter is on: none of it may be exported.
        log_filter: "info,h2=debug,hyper=debug,tonic=debug,tower=debug,opentelemetry=debug".into(),
        log_format: LogFormat::Json,
        sample_ratio: None,
        recorder: telemetry::recorder::RecorderSettings::default(),
    }
}

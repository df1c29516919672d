//! The whole way over http/protobuf, from a span and a panic to a collector of the test's own.

#![allow(clippy::unwrap_used, reason = "a test")]

mod collector;

use collector::{Collector, attribute};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use std::time::Duration;
use telemetry::export::{Endpoint, LogFormat, Settings, Variables};
use telemetry::panic::{PANIC_RECOVERED, PanicSite, Policy, Recovery};
use tracing::{Instrument as _, info_span};

fn settings(url: String) -> Settings {
    Settings {
        service_name: "the-service".into(),
        service_version: "1.2.3".into(),
        instance_id: "the-instance".into(),
        environment: "development".into(),
        endpoint: Endpoint::Url(url),
        // The exporters' own chatter is on: none of it may be exported.
        log_filter: "info,reqwest=debug,hyper=debug,opentelemetry=debug".into(),
        log_format: LogFormat::Text,
        sample_ratio: None,
        recorder: telemetry::recorder::RecorderSettings::default(),
    }
}

const QUIET: Recovery<'_> = Recovery { component: "quiet", actor: "quiet", policy: Policy::Restart };

// One worker only: there the application's runtime and the exporters would dead-lock if they shared anything.
#[tokio::test]
async fn a_panic_and_all_around_it_arrive_at_the_collector_exactly_once() {
    let (collector, address) = Collector::http().await;
    let no_variables = Variables::of_pairs([]);
    let telemetry = telemetry::export::start_with(settings(format!("http://{address}")), &no_variables).unwrap();
    telemetry::panic::install_hook();
    PANIC_RECOVERED.born(QUIET);

    let line = line!() + 1;
    let work = async { info_span!("work").in_scope(|| panic!("the wheel broke")) };
    let panic = telemetry::panic::catch(work).instrument(info_span!("request")).await.unwrap_err();
    telemetry::panic::record(site(), panic);
    let broken = async { info_span!("broken").in_scope(|| telemetry::ensure!(1 > 2, "the sum is off"; total = 7)) };
    telemetry::panic::record(site(), telemetry::panic::catch(broken).await.unwrap_err());
    tracing::info!(answer = 42_i64, "one record");

    let page = telemetry.prometheus();
    let report = telemetry.flush_and_stop(Duration::from_secs(10)).await;
    assert!(report.is_clean(), "{report}");

    let span = collector.span("work");
    let [event] = span.events.as_slice() else { panic!("{:?}", span.events) };
    assert_eq!(event.name, "panic.recovered");
    let stack = attribute(&event.attributes, "exception.stacktrace").unwrap();
    assert!(stack.contains(&format!("tests/http.rs:{line}:")), "{stack}");
    assert_eq!(attribute(&span.attributes, "error.type").as_deref(), Some("panic"));
    assert_eq!(span.trace_id, collector.span("request").trace_id);

    let records = collector.log_records();
    assert_eq!(records.len(), 3, "what exporting itself says must not be exported: {records:?}");
    let panics: Vec<_> = records.iter().filter(|record| record.event_name == "panic.recovered").collect();
    assert_eq!(panics.len(), 2);
    assert_eq!((&panics[0].trace_id, &panics[0].span_id), (&span.trace_id, &span.span_id));
    assert_eq!(attribute(&panics[0].attributes, "exception.message").as_deref(), Some("the wheel broke"));
    assert!(records.iter().all(|record| record.time_unix_nano > 0), "viewers would show 1970");

    let event = &collector.span("broken").events[0];
    assert_eq!(attribute(&event.attributes, "exception.message").as_deref(), Some("the sum is off"));
    assert_eq!(attribute(&event.attributes, "panic.context.total").as_deref(), Some("7"));
    let told = |key| attribute(&panics[1].attributes, key);
    assert_eq!(
        (told("panic.condition").as_deref(), told("panic.context").as_deref()),
        (Some("1 > 2"), Some("total=7"))
    );

    assert!(page.contains("panic_recovered_total{actor=\"a.b\",component=\"a\",policy=\"restart\"} 2\n"), "{page}");
    assert!(
        page.contains("panic_recovered_total{actor=\"quiet\",component=\"quiet\",policy=\"restart\"} 0\n"),
        "{page}"
    );
    assert!(!page.contains("_total_total"), "{page}");
    let Some(Data::Sum(sum)) = collector.metric("panic_recovered_total").unwrap().data else { panic!("not a sum") };
    assert_eq!(sum.data_points.len(), 2);

    assert_eq!(collector.resource("service.name").as_deref(), Some("the-service"));
    assert_eq!(collector.resource("service.instance.id").as_deref(), Some("the-instance"));
    assert_eq!(collector.resource("deployment.environment.name").as_deref(), Some("development"));
}

fn site() -> PanicSite<'static> {
    PanicSite {
        component: "a",
        actor: "a.b",
        policy: Policy::Restart,
        phase: "handle",
        message_type: None,
        incarnation: 1,
        tenant: None,
        detail: Vec::new(),
    }
}

use super::*;
use crate::export::pipeline::Pipeline;
use crate::recorder::sampler::Recorded;
use crate::testing::Subscribed;
use opentelemetry::logs::Severity;
use opentelemetry::trace::{Span as _, SpanBuilder, Tracer as _, TracerProvider as _};
use opentelemetry::trace::{SpanContext, Status as Result, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracer, SdkTracerProvider, SimpleSpanProcessor};
use serde_json::{Value, json};
use std::time::SystemTime;

const SHARDS: usize = 8;

/// A recorder as it stands in the product, and what is exported beside it.
struct Bench {
    recorder: Recorder,
    tracer: SdkTracer,
    _provider: SdkTracerProvider,
    exported: InMemorySpanExporter,
}

impl Bench {
    fn new(settings: &RecorderSettings) -> Self {
        Self::sampled(settings, Sampler::AlwaysOn)
    }

    fn sampled(settings: &RecorderSettings, sampler: Sampler) -> Self {
        let (recorder, exported) = (Recorder::new(settings), InMemorySpanExporter::default());
        let exports = Some(SimpleSpanProcessor::new(exported.clone()));
        let pipeline = Pipeline { exports, recorder: Some(recorder.clone()) };
        let builder = SdkTracerProvider::builder().with_sampler(Recorded(sampler)).with_span_processor(pipeline);
        let provider = builder.build();
        Self { recorder, tracer: provider.tracer("test"), _provider: provider, exported }
    }

    fn start(&self, name: &'static str, parent: &Context) -> opentelemetry_sdk::trace::Span {
        self.tracer.start_with_context(name, parent)
    }

    /// A trace of one span.
    fn trace(&self, name: &'static str, finish: impl FnOnce(&mut opentelemetry_sdk::trace::Span)) -> TraceId {
        let mut span = self.start(name, &Context::new());
        finish(&mut span);
        span.end();
        span.span_context().trace_id()
    }

    fn view(&self, trace: TraceId) -> Value {
        serde_json::to_value(self.recorder.trace(trace).unwrap()).unwrap()
    }

    fn names(&self, query: TraceQuery) -> Vec<String> {
        self.recorder.traces(&TraceQuery { limit: 1000, ..query }).into_iter().map(|trace| trace.name).collect()
    }
}

fn fails(span: &mut opentelemetry_sdk::trace::Span) {
    span.set_status(Result::error("no luck"));
}

fn small() -> RecorderSettings {
    RecorderSettings {
        recent_max_bytes: 1 << 20,
        kept_max_bytes: 1 << 20,
        log_max_bytes: 1 << 20,
        ..Default::default()
    }
}

#[test]
fn what_is_held_stays_within_its_bytes_and_the_latest_is_there() {
    let bench = Bench::new(&small());
    let text = "x".repeat(500);
    let work = || bench.trace("work", |span| span.set_attribute(KeyValue::new("text", text.clone())));
    for _ in 0..20_000 {
        work();
    }
    let latest = work();
    let stats = bench.recorder.stats();
    assert!(stats.recent.bytes <= 1 << 20, "{stats:?}");
    assert!(stats.recent.bytes > (1 << 20) * 9 / 10, "the room is used: {stats:?}");
    assert_eq!((stats.kept, stats.open), (Held::default(), Held::default()));
    assert_eq!(bench.view(latest)["spans"], 1);
    work();
    let later = bench.recorder.stats();
    assert_eq!(later.recent.items, stats.recent.items, "one goes for each that comes");
    assert_eq!((later.started, later.ended), (stats.started + 1, stats.ended + 1), "and is counted");
}

#[test]
fn failures_and_slow_traces_survive_a_flood_of_healthy_ones() {
    let bench = Bench::new(&small());
    let failed = bench.trace("failed", fails);
    let slow = bench.trace("slow", |span| span.end_with_timestamp(SystemTime::now() + Duration::from_secs(2)));
    let healthy = bench.trace("healthy", |_| ());
    for _ in 0..300_000 {
        bench.trace("work", |_| ());
    }
    assert!(bench.recorder.trace(healthy).is_none());
    assert_eq!((bench.view(failed)["ring"].clone(), bench.view(slow)["ring"].clone()), (json!("kept"), json!("kept")));
    assert_eq!(bench.names(TraceQuery { errors: true, ..TraceQuery::default() }), ["failed"]);
}

#[test]
fn a_flood_of_slow_traces_pushes_out_no_failure() {
    let bench = Bench::new(&small());
    let failed = bench.trace("failed", fails);
    for _ in 0..20_000 {
        bench.trace("slow", |span| span.end_with_timestamp(SystemTime::now() + Duration::from_secs(2)));
    }
    assert_eq!(bench.view(failed)["errors"], 1);
    assert!(bench.recorder.stats().kept.bytes <= 1 << 20);
}

#[test]
fn a_trace_that_fails_is_kept_whole_what_came_before_and_what_comes_after() {
    let bench = Bench::new(&small());
    let root = Context::new().with_span(bench.start("root", &Context::new()));
    let trace = root.span().span_context().trace_id();
    bench.start("before", &root).end();
    fails_and_ends(&bench, &root);
    bench.start("after", &root).end();
    root.span().end();
    for _ in 0..20_000 {
        bench.trace("work", |_| ());
    }
    let view = bench.view(trace);
    let mut names: Vec<_> = view["items"].as_array().unwrap().iter().map(|span| span["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["after", "before", "failing", "root"]);
    assert_eq!((&view["name"], &view["errors"], &view["ring"]), (&json!("root"), &json!(1), &json!("kept")));
}

fn fails_and_ends(bench: &Bench, parent: &Context) {
    let mut span = bench.start("failing", parent);
    fails(&mut span);
    span.end();
}

#[test]
fn a_failure_survives_what_follows_in_its_own_trace() {
    let bench = Bench::new(&small());
    let remote = SpanContext::new(7.into(), 7.into(), TraceFlags::SAMPLED, true, TraceState::default());
    let caller = Context::new().with_remote_span_context(remote);
    fails_and_ends(&bench, &caller);
    for _ in 0..20_000 {
        bench.start("work", &caller).end();
    }
    assert_eq!(bench.view(7.into())["errors"], 1);
    assert!(bench.recorder.stats().kept.bytes <= (1 << 20) / SHARDS, "it takes no more than its shard has");
}

#[test]
fn an_open_span_is_listed_until_it_ends() {
    let bench = Bench::new(&small());
    let mut open = bench.tracer.build_with_context(
        SpanBuilder::from_name("hangs").with_attributes([KeyValue::new("job.id", "j1")]),
        &Context::new(),
    );
    let trace = open.span_context().trace_id();
    let (list, count) = bench.recorder.open(10);
    assert_eq!((count, list[0].name.as_str(), list[0].attributes.text("job.id")), (1, "hangs", Some("j1")));
    let view = bench.view(trace);
    assert_eq!((&view["name"], &view["open"], &view["spans"]), (&json!("hangs"), &json!(1), &json!(0)));
    assert_eq!(bench.names(TraceQuery::default()), ["hangs"]);
    open.end();
    assert_eq!(bench.recorder.open(10), (Vec::new(), 0));
    assert_eq!(bench.view(trace)["spans"], 1);
}

#[test]
fn a_trace_of_which_nothing_has_ended_is_found_by_its_tenant_and_takes_until_now() {
    let bench = Bench::new(&small());
    let builder = SpanBuilder::from_name("hangs").with_attributes([KeyValue::new("tenant", "demo")]);
    let open = bench
        .tracer
        .build_with_context(builder.with_start_time(SystemTime::now() - Duration::from_secs(60)), &Context::new());
    let of_demo = TraceQuery { tenant: Some("demo".into()), min_ms: Some(60_000), ..TraceQuery::default() };
    assert_eq!(bench.names(of_demo.clone()), ["hangs"]);
    assert_eq!(bench.names(TraceQuery { errors: true, ..of_demo }), Vec::<String>::new());
    let view = bench.view(open.span_context().trace_id());
    assert!(view["duration_ns"].as_u64().unwrap() >= 60_000_000_000, "{view}");
}

#[test]
fn open_spans_are_bounded_in_bytes_too() {
    let bench = Bench::new(&RecorderSettings { open_max: 100_000, ..small() });
    let attributes = |n: usize| (0..16).map(move |at| KeyValue::new(format!("{n}.{at}"), "x".repeat(10_000)));
    let start = |n| {
        bench.tracer.build_with_context(SpanBuilder::from_name("work").with_attributes(attributes(n)), &Context::new())
    };
    let open: Vec<_> = (0..3_000).map(start).collect();
    let held = bench.recorder.stats().open;
    assert!(held.bytes <= (4 << 20) + 10_000 && held.bytes > 3 << 20, "{held:?}");
    assert!((500..2_000).contains(&held.items), "each is cut to what one wants to know of it: {held:?}");
    drop(open);
    assert_eq!(bench.recorder.stats().open, Held::default());
}

#[test]
fn no_more_open_spans_are_listed_than_there_may_be() {
    let bench = Bench::new(&RecorderSettings { open_max: 10, ..small() });
    let open: Vec<_> = (0..25).map(|_| bench.start("work", &Context::new())).collect();
    assert_eq!(bench.recorder.open(100).1, 10);
    drop(open);
    assert_eq!(bench.recorder.stats().open, Held::default());
    let _again = bench.start("again", &Context::new());
    assert_eq!(bench.recorder.open(100).1, 1, "there is room again");
}

#[test]
fn what_the_sampler_drops_is_recorded_and_not_exported() {
    let bench = Bench::sampled(&small(), Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    let root = Context::new().with_span(bench.start("root", &Context::new()));
    bench.start("child", &root).end();
    root.span().end();
    let view = bench.view(root.span().span_context().trace_id());
    assert_eq!((&view["spans"], &view["items"][0]["sampled"]), (&json!(2), &json!(false)));
    assert!(bench.exported.get_finished_spans().unwrap().is_empty());
    assert!(!root.span().span_context().is_sampled());
    let sampled = Bench::sampled(&small(), Sampler::AlwaysOn);
    sampled.trace("work", |_| ());
    assert_eq!(sampled.exported.get_finished_spans().unwrap().len(), 1);
}

#[test]
fn a_span_too_large_for_its_ring_is_refused_and_the_others_stay() {
    let bench = Bench::new(&small());
    let before = bench.trace("before", |_| ());
    let huge = bench.trace("huge", |span| span.set_attribute(KeyValue::new("text", "x".repeat(1 << 20))));
    assert!(bench.recorder.trace(huge).is_none());
    assert_eq!(bench.view(before)["spans"], 1);
}

#[test]
fn a_trace_is_shown_with_all_that_is_known_of_its_spans() {
    let bench = Bench::new(&small());
    let first = bench.trace("first", |_| ());
    let trace = bench.trace("second", |span| {
        span.set_attribute(KeyValue::new("tenant", "<script>alert(1)</script>"));
        span.set_attribute(KeyValue::new("count", 3_i64));
        span.set_attribute(KeyValue::new("origin.trace_id", first.to_string()));
        span.add_event("panic.recovered", vec![KeyValue::new("component", "scheduler")]);
        let linked = SpanContext::new(first, 9.into(), TraceFlags::SAMPLED, false, TraceState::default());
        span.add_link(linked, Vec::new());
        fails(span);
    });
    let view = bench.view(trace);
    assert_eq!(view["tenant"], "<script>alert(1)</script>");
    assert_eq!((&view["origin_trace_id"], &view["components"]), (&json!(first.to_string()), &json!(["scheduler"])));
    let span = &view["items"][0];
    assert_eq!(span["status"], json!({"code": "error", "message": "no luck"}));
    assert_eq!(span["attributes"]["count"], 3);
    assert_eq!(span["events"][0]["attributes"], json!({"component": "scheduler"}));
    assert_eq!(span["links"][0]["trace_id"], first.to_string());
    assert_eq!(
        (&span["parent_span_id"], &span["kind"], &span["offset_ns"]),
        (&Value::Null, &json!("internal"), &json!(0))
    );
    let followers = &bench.view(first)["followers"];
    assert_eq!((followers.as_array().unwrap().len(), &followers[0]["trace_id"]), (1, &json!(trace.to_string())));
}

#[test]
fn what_is_too_much_to_be_shown_of_a_trace_is_counted() {
    let bench = Bench::new(&RecorderSettings { log_max_bytes: 1 << 30, ..RecorderSettings::default() });
    let logger = SdkLoggerProvider::builder().with_log_processor(bench.recorder.clone()).build();
    let subscribed = Subscribed::new(bench.tracer.clone(), &logger);
    let first = subscribed.run(|| {
        tracing::info_span!("first").in_scope(|| {
            (0..5_003).for_each(|n| tracing::info!(n, "again"));
            Context::current().span().span_context().trace_id()
        })
    });
    for _ in 0..204 {
        bench.trace("next", |span| span.set_attribute(KeyValue::new("origin.trace_id", first.to_string())));
    }
    let view = bench.view(first);
    assert_eq!(view["left_off"], json!({ "spans": 0, "logs": 3, "followers": 4 }));
    assert_eq!(view["items"][0]["logs"].as_array().unwrap().len(), 5_000);
    assert_eq!(bench.recorder.stats().logged, 5_003);
}

#[test]
fn traces_are_listed_newest_first_and_page_by_page() {
    let bench = Bench::new(&small());
    let at = |s: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
    for s in 1..=5 {
        let builder = SpanBuilder::from_name(format!("Work {s}")).with_start_time(at(s));
        let mut span = bench.tracer.build_with_context(builder, &Context::new());
        span.set_attribute(KeyValue::new("tenant", if s % 2 == 0 { "even" } else { "odd" }));
        span.end_with_timestamp(at(s) + Duration::from_millis(s));
    }
    let all = TraceQuery::default();
    assert_eq!(bench.names(all.clone()), ["Work 5", "Work 4", "Work 3", "Work 2", "Work 1"]);
    assert_eq!(bench.names(TraceQuery { tenant: Some("even".into()), ..all.clone() }), ["Work 4", "Work 2"]);
    assert_eq!(bench.names(TraceQuery { min_ms: Some(4), ..all.clone() }), ["Work 5", "Work 4"]);
    assert_eq!(bench.names(TraceQuery { since_ms: Some(4_000), ..all.clone() }), ["Work 5", "Work 4"]);
    assert_eq!(bench.names(TraceQuery { name: Some("work 3".into()), ..all.clone() }), ["Work 3"]);
    let page = |after| bench.recorder.traces(&TraceQuery { limit: 2, after, ..TraceQuery::default() });
    let second = page(Some(page(None)[1].place()));
    assert_eq!(second.iter().map(|trace| trace.name.as_str()).collect::<Vec<_>>(), ["Work 3", "Work 2"]);
}

#[test]
fn a_trace_as_otlp_is_read_back_as_the_request_of_an_exporter() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    let bench = Bench::new(&small());
    let trace = bench.trace("work", |span| span.set_attribute(KeyValue::new("count", 3_i64)));
    let request: ExportTraceServiceRequest = serde_json::from_str(&bench.recorder.otlp(trace).unwrap()).unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), span.trace_id.as_slice()), ("work", trace.to_bytes().as_slice()));
    assert!(request.resource_spans[0].resource.as_ref().is_some_and(|resource| !resource.attributes.is_empty()));
    assert!(bench.recorder.otlp(TraceId::from(1)).is_none());
}

#[test]
fn log_records_are_found_by_trace_by_level_and_with_their_span() {
    let bench = Bench::new(&small());
    let logger = SdkLoggerProvider::builder().with_log_processor(bench.recorder.clone()).build();
    let subscribed = Subscribed::new(bench.tracer.clone(), &logger);
    let trace = subscribed.run(|| {
        tracing::info!("nobody's");
        tracing::info_span!("work").in_scope(|| {
            tracing::info!(jobs = 3_i64, "claimed");
            tracing::warn!("<b>late</b>");
            Context::current().span().span_context().trace_id()
        })
    });
    let ask = |trace, level| {
        let logs = bench.recorder.logs(&LogQuery { trace, level, limit: 100 });
        logs.into_iter().map(|log| log.message).collect::<Vec<_>>()
    };
    assert_eq!(ask(Some(trace), LogLevel::Trace), ["<b>late</b>", "claimed"]);
    assert_eq!(ask(None, LogLevel::Warn), ["<b>late</b>"]);
    assert_eq!(ask(None, LogLevel::Info), ["<b>late</b>", "claimed", "nobody's"]);
    let view = bench.view(trace);
    let logs = &view["items"][0]["logs"];
    assert_eq!((&logs[0]["message"], &logs[0]["attributes"]["jobs"]), (&json!("claimed"), &json!(3)));
    assert_eq!((&logs[1]["level"], &view["logs"]), (&json!("WARN"), &json!([])));
}

#[test]
fn the_log_of_a_failure_survives_a_flood_and_logs_stay_within_their_bytes() {
    let bench = Bench::new(&small());
    let emit = |trace: TraceId, severity: Severity, text: &str| {
        use opentelemetry::logs::{LogRecord as _, Logger as _, LoggerProvider as _};
        let logger = SdkLoggerProvider::builder().with_log_processor(bench.recorder.clone()).build().logger("test");
        let mut record = logger.create_log_record();
        record.set_severity_number(severity);
        record.set_body(text.to_owned().into());
        if trace != TraceId::INVALID {
            record.set_trace_context(trace, 1.into(), None);
        }
        logger.emit(record);
    };
    let failed = bench.trace("failed", fails);
    emit(failed, Severity::Info, "what led to it");
    for number in 0..10_000_u128 {
        emit((number + 1).into(), Severity::Info, "healthy");
        emit(TraceId::INVALID, Severity::Info, "of no trace");
    }
    let stats = bench.recorder.stats();
    assert!(stats.logs.bytes <= 1 << 20, "{stats:?}");
    let kept = bench.recorder.logs(&LogQuery { trace: Some(failed), level: LogLevel::Trace, limit: 10 });
    assert_eq!(kept[0].message, "what led to it");
    let all = bench.recorder.logs(&LogQuery { trace: None, level: LogLevel::Trace, limit: usize::MAX });
    assert!(all.iter().any(|log| log.trace_id.is_none()), "those of no trace have a ring of their own");
}

#[test]
fn what_had_to_make_room_is_counted_and_what_is_held_is_told() {
    // Of what is counted before there is a provider, only the first is kept.
    crate::testing::scrape();
    let bench = Bench::new(&small());
    bench.recorder.report();
    for _ in 0..20_000 {
        bench.trace("work", |_| ());
    }
    let page = crate::testing::scrape();
    let value = |name: &str| -> f64 {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("telemetry_recorder_evicted_total{ring=\"recent\"}") > 1_000.0);
    assert!(value("telemetry_recorder_held_bytes{ring=\"recent\"}") > 100_000.0);
    assert!(value("telemetry_recorder_items{ring=\"recent\"}") > 100.0);
    assert!(page.contains("telemetry_recorder_refused_total{what=\"open\"}"), "{page}");
}

//! A process with telemetry as in the product, that measures it from inside.

use std::hint::black_box;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer as _};
use telemetry::export::{self, Endpoint, LogFormat, Telemetry};
use telemetry::recorder::RecorderSettings;
use tests::bench::{cpu_now, ns_each};

/// The argument before the mode of a worker.
pub const WORKER: &str = "--worker";

/// Calls that are measured together.
const CALLS: usize = 100_000;
/// Spans and log records that fill every ring several times.
const FILL: usize = 400_000;
const MIB: usize = 1 << 20;

telemetry::labels! {
    /// As of a queue.
    struct OfQueue<'a> { queue: &'a str }
}

telemetry::declare_metrics! {
    /// Counts.
    static COUNTER: Counter<OfQueue> = ("bench.counter", "{call}");
    /// Counts into buckets.
    static HISTOGRAM: Histogram<OfQueue> = ("bench.histogram", "s", [0.001, 0.01, 0.1, 1.0, 10.0]);
    /// Counts both ways.
    static UP_DOWN: UpDownCounter<OfQueue> = ("bench.up_down", "{call}");
    /// Is set.
    static GAUGE: Gauge<OfQueue> = ("bench.gauge", "s");
    /// Is asked.
    static ASKED: ObservableGauge<OfQueue> = ("bench.asked", "s");
}

/// Measures what `mode` says and prints it.
pub fn run(mode: &str) {
    match mode {
        "memory" => memory(),
        mode => {
            let telemetry = start(RecorderSettings { enabled: mode == "on", ..RecorderSettings::default() });
            calls();
            asked(&telemetry);
        }
    }
}

fn start(recorder: RecorderSettings) -> Telemetry {
    let settings = export::Settings {
        service_name: "bench".into(),
        service_version: "0".into(),
        instance_id: "bench".into(),
        environment: "development".into(),
        endpoint: Endpoint::Off,
        log_filter: "info".into(),
        log_format: LogFormat::Json,
        sample_ratio: None,
        recorder,
    };
    export::start(settings).unwrap()
}

fn calls() {
    // Full before it is measured: then each span pushes another one out.
    (0..CALLS).for_each(span);
    say("span", each(span));
    let tracer = opentelemetry::global::tracer("bench");
    say("span_by_api", each(|number| span_by_api(&tracer, number)));
    tracing::info_span!("work").in_scope(|| say("log", each(log)));
    say("counter", each(|_| COUNTER.add(1, OfQueue { queue: "default" })));
    let counter = COUNTER.bind(OfQueue { queue: "default" });
    say("counter_bound", each(|_| counter.add(1)));
    say("histogram", each(|number| HISTOGRAM.record(number as f64, OfQueue { queue: "default" })));
    let histogram = HISTOGRAM.bind(OfQueue { queue: "default" });
    say("histogram_bound", each(|number| histogram.record(black_box(number as f64))));
    say("up_down_counter", each(|_| UP_DOWN.add(1, OfQueue { queue: "default" })));
    let up_down = UP_DOWN.bind(OfQueue { queue: "default" });
    say("up_down_counter_bound", each(|_| up_down.add(1)));
    say("gauge", each(|number| GAUGE.set(number as f64, OfQueue { queue: "default" })));
    let gauge = GAUGE.bind(OfQueue { queue: "default" });
    say("gauge_bound", each(|number| gauge.set(black_box(number as f64))));
}

/// What one value of an observable gauge costs each time that somebody asks.
fn asked(telemetry: &Telemetry) {
    const VALUES: usize = 1_000;
    let scrape = || {
        let began = cpu_now();
        (0..20).for_each(|_| drop(black_box(telemetry.prometheus())));
        cpu_now() - began
    };
    let before = scrape();
    let queues: Vec<String> = (0..VALUES).map(|queue| queue.to_string()).collect();
    ASKED.observe_with(move |asked| queues.iter().for_each(|queue| asked.value(1.0, OfQueue { queue })));
    say("observable_gauge", ns_each(scrape().saturating_sub(before), 20 * VALUES));
}

fn span(number: usize) {
    let span = tracing::info_span!(
        parent: None,
        "job.run",
        otel.kind = "consumer",
        job.id = %number,
        job.kind = "publish",
        job.queue = "default",
        job.attempt = 1_i64,
        tenant = "demo",
    );
    span.in_scope(|| black_box(()));
}

fn span_by_api(tracer: &opentelemetry::global::BoxedTracer, number: usize) {
    let mut span = tracer.start("job.run");
    span.set_attribute(KeyValue::new("job.id", number.to_string()));
    span.set_attribute(KeyValue::new("job.kind", "publish"));
    span.set_attribute(KeyValue::new("job.queue", "default"));
    span.set_attribute(KeyValue::new("job.attempt", 1_i64));
    span.set_attribute(KeyValue::new("tenant", "demo"));
    span.end();
}

fn log(number: usize) {
    tracing::info!(job.id = number as u64, queue = "default", tenant = "demo", "claimed a job of this tenant");
}

/// CPU of the whole process for one call.
fn each(call: impl Fn(usize)) -> f64 {
    let began = cpu_now();
    (0..CALLS).for_each(call);
    ns_each(cpu_now() - began, CALLS)
}

/// Fills all rings and looks at what the process takes then. The rings are large, so that all else counts little.
fn memory() {
    let settings = RecorderSettings {
        recent_max_bytes: 64 * MIB,
        kept_max_bytes: 64 * MIB,
        log_max_bytes: 32 * MIB,
        ..RecorderSettings::default()
    };
    let limit = settings.recent_max_bytes + settings.kept_max_bytes + settings.log_max_bytes;
    let telemetry = start(settings);
    let before = resident();
    for number in 0..FILL {
        span(number);
        let failed =
            tracing::info_span!(parent: None, "job.run", otel.status_code = "ERROR", job.id = %number, tenant = "demo");
        failed.in_scope(|| log(number));
        tracing::info_span!(parent: None, "job.run", tenant = "demo").in_scope(|| log(number));
        log(number);
    }
    let taken = resident().saturating_sub(before);
    let stats = telemetry.recorder().unwrap().stats();
    say("taken_mib", taken as f64 / MIB as f64);
    say("held_mib", (stats.recent.bytes + stats.kept.bytes + stats.logs.bytes) as f64 / MIB as f64);
    say("limit_mib", limit as f64 / MIB as f64);
}

/// Resident memory in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

//! Three hundred thousand spans at once, and thirty thousand log records, in a process that has telemetry as the product has: wherever they go, making them
//! takes no longer, what waits is bounded, and each is accounted for.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use otlp::{Protocol, Refused, Sink, Telemetry};
use telemetry::export::{self, Endpoint, LogFormat};
use telemetry::recorder::RecorderSettings;
use tests::{Metrics, process::Process};
use tokio::net::TcpListener;

const SPANS: usize = 300_000;
/// One for each so manieth span.
const LOGS: usize = SPANS / 10;
const THREADS: usize = 2;
/// The bound of what waits, unless a variable says otherwise.
const QUEUE: f64 = 8_192.0;
/// All of it may take this long on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(300);
/// As in the product.
const FLUSH: Duration = Duration::from_secs(2);
const MIB: f64 = 1024.0 * 1024.0;
/// An export that nobody answers takes 3 s, and a span that waits for one is not made sooner.
const NOT_WAITED: Duration = Duration::from_secs(2);
/// Those that a busy machine may hold up for so long. With an export for each 512 it would be hundreds.
const HELD_UP_MAX: f64 = 5.0;
/// MiB beside what the recorder may keep: what waits, at 2 KiB each, with the debris of an allocator. All of them would be some
/// 300.
const GROWTH_MAX: f64 = 24.0;

const HANDED_ON: [(&str, &str); 2] =
    [("traces", "otel_sdk_processor_span_processed_total"), ("logs", "otel_sdk_processor_log_processed_total")];
const LOST: &str = "telemetry_export_lost_total";

/// Names where the burst goes to, in the process that makes it.
const GOES_TO: &str = "BURST_GOES_TO";

/// What is said of a burst by who has made it.
#[derive(Debug)]
struct Burst {
    took_ms: f64,
    longest_ms: f64,
    held_up: f64,
    grown_mib: f64,
    flush_ms: f64,
    page: Metrics,
}

impl Burst {
    /// Makes it in a process of its own: telemetry starts once in each.
    async fn to(address: &str) -> Burst {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "as_the_process_that_makes_it", "--nocapture"]).env(GOES_TO, address);
        let ended = Process::spawn(command).wait(SOON).await;
        assert_eq!(ended.code, 0, "{}", ended.log());
        let said = |name: &str| {
            let line = ended.stdout.iter().find_map(|line| line.strip_prefix("burst: ")?.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {:#?}", ended.stdout)).trim().parse::<f64>().unwrap()
        };
        let page = ended.stdout.iter().filter_map(|line| line.strip_prefix("page: "));
        let burst = Burst {
            took_ms: said("took_ms"),
            longest_ms: said("longest_ms"),
            held_up: said("held_up"),
            grown_mib: said("grown_mib"),
            flush_ms: said("flush_ms"),
            page: Metrics::parse(&page.collect::<Vec<_>>().join("\n")),
        };
        println!(
            "to {address}: {:.0} ms, the longest span {:.1} ms, {:.1} MiB more, flushed in {:.0} ms; {} handed on, \
             {} without room, {} refused",
            burst.took_ms,
            burst.longest_ms,
            burst.grown_mib,
            burst.flush_ms,
            burst.handed_on("traces"),
            burst.full("traces"),
            burst.refused("traces")
        );
        burst
    }

    /// Taken out of the queue of a signal to be sent.
    fn handed_on(&self, signal: &str) -> f64 {
        let (_, name) = HANDED_ON.into_iter().find(|(of, _)| *of == signal).unwrap();
        self.page.value(name, &[]).unwrap_or(0.0)
    }

    fn full(&self, signal: &str) -> f64 {
        self.page.value(LOST, &[("signal", signal), ("reason", "queue_full")]).unwrap_or(0.0)
    }

    fn refused(&self, signal: &str) -> f64 {
        self.page.value(LOST, &[("signal", signal), ("reason", "refused")]).unwrap_or(0.0)
    }

    /// What holds wherever it goes.
    fn held_nobody_up(&self, off: &Burst) {
        assert!(
            self.took_ms < off.took_ms * 10.0 + 1_000.0,
            "{} ms, and {} if nothing is sent",
            self.took_ms,
            off.took_ms
        );
        assert!(self.held_up <= HELD_UP_MAX, "{} spans, the longest for {} ms", self.held_up, self.longest_ms);
        let recorder = RecorderSettings::default();
        let kept = (recorder.recent_max_bytes + recorder.kept_max_bytes + recorder.log_max_bytes) as f64 / MIB;
        assert!(self.grown_mib < GROWTH_MAX + kept, "{} MiB", self.grown_mib);
        assert!(self.flush_ms < FLUSH.as_secs_f64() * 1_000.0 + 500.0, "{} ms", self.flush_ms);
        for (signal, made) in [("traces", SPANS), ("logs", LOGS)] {
            let waits = made as f64 - self.handed_on(signal) - self.full(signal);
            assert!((0.0..=QUEUE).contains(&waits), "{waits} of {made} {signal} wait or are missing: {self:?}");
        }
    }
}

/// Counts spans and log records.
#[derive(Default)]
struct Counted([AtomicU64; 2]);

impl Sink for Counted {
    async fn take(&self, telemetry: Telemetry, _: Protocol) -> Result<(), Refused> {
        match telemetry {
            Telemetry::Spans(spans) => self.0[0].fetch_add(spans.len() as u64, Ordering::Relaxed),
            Telemetry::Logs(logs) => self.0[1].fetch_add(logs.len() as u64, Ordering::Relaxed),
            _ => 0,
        };
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_burst_of_300_000_spans_holds_nobody_up_and_each_is_accounted_for() {
    let listener = || async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        (listener, address)
    };
    let off = Burst::to("off").await;

    let (served, address) = listener().await;
    let arrived = Arc::new(Counted::default());
    let serving = tokio::spawn(otlp::http(served, arrived.clone()));
    let well = Burst::to(&address).await;
    well.held_nobody_up(&off);
    for (at, (signal, made)) in [("traces", SPANS), ("logs", LOGS)].into_iter().enumerate() {
        let (handed_on, full) = (well.handed_on(signal), well.full(signal));
        assert_eq!((handed_on + full, well.refused(signal)), (made as f64, 0.0), "{signal}");
        assert_eq!(arrived.0[at].load(Ordering::Relaxed) as f64, handed_on, "{signal}");
    }
    serving.abort();

    let (_silent, address) = listener().await;
    Burst::to(&address).await.held_nobody_up(&off);

    let (gone, address) = listener().await;
    drop(gone);
    let absent = Burst::to(&address).await;
    absent.held_nobody_up(&off);
    for (signal, _) in HANDED_ON {
        let (refused, handed_on) = (absent.refused(signal), absent.handed_on(signal));
        assert!(refused > 0.0 && refused <= handed_on, "{refused} of {handed_on} {signal}");
    }
}

#[test]
fn as_the_process_that_makes_it() {
    // Without the variable this is not that process.
    let Ok(address) = std::env::var(GOES_TO) else { return };
    let endpoint = if address == "off" { Endpoint::Off } else { Endpoint::Url(address) };
    let telemetry = export::start(export::Settings {
        service_name: "burst".into(),
        service_version: "0".into(),
        instance_id: "burst".into(),
        environment: "development".into(),
        endpoint,
        log_filter: "info".into(),
        log_format: LogFormat::Json,
        sample_ratio: None,
        recorder: RecorderSettings::default(),
    })
    .unwrap();
    let page = || Metrics::parse(&telemetry.prometheus());
    let before = resident_mib();
    let began = Instant::now();
    let makers: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(|| spans(SPANS / THREADS))).collect();
    let took: Vec<Duration> = makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect();
    say("took_ms", began.elapsed().as_secs_f64() * 1_000.0);
    say("grown_mib", resident_mib() - before);
    say("longest_ms", took.iter().max().unwrap().as_secs_f64() * 1_000.0);
    say("held_up", took.iter().filter(|took| **took >= NOT_WAITED).count() as f64);
    // Where somebody takes them, all of them are gone soon; elsewhere the first ones are lost by then.
    let patience = Instant::now() + Duration::from_secs(8);
    let names = HANDED_ON.map(|(_, name)| name).into_iter().chain([LOST]);
    let known = |page: Metrics| names.clone().map(|name| page.value(name, &[]).unwrap_or(0.0)).sum::<f64>();
    while Instant::now() < patience && known(page()) < (SPANS + LOGS) as f64 {
        std::thread::sleep(Duration::from_millis(50));
    }
    telemetry.prometheus().lines().for_each(|line| println!("page: {line}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    println!("{}", runtime.block_on(telemetry.flush_and_stop(FLUSH)));
    say("flush_ms", began.elapsed().as_secs_f64() * 1_000.0);
}

/// Makes so many and returns how long each of them took.
fn spans(count: usize) -> Vec<Duration> {
    let one = |number: usize| {
        let began = Instant::now();
        let span =
            tracing::info_span!(parent: None, "job.run", job.id = number, job.queue = "default", tenant = "demo");
        span.in_scope(|| {
            if number.is_multiple_of(SPANS / LOGS) {
                tracing::info!(job.id = number, job.queue = "default", "a job of this tenant is done");
            }
        });
        drop(span);
        began.elapsed()
    };
    (0..count).map(one).collect()
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn say(name: &str, value: f64) {
    println!("burst: {name} {value}");
}

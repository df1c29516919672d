//! The released service under load, with its telemetry in several settings that take turns.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::Router;
use http::StatusCode;
use serde_json::json;
use tests::bench::{self, median};
use tests::{Client, DEMO_KEY, Service, Setup, binary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Turns of each setting, and how long each is asked, after a while to warm up.
const TURNS: usize = 5;
const ASKED: Duration = Duration::from_secs(3);
const WARM: Duration = Duration::from_secs(1);
/// Jobs of one request.
const JOBS: u16 = 1_000;
/// Connections that ask at once.
const CONNECTIONS: usize = 8;

/// Name, share of traces exported, whether they are recorded too.
const SETTINGS: [(&str, Option<&str>, bool); 5] = [
    ("off", None, false),
    ("1 %", Some("0.01"), false),
    ("1 % recorded", Some("0.01"), true),
    ("100 %", Some("1"), false),
    ("100 % recorded", Some("1"), true),
];

/// What is asked of the service, each for itself.
#[derive(Clone, Copy)]
enum Load {
    /// A request that is refused at once: the cheapest there is.
    Refused,
    /// A request that shows a job.
    Shown,
    /// Jobs from their making to their end.
    Jobs,
}

/// How many a second, and the service's own CPU for each in microseconds.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Prints rows for each setting beside `off`.
pub fn rows() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (load, what) in [(Load::Refused, "refusals"), (Load::Shown, "requests"), (Load::Jobs, "jobs")] {
        let figures = runtime.block_on(measure(load));
        let of = |name: &str| (median(figures[name].rates.clone()), median(figures[name].cpu_us.clone()));
        let (rate_off, cpu_off) = of("off");
        for (name, _, _) in &SETTINGS[1..] {
            let (rate, cpu) = of(name);
            let goal = if name.starts_with("1 %") { 0.95 } else { 0.85 };
            let (row, ours, reference) =
                (format!("telemetry.{what} {name}"), format!("{rate:.0}/s"), format!("{rate_off:.0}/s off"));
            match load {
                Load::Refused => bench::figure_row(&row, &ours, &reference, rate / rate_off),
                Load::Shown | Load::Jobs => bench::at_least_row(&row, &ours, &reference, rate / rate_off, goal),
            }
            let (ours, reference) = (format!("{cpu:.1} us"), format!("{cpu_off:.1} us off"));
            bench::figure_row(&format!("telemetry.{what}_cpu {name}"), &ours, &reference, cpu / cpu_off);
        }
    }
}

async fn measure(load: Load) -> HashMap<&'static str, Figures> {
    let collector = sink().await;
    let mut services = Vec::new();
    for (name, share, recorded) in SETTINGS {
        services.push((name, setup(&collector, share, recorded).start().await));
    }
    let mut figures: HashMap<&'static str, Figures> = HashMap::new();
    for _ in 0..TURNS {
        for (name, service) in &services {
            let path = match load {
                Load::Refused => "/v1/jobs/none".to_owned(),
                Load::Shown => format!("/v1/jobs/{}", service.enqueue("sleep", json!({"ms": 0})).await),
                Load::Jobs => String::new(),
            };
            let work = async |time| match load {
                Load::Refused | Load::Shown => ask_for(service.api(), &path, time).await,
                Load::Jobs => run_for(service, time).await,
            };
            work(WARM).await;
            let (cpu, began) = (cpu_of(service), Instant::now());
            let done = work(ASKED).await;
            let (took, cpu) = (began.elapsed(), cpu_of(service) - cpu);
            let all = figures.entry(name).or_default();
            all.rates.push(done as f64 / took.as_secs_f64());
            all.cpu_us.push(cpu.as_secs_f64() * 1e6 / done as f64);
        }
    }
    figures
}

/// Makes jobs, a thousand at a time, and waits for the last one of them; answers how many it has run.
async fn run_for(service: &Service, time: Duration) -> usize {
    let until = Instant::now() + time;
    let job = |priority: i32| json!({"kind": "sleep", "payload": {"ms": 0}, "priority": priority});
    let jobs: Vec<_> = (0..JOBS).map(|n| job(i32::from(n + 1 == JOBS))).collect();
    let mut run = 0;
    while Instant::now() < until {
        let made = service.api().post("/v1/jobs/batch", &json!({ "jobs": jobs })).await.expect(201).json();
        let last = made["ids"][usize::from(JOBS) - 1].as_str().unwrap();
        while service.job(last).await["state"] != "done" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        run += usize::from(JOBS);
    }
    run
}

fn setup(collector: &str, share: Option<&str>, recorded: bool) -> Setup {
    let setup = Service::setup().executable(binary::released_app()).set("telemetry.recorder.enabled", recorded);
    let setup = setup.set("tenants.requests_per_s", 1_000_000).set("tenants.requests_burst", 1_000_000);
    match share {
        None => setup.env("OTEL_SDK_DISABLED", "true").env("OTEL_TRACES_SAMPLER", "always_off"),
        Some(share) => setup
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", share),
    }
}

/// A collector that takes everything and looks at nothing.
async fn sink() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(|_: bytes::Bytes| async { StatusCode::OK });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Asks without a pause on several connections; answers how many answers came.
async fn ask_for(api: &Client, path: &str, time: Duration) -> usize {
    let until = Instant::now() + time;
    let asking = (0..CONNECTIONS).map(|_| ask_on_one(api.authority(), path, until));
    futures_util::future::join_all(asking).await.into_iter().sum()
}

/// A client that costs next to nothing: the same request again and again, and answers of one known length.
async fn ask_on_one(authority: &str, path: &str, until: Instant) -> usize {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {DEMO_KEY}\r\n\r\n");
    let mut stream = TcpStream::connect(authority).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answered = 0;
    let mut buffer = vec![0; 16_384];
    while Instant::now() < until {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut length = 0;
        while !is_whole(&buffer[..length]) {
            let read = stream.read(&mut buffer[length..]).await.unwrap();
            assert!(read > 0, "the service closed the connection");
            length += read;
        }
        let is_known = [&b"HTTP/1.1 404"[..], b"HTTP/1.1 200"].iter().any(|head| buffer.starts_with(head));
        assert!(is_known, "{}", String::from_utf8_lossy(&buffer[..length]));
        answered += 1;
    }
    answered
}

/// The body is an object, and comes in one piece.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"}") && answer.windows(4).any(|four| four == b"\r\n\r\n")
}

/// CPU that the service has used on all its threads.
fn cpu_of(service: &Service) -> Duration {
    let clock = nix::time::ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(service.process().pid() as i32));
    Duration::from(nix::time::clock_gettime(clock.unwrap()).unwrap())
}

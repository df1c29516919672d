//! The released service under load, with its telemetry in several settings that take turns.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::Router;
use http::StatusCode;
use tests::bench::{self, median};
use tests::{Client, DEMO_KEY, Service, Setup, binary};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Turns of each setting, and how long each is asked, after a while to warm up.
const TURNS: usize = 5;
const ASKED: Duration = Duration::from_secs(3);
const WARM: Duration = Duration::from_secs(1);
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

/// Requests in a second, and the service's own CPU for each in microseconds.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

/// Prints a row for each setting beside `off`.
pub fn rows() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let figures = runtime.block_on(measure());
    let of = |name: &str| (median(figures[name].rates.clone()), median(figures[name].cpu_us.clone()));
    let (rate_off, cpu_off) = of("off");
    for (name, _, _) in &SETTINGS[1..] {
        let (rate, cpu) = of(name);
        let goal = if name.starts_with("1 %") { 0.95 } else { 0.85 };
        let (ours, reference) = (format!("{rate:.0}/s"), format!("{rate_off:.0}/s off"));
        bench::at_least_row(&format!("telemetry.requests {name}"), &ours, &reference, rate / rate_off, goal);
        let (ours, reference) = (format!("{cpu:.1} us"), format!("{cpu_off:.1} us off"));
        bench::figure_row(&format!("telemetry.requests_cpu {name}"), &ours, &reference, cpu / cpu_off);
    }
}

async fn measure() -> HashMap<&'static str, Figures> {
    let collector = sink().await;
    let mut services = Vec::new();
    for (name, share, recorded) in SETTINGS {
        services.push((name, setup(&collector, share, recorded).start().await));
    }
    let mut figures: HashMap<&'static str, Figures> = HashMap::new();
    for _ in 0..TURNS {
        for (name, service) in &services {
            ask_for(service.api(), WARM).await;
            let (cpu, began) = (cpu_of(service), Instant::now());
            let answered = ask_for(service.api(), ASKED).await;
            let (took, cpu) = (began.elapsed(), cpu_of(service) - cpu);
            let all = figures.entry(name).or_default();
            all.rates.push(answered as f64 / took.as_secs_f64());
            all.cpu_us.push(cpu.as_secs_f64() * 1e6 / answered as f64);
        }
    }
    figures
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
async fn ask_for(api: &Client, time: Duration) -> usize {
    let until = Instant::now() + time;
    let asking = (0..CONNECTIONS).map(|_| ask_on_one(api.authority(), until));
    futures_util::future::join_all(asking).await.into_iter().sum()
}

/// A client that costs next to nothing: the same request again and again, and answers of one known length.
async fn ask_on_one(authority: &str, until: Instant) -> usize {
    let request =
        format!("GET /v1/jobs/none HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {DEMO_KEY}\r\n\r\n");
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
        assert!(buffer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&buffer[..length]));
        answered += 1;
    }
    answered
}

/// The body is a problem document, which ends with the only brace of an object.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"}") && answer.windows(4).any(|four| four == b"\r\n\r\n")
}

/// CPU that the service has used on all its threads.
fn cpu_of(service: &Service) -> Duration {
    let clock = nix::time::ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(service.process().pid() as i32));
    Duration::from(nix::time::clock_gettime(clock.unwrap()).unwrap())
}

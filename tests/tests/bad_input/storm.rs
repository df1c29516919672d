//! Ten thousand requests that are wrong in some way, made at random from right ones, on both listeners at once.
//!
//! The seed is printed; `BAD_INPUT_SEED` plays it again, `BAD_INPUT_REQUESTS` changes the number.

use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use tests::raw::exchange;
use tests::{Client, DEMO_KEY, Service, Socket, Store, eventually};

use super::is_unharmed;

const REQUESTS: u64 = 10_000;
/// Connections at a time.
const CLIENTS: u64 = 50;
/// What no answer of the service takes; what is cut in the middle waits for no longer.
const WITHIN: Duration = Duration::from_millis(500);
/// What the process may have grown by at the end, in kB: the heap's own reserve, not what requests leave behind.
const GROWTH_KB: u64 = 64 * 1024;

/// Right requests of a tenant that would change nothing even if they came through, because a field is not known.
fn api_request(random: &mut Rng) -> String {
    let body = match random.u8(0..6) {
        0 => r#"{"kind":"publish","payload":{"topic":"t","data":{"n":[1,2.5e10,"x"]}},"storm":1}"#,
        1 => {
            r#"{"kind":"publish","payload":{"topic":"t","data":null},"priority":5,"run_at":"2030-01-01T00:00:00Z","storm":1}"#
        }
        2 => r#"{"kind":"publish","every_ms":60000,"payload":{"topic":"t","data":1},"storm":1}"#,
        3 => {
            r#"{"kind":"publish","cron":"*/5 * * * *","time_zone":"Europe/Paris","payload":{"topic":"t","data":1},"storm":1}"#
        }
        4 => r#"{"kind":"webhook","url":"https://example.com/hook","storm":1}"#,
        _ => r#"{"name":"acme","topic":"t","data":{"a":{"b":{"c":[[[1]]]}}},"storm":1}"#,
    };
    let path = ["/v1/jobs", "/v1/schedules", "/v1/channels", "/v1/events", "/v1/notifications"][random.usize(0..5)];
    let length = match random.u8(0..3) {
        0 => format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        _ => format!("content-length: {}\r\n\r\n{body}", body.len()),
    };
    let head = format!(
        "host: x\r\nauthorization: Bearer {DEMO_KEY}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    );
    match random.u8(0..8) {
        0 => format!("GET {path}/0190a7a0-0000-7000-8000-000000000000 HTTP/1.1\r\n{head}\r\n"),
        1 => format!("GET {path}?limit=5&cursor=abc&state=done HTTP/1.1\r\n{head}\r\n"),
        2 => format!(
            "GET /v1/socket?topic=a HTTP/1.1\r\n{}upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            head.replace("close", "upgrade")
        ),
        _ => format!("POST {path} HTTP/1.1\r\n{head}{length}"),
    }
}

/// Right requests of an operator that change nothing.
fn admin_request(random: &mut Rng) -> String {
    let head = "host: x\r\nconnection: close\r\n";
    let paths = ["/readyz", "/admin/tree", "/admin/liveness", "/admin/incidents", "/admin/tenants", "/metrics"];
    match random.u8(0..3) {
        0 => format!("POST /dev/panic/no/such/child HTTP/1.1\r\n{head}content-length: 0\r\n\r\n"),
        1 => {
            let body = r#"{"name":"Not A Name","storm":1}"#;
            let path = ["/admin/tenants", "/admin/log-filter", "/admin/tree/no/restart"][random.usize(0..3)];
            let length = body.len();
            format!(
                "POST {path} HTTP/1.1\r\n{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        }
        _ => format!("GET {} HTTP/1.1\r\n{head}\r\n", paths[random.usize(0..paths.len())]),
    }
}

/// Makes one to four of its places wrong.
fn mutate(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        let until = (at + random.usize(1..20)).min(bytes.len());
        match random.u8(0..9) {
            _ if bytes.is_empty() => bytes = vec![random.u8(..)],
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(0..8),
            2 => drop(bytes.drain(at..until)),
            3 => {
                let piece = bytes[at..until].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => bytes.truncate(at),
            5 => {
                let tokens: [&[u8]; 12] = [
                    b"\r\n",
                    b"\0",
                    b"\xff\xfe",
                    b"%00",
                    b"1e400",
                    b"99999999999999999999",
                    b"{\"a\":",
                    b"[[[[[[[[",
                    b"\\ud800",
                    b"transfer-encoding: chunked\r\n",
                    b"content-length: 5\r\n",
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                ];
                bytes.splice(at..at, tokens[random.usize(0..tokens.len())].iter().copied());
            }
            6 => {
                let flood = vec![random.u8(..); random.usize(1_000..100_000)];
                bytes.splice(at..at, flood);
            }
            7 => bytes.rotate_left(at),
            _ => bytes.extend_from_within(at..until),
        }
    }
    bytes
}

/// A client of one listener that sends its share, each request over a connection of its own.
async fn send_all(listener: Client, make: fn(&mut Rng) -> String, mut random: Rng, requests: u64) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        let right = make(&mut random);
        let wrong = mutate(right.into_bytes(), &mut random);
        statuses.extend(exchange(&listener, &wrong, WITHIN).await.statuses());
    }
    statuses
}

/// Files and connections that the process holds open.
fn open_files(service: &Service) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", service.process().pid())).unwrap().count()
}

fn resident_kb(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn rows(service: &Service) -> Vec<(&'static str, i64)> {
    let mut store = Store::open(service.home()).await;
    let mut rows = Vec::new();
    for table in ["jobs", "jobs_done", "schedules", "channels", "deliveries", "tenants"] {
        rows.push((table, store.number(&format!("SELECT count(*) FROM {table}")).await));
    }
    rows
}

fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_requests_leave_the_service_ready_and_nothing_behind() {
    let seed = of_environment("BAD_INPUT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let requests = of_environment("BAD_INPUT_REQUESTS").unwrap_or(REQUESTS);
    println!("BAD_INPUT_SEED={seed}");
    let setup = Service::setup().set("limits.header_read_ms", 2_000).set("limits.request_ms", 2_000);
    let service = setup.start().await;
    let stored = rows(&service).await;
    // Once around, so that what is made at the first use is there.
    storm(&service, seed ^ 1, requests / 20).await;
    let (files, memory) = (settled_files(&service, usize::MAX).await, resident_kb(&service));

    let statuses = storm(&service, seed, requests).await;

    let (good, refused) = (200..300, 400..500);
    let foreign: Vec<&u16> = statuses
        .iter()
        .filter(|status| !good.contains(*status) && !refused.contains(*status) && **status != 101)
        .collect();
    assert!(foreign.is_empty(), "nothing but good and refused: {foreign:?}");
    let refusals = statuses.iter().filter(|status| refused.contains(*status)).count() as u64;
    assert!(refusals > requests / 2, "{refusals} of {requests} were refused: most of them were to be wrong");
    assert_eq!(rows(&service).await, stored);
    settled_files(&service, files + 8).await;
    let grown = resident_kb(&service).saturating_sub(memory);
    assert!(grown < GROWTH_KB, "{grown} kB more than before");
    is_unharmed(&service).await;
    let mut witness = Socket::open(service.api(), &["t"]).await;
    service.enqueue("publish", serde_json::json!({"topic": "t", "data": "still here"})).await;
    assert_eq!(witness.event().await["data"], "still here");
}

/// Sends them from all clients at once, half of them to each listener.
async fn storm(service: &Service, seed: u64, requests: u64) -> Vec<u16> {
    let clients = (0..CLIENTS).map(|client| {
        let random = Rng::with_seed(seed.wrapping_add(client));
        match client % 2 {
            0 => send_all(service.api().clone(), api_request, random, requests / CLIENTS),
            _ => send_all(service.admin().clone(), admin_request, random, requests / CLIENTS),
        }
    });
    join_all(clients).await.concat()
}

/// What is open when the deadlines of all that was cut in the middle are over, `most` at the most.
async fn settled_files(service: &Service, most: usize) -> usize {
    tokio::time::sleep(Duration::from_secs(3)).await;
    eventually("no connection and no file is left open", Duration::from_secs(20), || async {
        let open = open_files(service);
        (open <= most).then_some(open)
    })
    .await
}

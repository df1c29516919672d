//! Clients that take their time: each is cut off at a deadline, whatever it does slowly.

use std::time::Duration;

use tests::raw::{End, trickle};
use tests::{DEMO_KEY, Service, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{is_unharmed, nothing_is_stored};

const DEADLINE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(300);
/// The deadline, and what a busy machine may add to it.
const LATE: Duration = Duration::from_secs(10);

async fn hasty() -> Service {
    let deadline = DEADLINE.as_millis();
    let setup = Service::setup().set("limits.header_read_ms", deadline).set("limits.request_ms", deadline);
    setup.set("limits.write_stall_ms", deadline).start().await
}

/// Connections that the listener holds open now.
async fn open_connections(service: &Service, listener: &str) -> f64 {
    service.metrics().await.value("http_server_open_connections", &[("listener", listener)]).unwrap_or_default()
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_on_both_listeners() {
    let service = hasty().await;
    let head = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ".to_owned() + &"y".repeat(200);
    for listener in [service.api(), service.admin()] {
        let first = trickle(listener, b"", head.as_bytes(), PAUSE).await;
        assert_ne!(first.end, End::Open, "{}", first.text());
        assert!(first.took >= DEADLINE && first.took < LATE, "{:?}", first.took);
        // Neither does a good request buy the next one more time.
        let second = trickle(listener, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", head.as_bytes(), PAUSE).await;
        assert_ne!(second.end, End::Open, "{}", second.text());
        assert_eq!(second.statuses(), [200]);
        assert!(second.took < LATE, "{:?}", second.took);
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_or_only_begins_http_2_is_cut_off() {
    let service = hasty().await;
    for listener in [service.api(), service.admin()] {
        for begins in ["", "PRI * HTTP/2.0\r\n\r\nSM"] {
            let heard = tests::raw::exchange(listener, begins.as_bytes(), LATE).await;
            assert_ne!(heard.end, End::Open, "{begins:?}");
        }
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_408_and_cut_off() {
    let service = hasty().await;
    let body = r#"{"kind":"publish","payload":{"topic":"t","data":1}}"#;
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {DEMO_KEY}\r\ncontent-type: application/json\r\n"
    );
    for length in
        [format!("content-length: {}\r\n\r\n", body.len()), "transfer-encoding: chunked\r\n\r\n33\r\n".to_owned()]
    {
        let heard = trickle(service.api(), format!("{head}{length}").as_bytes(), body.as_bytes(), PAUSE).await;
        assert_eq!(heard.statuses(), [408], "{}", heard.text());
        assert_ne!(heard.end, End::Open);
        assert!(heard.text().contains("application/problem+json") && heard.took < LATE, "{:?}", heard.took);
    }
    nothing_is_stored(&service).await;
    is_unharmed(&service).await;
}

#[tokio::test]
async fn a_client_that_asks_much_and_reads_a_byte_now_and_then_is_cut_off() {
    let service = hasty().await;
    for (client, name, path) in [(service.api(), "api", "/nowhere"), (service.admin(), "admin", "/metrics")] {
        let before = open_connections(&service, name).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2_048).unwrap();
        let mut stream = socket.connect(client.authority().parse().unwrap()).await.unwrap();
        let requests = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(1_000);
        // Until the server does not read any more, because it cannot write any more.
        while tokio::time::timeout(PAUSE, stream.write_all(requests.as_bytes())).await.is_ok_and(|sent| sent.is_ok()) {}
        let stream = tokio::sync::Mutex::new(stream);
        eventually("the connection is given up", LATE, || async {
            let _ = tokio::time::timeout(PAUSE, stream.lock().await.read_u8()).await;
            (open_connections(&service, name).await <= before).then_some(())
        })
        .await;
    }
    is_unharmed(&service).await;
}

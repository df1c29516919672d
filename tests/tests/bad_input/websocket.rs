//! WebSocket frames that break RFC 6455: the socket is closed with the code for it, and nobody else notices.

use std::time::Duration;

use serde_json::json;
use tests::raw::{End, exchange};
use tests::{DEMO_KEY, Service, Socket};

use super::{is_unharmed, nothing_is_stored};

const SOON: Duration = Duration::from_secs(10);

fn upgrade() -> String {
    let usual = "host: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    format!("GET /v1/socket?topic=t HTTP/1.1\r\n{usual}{key}authorization: Bearer {DEMO_KEY}\r\n\r\n")
}

/// A frame of a client, masked with zeros, so that what is sent is what is read.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..126 => vec![0x80 | u8::try_from(short).unwrap()],
        long => [&[0x80 | 126][..], &u16::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[first][..], &length, &[0; 4], payload].concat()
}

/// The code of the close frame that the server ends with.
async fn closed_with(service: &Service, frames: &[u8]) -> Option<u16> {
    let heard = exchange(service.api(), &[upgrade().as_bytes(), frames].concat(), SOON).await;
    assert_eq!(heard.statuses(), [101], "{}", heard.text());
    assert_ne!(heard.end, End::Open, "{}", heard.text());
    let head = heard.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let mut rest = &heard.bytes[head + 4..];
    while let [first, length, ..] = rest {
        let payload = rest.get(2..2 + usize::from(*length))?;
        if *first == 0x88 {
            return Some(u16::from_be_bytes(payload.get(..2)?.try_into().unwrap()));
        }
        rest = &rest[2 + payload.len()..];
    }
    None
}

#[tokio::test]
async fn each_broken_rule_has_its_close_code_and_costs_that_socket_alone() {
    let service = Service::start().await;
    let mut witness = Socket::open(service.api(), &["t"]).await;
    let endless = [&frame(0x01, &[b'a'; 1_000])[..], &frame(0x00, &[b'a'; 1_000]).repeat(20)].concat();
    let cases: [(&str, Vec<u8>, u16); 16] = [
        ("a frame without a mask", vec![0x81, 2, b'h', b'i'], 1002),
        ("a reserved bit", frame(0xC1, b"{}"), 1002),
        ("a reserved opcode", frame(0x83, b"{}"), 1002),
        ("a reserved control opcode", frame(0x8B, b""), 1002),
        ("a control frame in pieces", frame(0x09, b""), 1002),
        ("a control frame that is too long", frame(0x89, &[0; 126]), 1002),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002),
        ("a message within a message", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002),
        ("a close without a whole code", frame(0x88, &[3]), 1002),
        ("a close with a code that is none", frame(0x88, &999_u16.to_be_bytes()), 1002),
        ("a close with a code that is never sent", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("text that is not UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        ("binary", frame(0x82, b"{}"), 1003),
        (
            "a frame that says to be a terabyte",
            [&[0x81, 0xFF][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat(),
            1009,
        ),
        ("a frame of a negative length", [&[0x81, 0xFF][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(), 1009),
        ("a message in pieces without end", endless, 1009),
    ];
    for (what, frames, code) in cases {
        assert_eq!(closed_with(&service, &frames).await, Some(code), "{what}");
    }
    service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    assert_eq!(witness.event().await["data"], 1);
    is_unharmed(&service).await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_told_and_too_many_of_them_close_the_socket() {
    let service = Service::start().await;
    let mut socket = Socket::open(service.api(), &["t"]).await;
    for text in ["", "[]", "{\"type\":\"dance\"}", "{\"type\":\"subscribe\",\"topics\":7}", &"[".repeat(10_000)] {
        socket.send_text(text).await;
        assert_eq!(socket.frame().await.unwrap()["type"], "error", "{text}");
    }
    for _ in 0..20 {
        socket.send_text("?").await;
    }
    assert_eq!(socket.until_closed().await.1.code, 1008);
    is_unharmed(&service).await;
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused_as_any_request() {
    let service = Service::start().await;
    for (good, bad) in [
        ("sec-websocket-version: 13", "sec-websocket-version: 12"),
        ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("upgrade: websocket", "upgrade: h2c"),
        ("connection: upgrade", "connection: close"),
        ("GET /v1", "POST /v1"),
    ] {
        let request = upgrade().replacen(good, bad, 1).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let heard = exchange(service.api(), request.as_bytes(), SOON).await;
        assert!(heard.statuses().iter().all(|status| (400..500).contains(status)), "{bad}: {}", heard.text());
        assert!(heard.text().contains("application/problem+json"), "{bad}: {}", heard.text());
    }
    nothing_is_stored(&service).await;
    is_unharmed(&service).await;
}

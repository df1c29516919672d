//! HTTP/2 as far as a few bytes go: rules of RFC 9113 that are broken end the connection, floods end it or are bounded,
//! and nobody else notices.

use std::time::Duration;

use tests::raw::{End, Heard, exchange};
use tests::{Client, Service, eventually};

use super::is_unharmed;

const SOON: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// `GET http://x/healthz`, in HPACK: indexed fields, and literal ones that are not remembered.
const GET: &[u8] = b"\x82\x86\x04\x08/healthz\x01\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// A connection with these frames behind the preface and our settings.
async fn say(listener: &Client, frames: &[u8], within: Duration) -> Heard {
    exchange(listener, &[PREFACE, &frame(SETTINGS, 0, 0, b""), frames].concat(), within).await
}

/// The kinds of the frames that came back, and the payload of each.
fn frames(heard: &Heard) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut found) = (heard.bytes.as_slice(), Vec::new());
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let Some(payload) = rest.get(9..9 + length) else { break };
        found.push((rest[3], payload.to_vec()));
        rest = &rest[9 + length..];
    }
    found
}

#[tokio::test]
async fn a_good_request_is_answered_so_that_the_bad_ones_mean_something() {
    let service = Service::start().await;
    for listener in [service.api(), service.admin()] {
        let heard = say(listener, &request(1), Duration::from_secs(1)).await;
        let answer = frames(&heard).into_iter().find(|(kind, _)| *kind == HEADERS).expect("an answer");
        assert_eq!(answer.1[0], 0x88, "`:status: 200`, indexed");
    }
}

#[tokio::test]
async fn a_broken_rule_ends_the_connection() {
    let service = Service::start().await;
    let cases = [
        ("garbage for frames", vec![0xAA; 1_000]),
        ("a frame that is too large", [&[0xFF, 0xFF, 0xFF, DATA, 0][..], &[0, 0, 0, 1]].concat()),
        ("headers of the connection itself", request(0)),
        ("a stream of the server's", request(2)),
        ("data for a stream that is not open", frame(DATA, 0, 5, b"x")),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, GET)),
        ("another frame within headers", [frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])].concat()),
        ("more padding than frame", frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[255, 0x82])),
        ("an index that the table does not have", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xFF, 0xFF, 0x7F])),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7F, 0xFF, 0xFF, 0xFF])),
        ("a stream that goes backwards", [request(5), request(3)].concat()),
    ];
    for (what, bytes) in cases {
        for listener in [service.api(), service.admin()] {
            let heard = say(listener, &bytes, SOON).await;
            assert_ne!(heard.end, End::Open, "{what}");
        }
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn a_request_that_is_malformed_costs_its_stream_or_the_connection() {
    let service = Service::start().await;
    let cases: [(&str, &[u8]); 4] = [
        ("no path", b"\x82\x86\x01\x01x"),
        ("a header in capitals", b"\x82\x86\x84\x00\x03X-A\x01a"),
        ("a header of the connection", b"\x82\x86\x84\x00\x0aconnection\x05close"),
        ("a pseudo header at the end", b"\x82\x86\x00\x01a\x01b\x84"),
    ];
    for (what, head) in cases {
        let heard =
            say(service.api(), &frame(HEADERS, END_STREAM | END_HEADERS, 1, head), Duration::from_secs(1)).await;
        let kinds: Vec<u8> = frames(&heard).into_iter().map(|(kind, _)| kind).collect();
        let refused = kinds.contains(&RST_STREAM) || kinds.contains(&GOAWAY);
        let answered = frames(&heard).iter().any(|(kind, head)| *kind == HEADERS && head[0] == 0x88);
        assert!(refused || !answered, "{what}: {kinds:?}");
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn floods_end_the_connection_or_pass_by() {
    let service = Service::start().await;
    let resets =
        (0..20_000_u32).flat_map(|n| [request(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat());
    let requests = (0..5_000_u32).flat_map(|n| request(2 * n + 1));
    let large = [&b"\x82\x86\x84\x00\x01a\x7f\xf0\x7f"[..], &[b'a'; 16_000]].concat();
    let continued = frame(CONTINUATION, 0, 1, &[0x82; 16_000]).repeat(2_000);
    let floods: [(&str, Vec<u8>, bool); 7] = [
        ("streams that are taken back at once", resets.collect(), true),
        ("a head that never ends", [frame(HEADERS, 0, 1, GET), continued].concat(), true),
        (
            "a head that is too large",
            [frame(HEADERS, 0, 1, &large), frame(CONTINUATION, END_HEADERS, 1, &[0x82; 16_000])].concat(),
            false,
        ),
        ("more streams than are allowed", requests.collect(), false),
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(20_000), false),
        ("settings", frame(SETTINGS, 0, 0, b"").repeat(20_000), false),
        ("empty data", [request(1), frame(DATA, 0, 1, b"").repeat(20_000)].concat(), false),
    ];
    for (what, bytes, ends) in floods {
        for listener in [service.api(), service.admin()] {
            let within = if ends { SOON } else { Duration::from_secs(1) };
            let heard = say(listener, &bytes, within).await;
            assert!(!ends || heard.end != End::Open, "{what}");
        }
    }
    eventually("all of these connections are gone", SOON, || async {
        let open = service.metrics().await.value("http_server_open_connections", &[("listener", "api")]);
        (open <= Some(1.0)).then_some(())
    })
    .await;
    is_unharmed(&service).await;
}

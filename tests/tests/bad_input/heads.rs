//! Heads that cannot be read, are too large, or could be read in two ways.
//!
//! What cannot be read as a request is answered by hyper itself, with a status and no document: there is no request that
//! an id could be given to. Everything else is a problem document.

use std::time::Duration;

use serde_json::{Value, json};
use tests::raw::{End, Heard, exchange};
use tests::{Client, DEMO_KEY, Service};

use super::{is_unharmed, nothing_is_stored};

const SOON: Duration = Duration::from_secs(10);
const JOB: &str = r#"{"kind":"publish","payload":{"topic":"t","data":1}}"#;

/// A POST of a job with these lines in its head beside the usual ones; the body is the caller's.
fn post(lines: &str, body: &str) -> Vec<u8> {
    let usual = format!("host: localhost\r\nauthorization: Bearer {DEMO_KEY}\r\ncontent-type: application/json\r\n");
    format!("POST /v1/jobs HTTP/1.1\r\n{usual}{lines}\r\n{body}").into_bytes()
}

/// A GET with these bytes for its target.
fn get(target: &[u8], lines: &[u8]) -> Vec<u8> {
    [b"GET ".as_slice(), target, b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", lines, b"\r\n"].concat()
}

/// One refusal, the connection over.
async fn refused(listener: &Client, bytes: &[u8], status: u16, what: &str) -> Heard {
    let heard = exchange(listener, bytes, SOON).await;
    assert_eq!(heard.statuses(), [status], "{what}: {}", heard.text());
    assert_ne!(heard.end, End::Open, "{what}");
    heard
}

/// The problem document of an answer.
fn problem(heard: &Heard) -> Value {
    let text = heard.text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/problem+json"), "{text}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn what_could_hide_a_second_request_is_refused_and_nothing_behind_it_is_heard() {
    let service = Service::start().await;
    let hidden = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let job = format!("{JOB}{hidden}");
    let length = format!("content-length: {}\r\n", JOB.len());
    let cases = [
        format!("{length}content-length: {}\r\n", job.len()),
        format!("content-length: {0}, {0}\r\n", JOB.len()),
        format!("content-length: +{}\r\n", JOB.len()),
        "content-length: -1\r\n".to_owned(),
        "content-length: 0x10\r\n".to_owned(),
        "content-length: 99999999999999999999999\r\n".to_owned(),
        format!("{length}transfer-encoding: identity\r\n"),
        format!("{length}transfer-encoding: xchunked\r\n"),
        format!("{length}transfer-encoding : chunked\r\n"),
        format!("{length}transfer-encoding: \u{b}chunked\r\n"),
        format!("{length} transfer-encoding: chunked\r\n"),
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(),
        "transfer-encoding: gzip, chunked\r\n".to_owned(),
        "transfer-encoding: chunked, chunked\r\n".to_owned(),
        format!("{length}x-a: b\r\n folded\r\n"),
        format!("{length}x-a: b\rc\r\n"),
        format!("{length}x-a: b\0c\r\n"),
    ];
    for lines in cases {
        for listener in [service.api(), service.admin()] {
            refused(listener, &post(&lines, &job), 400, &lines).await;
        }
    }
    nothing_is_stored(&service).await;
    is_unharmed(&service).await;
}

#[tokio::test]
async fn a_length_beside_chunks_ends_the_connection_after_the_request() {
    let service = Service::start().await;
    let hidden = "0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for lines in
        ["content-length: 4\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 4\r\n"]
    {
        let heard = refused(service.api(), &post(lines, hidden), 400, lines).await;
        assert!(heard.text().contains("connection: close"), "{}", heard.text());
    }
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn a_header_that_decides_must_come_once_and_is_named() {
    let service = Service::start().await;
    let key = format!("authorization: Bearer {DEMO_KEY}\r\n");
    let length = format!("content-length: {}\r\n", JOB.len());
    for (name, line) in
        [("host", "host: y\r\n"), ("authorization", &key), ("content-type", "content-type: text/plain\r\n")]
    {
        let heard = refused(service.api(), &post(&format!("{length}{line}"), JOB), 400, line).await;
        assert_eq!(problem(&heard)["detail"], format!("the header {name} must come once"));
    }
    let heard = refused(service.api(), format!("GET /healthz HTTP/1.1\r\n{key}\r\n").as_bytes(), 400, "no host").await;
    assert_eq!(problem(&heard)["detail"], "the header host is missing");
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn what_is_not_utf_8_is_refused_wherever_it_stands() {
    let service = Service::start().await;
    let key = format!("authorization: Bearer {DEMO_KEY}\r\n");
    let key = key.as_bytes();
    let upgrade = [
        key,
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            .as_slice(),
    ];
    let api = service.api();
    refused(api, &get(b"/v1/jobs/\xff\xfe", key), 400, "the path").await;
    problem(&refused(api, &get(b"/v1/jobs/%ff%fe", key), 404, "the path, encoded").await);
    problem(&refused(api, &get(b"/v1/jobs/%f", key), 404, "the path, encoded in half").await);
    refused(api, &get(b"/v1/socket?topic=\xff", &upgrade.concat()), 400, "the query").await;
    let query = get(b"/v1/socket?topic=%ff", &upgrade.concat());
    let query =
        String::from_utf8(query).unwrap().replace("connection: close", "connection: upgrade, close").into_bytes();
    assert_eq!(problem(&refused(api, &query, 422, "the query, encoded").await)["errors"][0]["field"], "topic");
    problem(&refused(api, &get(b"/v1/jobs/x", b"authorization: Bearer \xff\r\n"), 401, "the key").await);
    problem(&refused(service.admin(), &get(b"/admin/incidents/%ff", b""), 400, "the path of an operator").await);
    let body =
        [
            &post(
                "content-length: 53\r\nconnection: close\r\n",
                r#"{"kind":"publish","payload":{"topic":"t","data":""#,
            )[..],
            b"\xff\"}}",
        ]
        .concat();
    let said = problem(&refused(api, &body, 400, "the body").await)["detail"].to_string();
    assert!(said.contains("line 1 column 50"), "{said}");
    nothing_is_stored(&service).await;
    is_unharmed(&service).await;
}

#[tokio::test]
async fn an_id_of_a_request_that_is_not_text_is_replaced() {
    let service = Service::start().await;
    let heard = refused(service.api(), &get(b"/nowhere", b"x-request-id: \xff\xfe\r\n"), 404, "the id").await;
    assert_eq!(problem(&heard)["instance"].as_str().unwrap().len(), "01a2084c-2514-77d0-a978-9f03324a042c".len());
}

#[tokio::test]
async fn a_flood_of_headers_is_431_by_number_and_by_size() {
    let service = Service::start().await;
    let many = (0..20_000).map(|n| format!("x-{n}: a\r\n")).collect::<String>();
    for listener in [service.api(), service.admin()] {
        refused(listener, &get(b"/healthz", many.as_bytes()), 431, "20,000 headers").await;
        refused(listener, &get(b"/healthz", "a: b\r\n".repeat(101).as_bytes()), 431, "one header more than are read")
            .await;
        refused(listener, &get(b"/healthz", format!("x: {}\r\n", "a".repeat(100_000)).as_bytes()), 431, "100 kB").await;
        refused(listener, &get(format!("/{}", "a".repeat(100_000)).as_bytes(), b""), 431, "a long path").await;
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn what_is_no_http_is_400_and_the_connection_is_over() {
    let service = Service::start().await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    let cases: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
        b"G(T /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a b\x7f\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost\r\n\r\n",
        &every_byte,
    ];
    for bytes in cases {
        for listener in [service.api(), service.admin()] {
            refused(listener, bytes, 400, &String::from_utf8_lossy(bytes)).await;
        }
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn good_requests_before_pipelined_garbage_are_answered_and_the_garbage_ends_it() {
    let service = Service::start().await;
    let good = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for listener in [service.api(), service.admin()] {
        let heard = exchange(listener, format!("{good}{good}\0\u{1} garbage\r\n\r\n{good}").as_bytes(), SOON).await;
        assert_eq!(heard.statuses(), [200, 200, 400], "{}", heard.text());
        assert_ne!(heard.end, End::Open);
    }
    is_unharmed(&service).await;
}

#[tokio::test]
async fn a_body_that_ends_early_or_in_broken_chunks_is_400() {
    let service = Service::start().await;
    for chunks in ["zz\r\n", "fffffffffffffffff\r\n{", "1\r\n{}\r\n", "-1\r\n"] {
        let said = problem(&refused(service.api(), &post("transfer-encoding: chunked\r\n", chunks), 400, chunks).await);
        assert!(said["detail"].as_str().unwrap().contains("its chunks cannot be read"), "{said}");
    }
    let extension = format!("1;{}\r\n{{\r\n", "a".repeat(100_000));
    refused(service.api(), &post("transfer-encoding: chunked\r\n", &extension), 400, "a flood within a chunk's size")
        .await;
    let trailers = format!("{:x}\r\n{JOB}\r\n0\r\n{}\r\n", JOB.len(), "a: b\r\n".repeat(50_000));
    refused(service.api(), &post("transfer-encoding: chunked\r\n", &trailers), 400, "a flood of trailers").await;
    nothing_is_stored(&service).await;
    is_unharmed(&service).await;
}

#[tokio::test]
async fn numbers_that_fit_nowhere_are_refused_with_the_field() {
    let service = Service::start().await;
    let good = json!({"topic": "t", "data": 1});
    for (path, field, number) in [
        ("/v1/jobs", "priority", "1000000000000000000000000000000"),
        ("/v1/jobs", "priority", "2147483648"),
        ("/v1/jobs", "max_attempts", "4294967296"),
        ("/v1/jobs", "timeout_ms", "9223372036854775807"),
        ("/v1/jobs", "timeout_ms", "18446744073709551616"),
        ("/v1/jobs", "run_at", "9223372036854775807"),
        ("/v1/jobs", "run_at", "\"9999-12-31T23:59:59Z\""),
        ("/v1/jobs", "run_at", "\"+010000-01-01T00:00:00Z\""),
        ("/v1/schedules", "every_ms", "9223372036854775807"),
        ("/v1/schedules", "every_ms", "18446744073709551615"),
        ("/v1/schedules", "every_ms", "1e18"),
    ] {
        let body = format!(r#"{{"kind":"publish","payload":{good},"{field}":{number}}}"#);
        let answer = super::post_text(&service, path, "application/json", body).await;
        super::is_a_problem(&answer, 422, &format!("{field} {number}"));
        assert_eq!(answer.json()["errors"][0]["field"], field, "{}", answer.body);
    }
    let infinite = r#"{"kind":"publish","payload":{"topic":"t","data":1e400}}"#;
    super::is_a_problem(&super::post_text(&service, "/v1/jobs", "application/json", infinite).await, 400, "1e400");
    let deep =
        format!(r#"{{"kind":"publish","payload":{{"topic":"t","data":{}{}}}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    super::is_a_problem(&super::post_text(&service, "/v1/jobs", "application/json", deep).await, 400, "deep");
    nothing_is_stored(&service).await;
    is_unharmed(&service).await;
}

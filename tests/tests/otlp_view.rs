//! `cargo xtask otlp`: what the service sends is read in a terminal.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use tests::client::send;
use tests::{Client, Service, Viewer};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_trace_shows_what_failed_first_then_its_tree_with_the_logs_of_each_span() {
    let viewer = Viewer::start().await;
    let service = Service::setup().env("OTEL_EXPORTER_OTLP_ENDPOINT", &viewer.http).start().await;
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 1});
    let answer = service.api().post("/v1/jobs", &body).await.expect(201);
    let reason = "a job of the kind `panic` did as it was told, attempt 1";
    let head = format!("follows {}", answer.header("x-trace-id"));
    let text = viewer
        .shows(&[
            "ERROR trace ",
            &head,
            "perennial",
            &format!("! job.run: {reason}"),
            "✗ job.run  ",
            "consumer",
            "job.kind=panic",
            "ERROR panic.recovered: ",
        ])
        .await;
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal: {text}");
    viewer.shows(&["trace", "boot  ", "├─ child.start  ", "path=store", "└─ warm  "]).await;
}

#[tokio::test]
async fn what_comes_by_grpc_is_shown_too_and_what_is_not_shown_yet_when_it_is_told_to_stop() {
    let viewer = Viewer::start().await;
    let setup = Service::setup().env("OTEL_EXPORTER_OTLP_ENDPOINT", &viewer.grpc);
    let service = setup.env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").start().await;
    viewer.shows(&["trace", "boot  ", "├─ child.start  "]).await;
    assert_eq!(service.stop().await.code, 0);
    viewer.process.signal_group(Signal::SIGINT);
    viewer.process.wait(SOON).await;
    viewer.shows(&["trace", "shutdown  ", "reason=SIGTERM", "├─ child.stop  ", "path=api"]).await;
}

#[tokio::test]
async fn what_comes_as_json_is_shown_too_and_what_is_none_is_refused() {
    let viewer = Viewer::start().await;
    let client = Client::new(&viewer.http);
    let span = |id: &str, parent: &str, name: &str| {
        json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "parentSpanId": parent, "name": name, "kind": 1,
            "startTimeUnixNano": "1000000", "endTimeUnixNano": "3500000"})
    };
    let spans = [span("b7ad6b7169203331", "", "above"), span("b7ad6b7169203332", "b7ad6b7169203331", "below")];
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    assert_eq!(client.post("/v1/traces", &body).await.expect(200).json(), json!({}));
    viewer.shows(&["trace 0af7651916cd43dd8448eb211c80319c  2.5ms  2 spans", "above  2.5ms", "└─ below  2.5ms"]).await;
    let bad = client.request(Method::POST, "/v1/traces").header("content-type", "application/json").body("{");
    assert_eq!(send(bad).await.status, 400);
    let bad = client.request(Method::POST, "/v1/traces").header("content-encoding", "gzip").body("none");
    assert_eq!(send(bad).await.status, 400);
}

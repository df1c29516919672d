use std::sync::Arc;

use axum::response::IntoResponse;

use serde_json::{Value, json};
use telemetry::context::{REQUEST_ID, REQUEST_TIMEOUT, RequestId, as_child};

use super::super::breaker::BreakerSettings;
use super::super::testing::{Receiver, install_tls, outbound_settings};
use super::super::{OutboundSettings, Repeat};
use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn outbound(change: impl FnOnce(&mut OutboundSettings)) -> Outbound {
    install_tls();
    let mut settings = outbound_settings();
    change(&mut settings);
    Outbound::new(settings).unwrap()
}

fn usual() -> Outbound {
    outbound(|_| ())
}

/// Thinks about its answer for longer than anybody waits.
async fn silent() -> Receiver {
    Receiver::start(Arc::new(|_| (Duration::from_secs(60), StatusCode::OK.into_response()))).await
}

#[tokio::test]
async fn a_call_sends_what_it_was_given_and_hears_the_answer() {
    let receiver = Receiver::answering(|_| axum::Json(json!({"n": 7}))).await;
    let call = usual().post(&receiver.url).json(&json!({"ask": 1})).header(http::header::IF_MATCH, "x");
    let answer: Value = call.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"n": 7}));
    let got = receiver.requests().remove(0);
    assert_eq!(
        (&got.headers["content-type"], &got.headers["if-match"]),
        (&"application/json".parse().unwrap(), &"x".parse().unwrap())
    );
    assert_eq!(
        (got.body, &got.headers["user-agent"]),
        (Bytes::from_static(b"{\"ask\":1}"), &"test/1".parse().unwrap())
    );
}

#[tokio::test]
async fn a_call_carries_trace_request_id_and_less_time_than_it_has() {
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let context = TraceContext::from_parts(Some(&format!("00-{TRACE}-b7ad6b7169203331-01")), None);
    let context = context.with_request_id(RequestId::parse("order-7"));
    let calls = async {
        usual().get(&receiver.url).send().await.unwrap();
        let soon = Instant::now() + Duration::from_millis(600);
        with_deadline(soon, async { usual().get(&receiver.url).send().await.unwrap() }).await;
    };
    as_child(tracing::info_span!("asking"), &context, calls).await;
    let limits = [(8_000, 9_950), (1, 500)];
    for (got, (least, most)) in receiver.requests().into_iter().zip(limits) {
        assert!(got.headers["traceparent"].to_str().unwrap().contains(TRACE));
        assert_eq!(got.headers[REQUEST_ID], "order-7");
        let left: u64 = got.headers[REQUEST_TIMEOUT].to_str().unwrap().parse().unwrap();
        assert!((least..=most).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn outside_of_any_request_only_the_time_is_told() {
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    usual().get(&receiver.url).send().await.unwrap();
    let headers = receiver.requests().remove(0).headers;
    assert!(headers.contains_key(REQUEST_TIMEOUT) && !headers.contains_key(REQUEST_ID), "{headers:?}");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_a_time_out_after_which_it_may_be_repeated_if_that_is_harmless() {
    let receiver = silent().await;
    let call = usual().post(&receiver.url).head_within(Duration::from_millis(80));
    let error = call.send().await.unwrap_err();
    assert!(matches!(error, OutboundError::Timeout { .. }) && error.repeat() == Repeat::IfHarmless, "{error}");
    assert!(!error.to_string().contains("/hook"), "{error}");
}

#[tokio::test]
async fn a_call_ends_before_its_callers_deadline_and_says_whose_it_was() {
    let receiver = silent().await;
    let until = Instant::now() + Duration::from_millis(300);
    let error = with_deadline(until, async { usual().get(&receiver.url).send().await.unwrap_err() }).await;
    assert!(matches!(error, OutboundError::OutOfTime { .. }), "{error}");
    assert!(Instant::now() < until, "the caller can still answer");
}

#[tokio::test]
async fn with_nothing_left_nothing_is_sent() {
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let error = with_deadline(Instant::now(), async { usual().get(&receiver.url).send().await.unwrap_err() }).await;
    let host = receiver.url.trim_end_matches("/hook");
    assert_eq!(error.to_string(), format!("the call to {host} was not begun: nothing is left of the caller's time"));
    let late = usual().get(&receiver.url).until(Instant::now()).send().await.unwrap_err();
    assert_eq!((late.class(), late.repeat()), ("not_begun", Repeat::Helps));
    assert_eq!(receiver.requests().len(), 0);
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_at_the_end_of_the_call() {
    let endless = |_| {
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>("begun")]);
        axum::body::Body::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending()))
            .into_response()
    };
    let receiver = Receiver::answering(endless).await;
    let call = || usual().get(&receiver.url).within(Duration::from_millis(200)).send();
    assert!(matches!(call().await.unwrap().bytes().await, Err(OutboundError::Timeout { .. })));
    assert_eq!(call().await.unwrap().start(Duration::MAX).await, "begun");
}

#[tokio::test]
async fn an_answer_beyond_the_cap_is_an_error_or_cut_as_the_caller_likes() {
    let receiver = Receiver::answering(|_| "x".repeat(10_000)).await;
    let chunked = Receiver::answering(|_| {
        let chunks = std::iter::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(3_000)));
        axum::body::Body::from_stream(futures_util::stream::iter(chunks.take(3)))
    })
    .await;
    for url in [&receiver.url, &chunked.url] {
        let error = usual().get(url).send().await.unwrap().bytes().await.unwrap_err();
        assert!(error.to_string().ends_with("is longer than 4096 bytes"), "{error}");
        assert_eq!(usual().get(url).send().await.unwrap().start(Duration::MAX).await.len(), 4_096);
    }
    assert_eq!(
        usual().get(&receiver.url).answer_max_bytes(10_000).send().await.unwrap().bytes().await.unwrap().len(),
        10_000
    );
}

#[tokio::test]
async fn what_is_no_json_is_told_with_its_place() {
    let receiver = Receiver::answering(|_| r#"{"n": "seven"}"#).await;
    #[derive(serde::Deserialize, Debug)]
    struct Answer {
        #[allow(dead_code, reason = "it is never read")]
        n: u64,
    }
    let error = usual().get(&receiver.url).send().await.unwrap().json::<Answer>().await.unwrap_err();
    assert!(error.to_string().contains("n: invalid type: string \"seven\", expected u64"), "{error}");
}

#[tokio::test]
async fn a_host_that_fails_gets_a_rest_and_a_status_below_500_is_no_failure() {
    let receiver = Receiver::answering(|turn| match turn {
        0 | 2 | 3 => StatusCode::BAD_GATEWAY,
        _ => StatusCode::NOT_FOUND,
    })
    .await;
    let breaker = BreakerSettings { failures_max: 2, open_for: Duration::from_secs(60) };
    let outbound = outbound(|settings| settings.breaker = breaker);
    for expected in [502, 404, 502, 502] {
        assert_eq!(outbound.get(&receiver.url).send().await.unwrap().status(), expected);
    }
    let error = outbound.get(&receiver.url).send().await.unwrap_err();
    assert!(matches!(error, OutboundError::Open { .. }) && error.repeat() == Repeat::Helps, "{error}");
    assert_eq!(receiver.requests().len(), 4);
    let own = outbound.get(&receiver.url).without_host_limits().send().await;
    let keyed = outbound.get(&receiver.url).keyed("customer 7").send().await;
    assert!(own.is_ok() && keyed.is_ok(), "who breaks by itself, or by another key, is let through");
}

#[tokio::test]
async fn an_answer_counts_as_in_flight_until_it_is_read() {
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let outbound = outbound(|settings| {
        settings.host_in_flight_max = 1;
        settings.place_wait = Duration::from_millis(50);
    });
    let held = outbound.get(&receiver.url).send().await.unwrap();
    assert!(matches!(outbound.get(&receiver.url).send().await, Err(OutboundError::Busy { .. })));
    held.bytes().await.unwrap();
    assert!(outbound.get(&receiver.url).send().await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_written_is_told_and_never_sent() {
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let error = usual().get(&receiver.url).header(http::header::ACCEPT, "a\nb").send().await.unwrap_err();
    assert_eq!((error.class(), error.repeat()), ("invalid", Repeat::Useless));
    let error = usual().get("https://169.254.169.254/").send().await.unwrap_err();
    assert_eq!((error.class(), error.repeat()), ("refused", Repeat::Useless));
    assert_eq!(receiver.requests().len(), 0);
}

#[test]
fn a_status_that_nobody_has_given_a_meaning_makes_no_series_of_its_own() {
    let told = [200, 299, 404, 503, 999].map(|status| known(&StatusCode::from_u16(status).unwrap()).to_owned());
    assert_eq!(told, ["200", "other", "404", "503", "other"]);
}

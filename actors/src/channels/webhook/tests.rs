use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::{Value, json};

use super::super::test_support::{Received, Receiver, SECRET, destination, install_tls, outbound_settings};
use super::*;
use crate::channels::exchange::QUOTE_MAX_CHARS;

fn message() -> Message {
    Message {
        id: uuid::Uuid::now_v7(),
        attempt: 1,
        created_at_ms: 1_700_000_000_000,
        text: None,
        data: json!({"n": 1, "ü": "ß"}),
    }
}

fn webhook(url: &str) -> Webhook {
    install_tls();
    Webhook::open(&destination(url), Outbound::new(outbound_settings()).unwrap()).unwrap()
}

async fn send(url: &str, message: &Message) -> Outcome {
    webhook(url).send(message, Instant::now() + Duration::from_secs(5)).await.outcome
}

fn verify(received: &Received) {
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(&received.body, &received.headers).unwrap();
}

#[tokio::test]
async fn a_receiver_can_verify_the_signature_and_read_the_message() {
    let receiver = Receiver::answering(|_| StatusCode::NO_CONTENT).await;
    let message = message();
    let outcome = send(&receiver.url, &message).await;
    assert_eq!(outcome, Outcome::Delivered { status: Some(204), provider_id: None });

    let received = receiver.requests().remove(0);
    verify(&received);
    assert_eq!(received.headers["webhook-id"], message.id.to_string());
    assert_eq!(received.headers["content-type"], "application/json");
    assert_eq!(received.headers["user-agent"], "test/1");
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(body, json!({"type": "notification", "timestamp": "2023-11-14T22:13:20Z", "data": {"n": 1, "ü": "ß"}}));
}

#[tokio::test]
async fn a_repetition_bears_the_same_id_and_the_same_body() {
    let receiver = Receiver::answering(|_| StatusCode::OK).await;
    let first = message();
    let again = Message { attempt: 2, ..first.clone() };
    send(&receiver.url, &first).await;
    send(&receiver.url, &again).await;
    let requests = receiver.requests();
    assert_eq!(requests[0].headers["webhook-id"], requests[1].headers["webhook-id"]);
    assert_eq!(requests[0].body, requests[1].body);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_is_a_failure() {
    let receiver = Receiver::answering(|_| (StatusCode::FOUND, [("location", "/elsewhere")])).await;
    let outcome = send(&receiver.url, &message()).await;
    let Outcome::Retry { class, status, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((class, status), ("redirect", Some(302)));
    let paths: Vec<_> = receiver.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/hook"]);
}

#[tokio::test]
async fn gone_means_never_again() {
    let receiver = Receiver::answering(|_| (StatusCode::GONE, "moved\r\naway")).await;
    assert_eq!(
        send(&receiver.url, &message()).await,
        Outcome::Gone { status: Some(410), reason: "the receiver answered 410: moved  away".to_owned() }
    );
}

#[tokio::test]
async fn a_throttled_request_carries_the_receivers_wish() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let receiver = Receiver::answering(move |_| (status, [("retry-after", "17")])).await;
        let outcome = send(&receiver.url, &message()).await;
        let Outcome::Retry { class, after, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((class, after), ("throttled", Some(Duration::from_secs(17))));
    }
}

#[tokio::test]
async fn other_failures_are_retried_without_a_wish() {
    let receiver = Receiver::answering(|_| (StatusCode::BAD_REQUEST, [("retry-after", "17")], "no")).await;
    assert_eq!(
        send(&receiver.url, &message()).await,
        Outcome::Retry {
            class: "status",
            status: Some(400),
            after: None,
            detail: "the receiver answered 400: no".to_owned()
        }
    );
}

#[tokio::test]
async fn a_long_answer_is_read_up_to_the_cap_and_quoted_briefly() {
    let receiver = Receiver::answering(|_| (StatusCode::INTERNAL_SERVER_ERROR, "x".repeat(1_000_000))).await;
    let outcome = send(&receiver.url, &message()).await;
    let Outcome::Retry { detail, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(detail, format!("the receiver answered 500: {}", "x".repeat(QUOTE_MAX_CHARS)));
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_in_time_may_have_got_it() {
    let script = |_| (Duration::from_secs(60), StatusCode::OK.into_response());
    let receiver = Receiver::start(Arc::new(script)).await;
    let outcome = webhook(&receiver.url).send(&message(), Instant::now() + Duration::from_millis(100)).await.outcome;
    let Outcome::Ambiguous { detail } = outcome else { panic!("{outcome:?}") };
    assert!(detail.ends_with("before the caller's deadline") && !detail.contains("/hook"), "{detail}");
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_counts_by_its_head() {
    for (status, delivered) in [(StatusCode::OK, true), (StatusCode::GONE, false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        supervision::TaskGroup::new("receiver").spawn("head only", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What comes before the question is no answer to it.
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4_096]).await.unwrap();
            let head = format!("HTTP/1.1 {} x\r\ncontent-length: 100\r\n\r\nbegun", status.as_u16());
            tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let began = Instant::now();
        match send(&url, &message()).await {
            Outcome::Delivered { status: Some(200), .. } => assert!(delivered),
            Outcome::Gone { status: Some(410), .. } => assert!(!delivered),
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(4), "took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_closed_port_is_a_failed_connection_without_the_url() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
    drop(listener);
    let outcome = send(&url, &message()).await;
    let Outcome::Retry { class, detail, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(class, "connect");
    assert!(!detail.contains("secret-path"), "{detail}");
}

#[tokio::test]
async fn a_url_that_todays_rules_forbid_cannot_be_opened() {
    install_tls();
    let mut settings = outbound_settings();
    settings.rules.reach = crate::outbound::addresses::Reach::Public;
    let outbound = Outbound::new(settings).unwrap();
    let refused = Webhook::open(&destination("http://127.0.0.1/"), outbound);
    assert!(matches!(refused.err(), Some(OpenError::Target(_))));
}

#[test]
fn a_new_secret_can_be_used_by_both_sides() {
    let secret = new_secret();
    let text = secret.expose_secret();
    assert!(text.starts_with("whsec_") && text != new_secret().expose_secret());
    assert!(standardwebhooks::Webhook::new(text).is_ok());
}

#[tokio::test]
async fn what_came_of_a_body_that_stalls_is_kept() {
    let receiver = Receiver::answering(|_| {
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>("no such hook")]);
        let stalled = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
        (StatusCode::NOT_FOUND, axum::body::Body::from_stream(stalled))
    })
    .await;
    let began = Instant::now();
    let detail = "the receiver answered 404: no such hook".to_owned();
    assert_eq!(send(&receiver.url, &message()).await, Outcome::Refused { status: Some(404), detail });
    assert!(began.elapsed() < Duration::from_secs(4), "the body is not waited for until the deadline");
}

use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use serde_json::json;

use super::super::test_support::{Receiver, closed_base, install_tls, outbound_settings};
use super::*;

const PATH: &str = "/services/T012345/B067890/aBcDeFgHiJkLmNoP";

fn message(text: &str) -> Message {
    let data = Value::Null;
    Message { id: uuid::Uuid::now_v7(), attempt: 1, created_at_ms: 0, text: Some(text.to_owned()), data }
}

/// A channel to a stand-in for Slack.
fn slack(base: &str) -> Slack {
    install_tls();
    let secret = SecretString::from(format!("{base}{PATH}"));
    let destination = Destination { url: String::new(), secret, chat: None };
    Slack::open(&destination, base, Outbound::new(outbound_settings()).unwrap()).unwrap()
}

async fn told<R: IntoResponse>(answer: impl Fn(usize) -> R + Send + Sync + 'static) -> Report {
    let receiver = Receiver::answering(answer).await;
    slack(&receiver.base()).send(&message("hi"), Instant::now() + Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_message_is_posted_as_slack_documents_it() {
    let receiver = Receiver::answering(|_| "ok").await;
    let slack = slack(&receiver.base());
    let deadline = Instant::now() + Duration::from_secs(5);
    let report = slack.send(&message("hi"), deadline).await;
    assert_eq!(report.outcome, Outcome::Delivered { status: Some(200), provider_id: None });
    assert_eq!(report.answer.as_deref(), Some("ok"));
    let blocks = json!([{"type": "divider"}]);
    slack.send(&Message { data: json!({"blocks": blocks}), ..message("plain") }, deadline).await;
    let requests = receiver.requests();
    let bodies: Vec<Value> = requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    assert_eq!(bodies, [json!({"text": "hi"}), json!({"text": "plain", "blocks": blocks})]);
    assert_eq!(
        (requests[0].path.as_str(), &requests[0].headers["content-type"]),
        (PATH, &"application/json".parse::<http::HeaderValue>().unwrap())
    );
}

#[tokio::test]
async fn every_documented_error_has_its_outcome() {
    let table = [
        (400, "invalid_payload", "dead"),
        (400, "user_not_found", "dead"),
        (403, "action_prohibited", "refused"),
        (404, "channel_not_found", "refused"),
        (404, "no_service", "refused"),
        (410, "channel_is_archived", "gone"),
        (500, "rollup_error", "retry"),
        (503, "", "retry"),
    ];
    for (status, code, word) in table {
        let outcome = told(move |_| (StatusCode::from_u16(status).unwrap(), code)).await.outcome;
        assert_eq!((outcome.word().as_str(), outcome.status()), (word, Some(status)), "{outcome:?}");
        assert!(outcome.fault().unwrap().contains(code), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_bears_the_wait_that_slack_asks_for() {
    let outcome = told(|_| (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")], "rate_limited")).await.outcome;
    let Outcome::Retry { class, after, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((class, after), ("throttled", Some(Duration::from_secs(30))));
}

#[tokio::test]
async fn the_secret_part_of_the_url_comes_back_in_no_report() {
    let report = told(|_| (StatusCode::NOT_FOUND, format!("no such path: {PATH}"))).await;
    assert!(!format!("{report:?}").contains("aBcDeFgHiJkLmNoP"), "{report:?}");
    let report = slack(&closed_base().await).send(&message("hi"), Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(report.outcome.class(), "connect");
    assert!(!format!("{report:?}").contains("aBcDeFgHiJkLmNoP"), "{report:?}");
}

#[tokio::test]
async fn a_message_without_words_is_dead_and_not_sent() {
    let sent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&sent);
    let receiver = Receiver::answering(move |_| {
        *count.lock().unwrap() += 1;
        "ok"
    })
    .await;
    let silent = Message { text: None, data: json!({"n": 1}), ..message("") };
    let outcome = slack(&receiver.base()).send(&silent, Instant::now() + Duration::from_secs(5)).await.outcome;
    assert_eq!(outcome.fault(), Some("a message to a chat needs a text"));
    assert_eq!(*sent.lock().unwrap(), 0);
}

#[test]
fn only_slacks_own_webhooks_are_taken_and_their_secret_part_is_not_shown() {
    let rules = TargetRules::default();
    let hook = check(&rules, BASE_URL, "https://hooks.slack.com/services/T0/B0/secret").unwrap();
    assert_eq!(hook.shown, "https://hooks.slack.com/services/T0/B0/...");
    assert!(!format!("{hook:?}").contains("secret"));
    for (url, reason) in [
        ("https://example.com/services/T0/B0/secret", "must begin with https://hooks.slack.com/services/"),
        ("http://hooks.slack.com/services/T0/B0/secret", "scheme http is not allowed, use https"),
        ("https://hooks.slack.com:444/services/T0/B0/secret", "must begin with https://hooks.slack.com/services/"),
        ("https://hooks.slack.com/triggers/T0/1/secret", "must end with /services/T.../B.../..."),
        ("https://hooks.slack.com/services/T0/B0/", "must end with /services/T.../B.../..."),
        ("https://hooks.slack.com/services/T0/B0/secret?x=1", "must end with /services/T.../B.../..."),
        (
            "https://hooks.slack.com@127.0.0.1/services/T0/B0/secret",
            "user name and password are not allowed in the URL",
        ),
        ("secret", "not a valid URL: relative URL without a base"),
    ] {
        assert_eq!(check(&rules, BASE_URL, url).unwrap_err().to_string(), reason, "{url}");
    }
}

use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::super::test_support::{Receiver, closed_base, install_tls, outbound_settings};
use super::*;

const TOKEN: &str = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11";

fn message(text: &str) -> Message {
    let data = Value::Null;
    Message { id: uuid::Uuid::now_v7(), attempt: 1, created_at_ms: 0, text: Some(text.to_owned()), data }
}

fn open(base: &str, token: &str, chat: &str) -> Result<Telegram, OpenError> {
    install_tls();
    let destination = Destination { url: String::new(), secret: token.into(), chat: Some(chat.to_owned()) };
    Telegram::open(&destination, base, Outbound::new(outbound_settings()).unwrap())
}

async fn send(receiver: &Receiver, text: &str) -> Report {
    let telegram = open(&receiver.base(), TOKEN, "42").unwrap();
    telegram.send(&message(text), Instant::now() + Duration::from_secs(5)).await
}

async fn told(status: u16, body: Value) -> Report {
    let status = StatusCode::from_u16(status).unwrap();
    send(&Receiver::answering(move |_| (status, axum::Json(body.clone())).into_response()).await, "hi").await
}

fn error(code: u16, description: &str) -> Value {
    json!({"ok": false, "error_code": code, "description": description})
}

#[tokio::test]
async fn a_message_is_posted_as_telegram_documents_it_and_bears_its_id() {
    let ok = json!({"ok": true, "result": {"message_id": 77, "chat": {"id": 42}, "text": "hi"}});
    let receiver = Receiver::answering(move |_| axum::Json(ok.clone())).await;
    let report = send(&receiver, "hi").await;
    assert_eq!(report.outcome, Outcome::Delivered { status: Some(200), provider_id: Some("77".to_owned()) });
    let request = receiver.requests().remove(0);
    assert_eq!(request.path, format!("/bot{TOKEN}/sendMessage"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({"chat_id": "42", "text": "hi"}));
}

#[tokio::test]
async fn an_answer_that_repeats_a_long_message_is_read_to_its_end() {
    let escaped = "\\u0434".repeat(TEXT_MAX_UNITS);
    let ok = format!(r#"{{"ok":true,"result":{{"text":"{escaped}","message_id":77}}}}"#);
    let report = send(&Receiver::answering(move |_| ok.clone()).await, "hi").await;
    assert_eq!(report.outcome, Outcome::Delivered { status: Some(200), provider_id: Some("77".to_owned()) });
}

#[tokio::test]
async fn every_documented_error_has_its_outcome() {
    let table = [
        (400, "Bad Request: message text is empty", "dead"),
        (400, "Bad Request: message is too long", "dead"),
        (400, "Bad Request: chat not found", "refused"),
        (401, "Unauthorized", "refused"),
        (403, "Forbidden: bot was blocked by the user", "refused"),
        (403, "Forbidden: bot was kicked from the group chat", "refused"),
        (404, "Not Found", "refused"),
        (500, "Internal Server Error", "retry"),
        (502, "Bad Gateway", "retry"),
    ];
    for (code, description, word) in table {
        let outcome = told(code, error(code, description)).await.outcome;
        assert_eq!((outcome.word().as_str(), outcome.status()), (word, Some(code)), "{outcome:?}");
        assert!(outcome.fault().unwrap().contains(description), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_bears_the_wait_that_telegram_asks_for() {
    let mut body = error(429, "Too Many Requests: retry after 34");
    body["parameters"] = json!({"retry_after": 34});
    let outcome = told(429, body).await.outcome;
    let Outcome::Retry { class, after, status, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((class, after, status), ("throttled", Some(Duration::from_secs(34)), Some(429)));
}

#[tokio::test]
async fn a_group_that_moved_is_told_with_its_new_id() {
    let mut body = error(400, "Bad Request: group chat was upgraded to a supergroup chat");
    body["parameters"] = json!({"migrate_to_chat_id": -1001});
    let outcome = told(400, body).await.outcome;
    assert_eq!(outcome.fault(), Some("the group has become a supergroup, its chat_id is now -1001"));
}

#[tokio::test]
async fn an_error_under_a_good_status_is_an_error() {
    assert_eq!(told(200, error(403, "Forbidden: user is deactivated")).await.outcome.word().as_str(), "refused");
    assert_eq!(told(200, json!({"ok": false})).await.outcome.status(), Some(502));
}

#[tokio::test]
async fn the_token_comes_back_in_no_report() {
    let report = told(404, error(404, &format!("no route /bot{TOKEN}/sendMessage"))).await;
    assert!(!format!("{report:?}").contains("zyx57W2v1u123ew11"), "{report:?}");
    let telegram = open(&closed_base().await, TOKEN, "42").unwrap();
    let report = telegram.send(&message("hi"), Instant::now() + Duration::from_secs(5)).await;
    assert!(!format!("{report:?}").contains("zyx57W2v1u123ew11"), "{report:?}");
}

#[tokio::test]
async fn a_long_text_is_cut_at_telegrams_limit() {
    let receiver = Receiver::answering(|_| axum::Json(json!({"ok": true}))).await;
    send(&receiver, &"😀".repeat(3_000)).await;
    let body: Value = serde_json::from_slice(&receiver.requests().remove(0).body).unwrap();
    let text = body["text"].as_str().unwrap();
    assert_eq!(text.encode_utf16().count(), TEXT_MAX_UNITS - 1, "a pair is not split");
    assert!(text.ends_with('…'));
}

#[test]
fn a_token_and_a_chat_have_their_shapes() {
    assert!(is_token(TOKEN));
    for bad in ["", "123456", "abc:ABC-DEF1234ghIkl-zyx57W2v1u123ew11", "1:short", "1:ABC/../DEF1234ghIkl-zyx57W2v1u12"]
    {
        assert!(!is_token(bad), "{bad}");
    }
    for good in ["42", "-1001234567890", "@channel_name"] {
        assert!(is_chat(good), "{good}");
    }
    for bad in ["", "0", "me", "@a", "@no-dash", "12345678901234567890"] {
        assert!(!is_chat(bad), "{bad}");
    }
}

#[tokio::test]
async fn a_group_is_spoken_to_more_slowly_and_all_chats_of_a_bot_share_its_rate() {
    let pace = |chat: &str| open("http://127.0.0.1:1", TOKEN, chat).unwrap().pace();
    assert_eq!(pace("42"), Pace { every: Duration::from_secs(1), sender: Some("telegram:123456".to_owned()) });
    assert_eq!(pace("-42").every, Duration::from_secs(3));
    assert!(matches!(open("http://127.0.0.1:1", "1:2", "42").err(), Some(OpenError::Secret)));
    assert!(matches!(open("http://127.0.0.1:1", TOKEN, "x").err(), Some(OpenError::Chat)));
    assert!(matches!(open("http://169.254.169.254", TOKEN, "42").err(), Some(OpenError::Target(_))));
}

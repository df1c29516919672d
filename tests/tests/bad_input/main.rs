//! Bad input at each door of both listeners: what is refused is refused with the right answer, nothing of it is stored,
//! none of it is a panic, and whoever it came from cannot hold what others need.

mod documents;
mod heads;
mod http2;
mod slow;
mod storm;
mod websocket;

use reqwest::Method;
use tests::client::send;
use tests::{Answer, Service, Store};

/// What each refusal must be, whatever was wrong.
fn is_a_problem(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{what}: {problem}");
    let filled = |field: &str| problem[field].as_str().is_some_and(|text| !text.is_empty());
    assert!(filled("type") && filled("title") && filled("detail"), "{what}: {problem}");
    assert_eq!(problem["instance"], answer.header("x-request-id"), "{what}");
}

/// All that a tenant can make.
async fn nothing_is_stored(service: &Service) {
    let mut store = Store::open(service.home()).await;
    for table in ["jobs", "jobs_done", "schedules", "channels", "deliveries"] {
        assert_eq!(store.number(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
}

/// POST with this content type.
async fn post_text(service: &Service, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(service.api().request(Method::POST, path).header("content-type", content_type).body(body)).await
}

/// Nothing of it was a panic, or an error of ours, and both listeners still serve.
async fn is_unharmed(service: &Service) {
    assert_eq!(service.metrics().await.value("panic_recovered_total", &[]), Some(0.0));
    // That a loop is late is an error line too: on a busy machine a flood that is worked off costs others their turn.
    let is_ours = |line: &String| line.contains("ERROR") && !line.contains("child is stuck");
    let errors: Vec<_> = service.process().stderr().into_iter().filter(is_ours).collect();
    assert!(errors.is_empty(), "a client's mistake is no error of ours: {errors:#?}");
    for listener in [service.api(), service.admin()] {
        assert_eq!(listener.get("/readyz").await.status, 200);
    }
}

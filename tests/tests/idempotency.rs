//! `kill -9` amid requests that have a key: sent again until they are answered, each is done once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::{Answer, Home, Service, Setup, Store, eventually};
use tokio::sync::Notify;
use tokio::time::timeout;

const REQUESTS: usize = 200;

fn with_short_leases(home: &Home) -> Setup {
    let setup = Service::setup().home(home).set("limits.request_ms", 4000);
    setup.set("idempotency.lease_ms", 4500)
}

/// Each third is a channel, the others are jobs for a time that never comes.
fn request(n: usize) -> (&'static str, Value) {
    match n % 3 {
        0 => ("/v1/channels", json!({"kind": "webhook", "url": format!("https://example.com/{n}")})),
        _ => {
            let payload = json!({"topic": "t", "data": n});
            ("/v1/jobs", json!({"kind": "publish", "payload": payload, "run_at": "2999-01-01T00:00:00Z"}))
        }
    }
}

/// `None` if the process was gone before it answered.
async fn post(service: &Service, n: usize) -> Option<Answer> {
    let (path, body) = request(n);
    let request = service.api().request(Method::POST, path).header("idempotency-key", format!("\"key-{n}\""));
    let response = request.json(&body).send().await.ok()?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Some(Answer { status, headers, body: response.text().await.ok()? })
}

#[tokio::test]
async fn a_killed_process_has_done_no_request_twice() {
    let home = Home::empty();
    let first = with_short_leases(&home).start().await;
    let answered = AtomicUsize::new(0);
    let some_are_answered = Notify::new();
    let requests = iter(0..REQUESTS).map(|n| {
        let (first, answered, some_are_answered) = (&first, &answered, &some_are_answered);
        async move {
            let answer = post(first, n).await;
            if answer.as_ref().is_some_and(|it| it.status == 201) && answered.fetch_add(1, Ordering::Relaxed) == 20 {
                some_are_answered.notify_one();
            }
            answer
        }
    });
    let (answers, ()) = tokio::join!(requests.buffered(32).collect::<Vec<_>>(), async {
        timeout(Duration::from_secs(60), some_are_answered.notified()).await.expect("some are answered");
        first.process().kill9().await;
    });
    let answered = answered.into_inner();
    assert!((20..REQUESTS).contains(&answered), "{answered}: killed too late to prove anything");

    let second = with_short_leases(&home).start().await;
    let mut ids = BTreeSet::new();
    for (n, before) in answers.iter().enumerate() {
        let answer = eventually("it is answered", Duration::from_secs(30), || async {
            let answer = post(&second, n).await.unwrap();
            assert!(matches!(answer.status, 201 | 409), "{}", answer.body);
            (answer.status == 201).then_some(answer)
        })
        .await;
        if let Some(before) = before.as_ref().filter(|before| before.status == 201) {
            assert_eq!((&answer.body, answer.header("idempotency-replayed")), (&before.body, "true"));
        }
        ids.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((ids.len(), made(&home).await), (REQUESTS, REQUESTS as i64));
}

async fn made(home: &Home) -> i64 {
    Store::open(home).await.number("SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM channels)").await
}

#[tokio::test]
async fn two_at_once_under_one_key_do_it_once() {
    let service = Service::start().await;
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "run_at": "2999-01-01T00:00:00Z"});
    let post = |_| send(service.api().request(Method::POST, "/v1/jobs").header("idempotency-key", "k").json(&body));
    let answers: Vec<Answer> = iter(0..20).map(post).buffer_unordered(20).collect().await;
    for answer in &answers {
        assert!(matches!(answer.status, 201 | 409), "{}", answer.body);
        assert_eq!(answer.status == 409, answer.header("retry-after") == "1", "{}", answer.body);
    }
    let bodies: BTreeSet<_> = answers.iter().filter(|answer| answer.status == 201).map(|answer| &answer.body).collect();
    assert_eq!((bodies.len(), made(service.home()).await), (1, 1));
}

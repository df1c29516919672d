//! The header `Idempotency-Key`: nothing is done twice, whatever became of the first try.

use std::time::Duration;

use actors::model::{TenantId, new_id};
use actors::store::{
    Before, BeginRequest, BegunRequest, ClaimDeliveries, DeliveryOutcome, DeliverySettlement, Fingerprint,
};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, OTHER_KEY, World, ask};

fn job(n: u32) -> Value {
    json!({"kind": "publish", "payload": {"topic": "a", "data": n}})
}

impl World {
    pub(super) async fn post_with(&self, key: &str, path: &str, body: &Value) -> Answer {
        let request = self.authorized("POST", path).header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// A try of `body` at `path` that has begun and of which nothing more is known. Answers the id of its effect.
    pub(super) async fn begun(&self, key: &str, path: &str, body: &Value, lease_ms: u64) -> Uuid {
        let body = body.to_string();
        let begin = BeginRequest {
            tenant: TenantId::new("demo").unwrap(),
            key: Fingerprint::of(&[key.as_bytes()]),
            fingerprint: Fingerprint::of(&[b"POST", path.as_bytes(), body.as_bytes()]),
            effect: new_id(),
            lease_ms,
            keep_ms: 60_000,
            held_max: 10,
        };
        match self.state.store.begin_request(begin).await.unwrap() {
            BegunRequest::First(ticket) => ticket.effect,
            other => panic!("{other:?}"),
        }
    }
}

fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn the_same_request_under_the_same_key_is_answered_the_same_and_done_once() {
    let world = World::new().await;
    let first = world.post_with("k-1", "/v1/jobs", &job(1)).await;
    assert_eq!((first.status.as_u16(), replayed(&first)), (201, false), "{}", first.body);
    for key in ["k-1", "\"k-1\""] {
        let again = world.post_with(key, "/v1/jobs", &job(1)).await;
        assert_eq!((again.status.as_u16(), &again.body), (201, &first.body));
        assert!(replayed(&again));
        for kept in ["location", "content-type"] {
            assert_eq!(again.headers[kept], first.headers[kept]);
        }
    }
    assert_eq!(world.jobs().await, 1);
    assert_eq!(world.post_with("k-2", "/v1/jobs", &job(1)).await.status, 201);
    assert_eq!(world.jobs().await, 2);
}

#[tokio::test]
async fn another_body_or_path_under_the_same_key_is_422_and_names_the_header() {
    let world = World::new().await;
    assert_eq!(world.post_with("k", "/v1/jobs", &job(1)).await.status, 201);
    let differing = [("/v1/jobs", job(2)), ("/v1/jobs?a=1", job(1)), ("/v1/schedules", job(1))];
    for (path, body) in differing {
        let problem = world.post_with("k", path, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], "idempotency-key", "{path}");
    }
    assert_eq!(world.jobs().await, 1);
}

#[tokio::test]
async fn tenants_do_not_meet_in_their_keys() {
    let world = World::new().await;
    assert_eq!(world.post_with("k", "/v1/jobs", &job(1)).await.status, 201);
    let other = Request::post("/v1/jobs").header("content-type", "application/json").header("idempotency-key", "k");
    let other = other.header("authorization", format!("Bearer {OTHER_KEY}")).body(Body::from(job(2).to_string()));
    let answer = world.send(other.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["tenant"].as_str()), (201, Some("other")));
}

#[tokio::test]
async fn while_the_first_try_goes_on_a_second_is_409_with_the_time_to_come_again() {
    let world = World::new().await;
    world.begun("k", "/v1/jobs", &job(1), 60_000).await;
    let answer = world.post_with("k", "/v1/jobs", &job(1)).await;
    assert_eq!(answer.problem(409)["errors"][0]["field"], "idempotency-key");
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn a_key_that_is_malformed_is_400() {
    let world = World::new().await;
    for key in ["", "a b", "\"open", &"x".repeat(256)] {
        let problem = world.post_with(key, "/v1/jobs", &job(1)).await.problem(400);
        assert_eq!(problem["errors"][0]["field"], "idempotency-key", "{key}");
    }
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn a_refusal_has_done_nothing_and_leaves_the_key_free() {
    let world = World::new().await;
    for _ in 0..2 {
        let refused = world.post_with("k", "/v1/jobs", &json!({"kind": "dance", "payload": {}})).await;
        assert_eq!(refused.problem(422)["errors"][0]["field"], "kind");
        assert!(!replayed(&refused));
    }
    assert_eq!(world.post_with("k", "/v1/jobs", &job(1)).await.status, 201);
}

#[tokio::test]
async fn after_a_crash_between_effect_and_answer_the_effect_is_found_and_not_repeated() {
    let world = World::new().await;
    let schedule = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "every_ms": 60_000});
    let channel = json!({"kind": "webhook", "url": "https://example.com/hook"});
    for (path, body) in [("/v1/jobs", job(1)), ("/v1/schedules", schedule), ("/v1/channels", channel)] {
        // As if the process had died after the handler was done: with the id of the effect, but without an answer.
        let effect = world.begun(path, path, &body, 0).await;
        let made = world.post_with(path, path, &body).await;
        assert_eq!((made.status.as_u16(), replayed(&made)), (201, false), "{path}: {}", made.body);
        assert_eq!(made.json()["id"], effect.to_string(), "{path}");
    }
    let lost = world.begun("lost", "/v1/jobs", &job(7), 0).await;
    let mut kept = actors::store::NewJob::new(TenantId::new("demo").unwrap(), "publish", job(7)["payload"].clone());
    kept.id = lost;
    world.state.store.enqueue(vec![kept]).await.unwrap();
    let jobs = world.jobs().await;
    let again = world.post_with("lost", "/v1/jobs", &job(7)).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (201, &json!(lost.to_string())));
    assert!(replayed(&again));
    assert_eq!(world.jobs().await, jobs);
}

#[tokio::test]
async fn a_cancellation_whose_answer_was_lost_is_answered_again_and_not_as_too_late() {
    let world = World::new().await;
    let id = world.post("/v1/jobs", &job(1)).await.json()["id"].as_str().unwrap().to_owned();
    let (path, body) = (format!("/v1/jobs/{id}/cancel"), json!({}));
    world.begun("k", &path, &body, 0).await;
    let demo = TenantId::new("demo").unwrap();
    world.state.store.cancel_job(&demo, id.parse().unwrap(), "cancelled").await.unwrap().unwrap();
    let again = world.post_with("k", &path, &body).await;
    assert_eq!((again.status.as_u16(), &again.json()["state"]), (200, &json!("cancelled")), "{}", again.body);
    assert!(replayed(&again));
    world.post_with("another", &path, &body).await.problem(409);
}

#[tokio::test]
async fn a_redelivery_whose_answer_was_lost_is_answered_again_and_not_refused() {
    let world = World::new().await;
    let made = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/hook"})).await.json();
    let channel = format!("/v1/channels/{}", made["id"].as_str().unwrap());
    let told = world.post("/v1/notifications", &json!({"channel": made["id"], "text": "hi"})).await.json();
    for end in ["disable", "enable"] {
        world.post(&format!("{channel}/{end}"), &json!({})).await;
    }
    let id = told["deliveries"][0]["id"].as_str().unwrap();
    let (path, body) = (format!("{channel}/deliveries/{id}/redeliver"), json!({}));
    world.begun("k", &path, &body, 0).await;
    assert_eq!(world.post(&path, &body).await.status, 202, "what the first try has done");
    let again = world.post_with("k", &path, &body).await;
    assert_eq!((again.status.as_u16(), &again.json()["state"]), (202, &json!("pending")), "{}", again.body);
    assert!(replayed(&again));
    world.post_with("another", &path, &body).await.problem(409);
}

#[tokio::test]
async fn a_redelivery_of_which_nothing_was_done_is_refused_if_there_is_nothing_to_do() {
    let world = World::new().await;
    let made = world.post("/v1/channels", &json!({"kind": "webhook", "url": "https://example.com/hook"})).await.json();
    let channel: Uuid = made["id"].as_str().unwrap().parse().unwrap();
    world.post("/v1/notifications", &json!({"channel": channel, "text": "hi"})).await;
    let store = &world.state.store;
    let claim = ClaimDeliveries { channel, owner: new_id(), lease_ms: 45_000, limit: 1 };
    let claimed = store.claim_deliveries(claim).await.unwrap().deliveries.remove(0);
    let sent = DeliveryOutcome::Sent { status: Some(200), provider_id: None };
    store.settle_delivery(DeliverySettlement::new(claimed.fence(), sent)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (path, body) = (format!("/v1/channels/{channel}/deliveries/{}/redeliver", claimed.id), json!({}));
    // The first try ran out of time before it did anything.
    world.begun("k", &path, &body, 0).await;
    world.post_with("k", &path, &body).await.problem(409);
}

#[tokio::test]
async fn the_secret_of_a_channel_is_given_again_but_never_kept_with_an_answer() {
    let world = World::new().await;
    let body = json!({"kind": "webhook", "url": "https://example.com/hook"});
    let made = world.post_with("k", "/v1/channels", &body).await;
    assert_eq!((made.status.as_u16(), &made.headers["cache-control"]), (201, &"no-store".parse().unwrap()));
    let again = world.post_with("k", "/v1/channels", &body).await;
    assert_eq!((again.json(), replayed(&again)), (made.json(), true));
    assert!(made.json()["secret"].as_str().unwrap().starts_with("whsec_"));
    let channels = world.state.store.list_channels(&TenantId::new("demo").unwrap(), Before::newest(10)).await.unwrap();
    assert_eq!(channels.len(), 1);
    let kept = BeginRequest {
        tenant: TenantId::new("demo").unwrap(),
        key: Fingerprint::of(&[b"k"]),
        fingerprint: Fingerprint::of(&[b"POST", b"/v1/channels", body.to_string().as_bytes()]),
        effect: new_id(),
        lease_ms: 0,
        keep_ms: 60_000,
        held_max: 10,
    };
    let begun = world.state.store.begin_request(kept).await.unwrap();
    assert!(matches!(begun, BegunRequest::Again(_)), "no answer is kept: {begun:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_key_open_for_its_next_try() {
    let world = World::new().await;
    let request = || {
        let request = world.authorized("POST", "/v1/jobs").header("idempotency-key", "k");
        request.body(Body::from(job(1).to_string())).unwrap()
    };
    // Wherever the first try was cut, the second is not made to wait for the lease.
    for micros in [500, 2_000, 5_000] {
        let _ = tokio::time::timeout(Duration::from_micros(micros), ask(world.router(), request())).await;
    }
    let answered = async {
        loop {
            let answer = ask(world.router(), request()).await;
            if answer.status != 409 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert_eq!((answer.status.as_u16(), world.jobs().await), (201, 1), "{}", answer.body);
}

#[tokio::test]
async fn one_key_too_many_is_429_and_those_before_it_still_answer() {
    let world = World::with(&[("APP__IDEMPOTENCY__KEYS_MAX", "2")]).await;
    for key in ["a", "b"] {
        assert_eq!(world.post_with(key, "/v1/jobs", &job(1)).await.status, 201);
    }
    let full = world.post_with("c", "/v1/jobs", &job(1)).await;
    full.problem(429);
    assert_eq!(full.headers["retry-after"], "60");
    assert!(replayed(&world.post_with("a", "/v1/jobs", &job(1)).await));
    assert_eq!(world.post("/v1/jobs", &job(1)).await.status, 201);
}

#[tokio::test]
async fn a_body_above_the_limit_is_413_also_with_a_key_and_get_needs_none() {
    let world = World::with(&[("APP__LIMITS__BODY_BYTES", "2000")]).await;
    let large = json!({"kind": "publish", "payload": {"topic": "a", "data": "x".repeat(2_000)}});
    world.post_with("k", "/v1/jobs", &large).await.problem(413);
    let get = world.authorized("GET", "/v1/jobs/x").header("idempotency-key", "a b").body(Body::empty()).unwrap();
    world.send(get).await.problem(404);
}

#[tokio::test]
async fn while_the_store_is_away_a_request_with_a_key_is_503_and_nothing_is_done() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/jobs/x").await.status, 404);
    world.state.store.close().await;
    world.post_with("k", "/v1/jobs", &job(1)).await.problem(503);
}

#[tokio::test]
async fn a_notification_to_several_channels_is_found_again_whole() {
    let world = World::new().await;
    let mut channels = Vec::new();
    for n in 0..3 {
        let body = json!({"kind": "webhook", "url": format!("https://example.com/{n}")});
        channels.push(world.post("/v1/channels", &body).await.json()["id"].clone());
    }
    let body = json!({"channels": channels, "text": "hi"});
    let effect = world.begun("k", "/v1/notifications", &body, 0).await;
    let first = world.post_with("k", "/v1/notifications", &body).await;
    assert_eq!((first.status.as_u16(), replayed(&first)), (202, false), "{}", first.body);
    assert_eq!(first.json()["deliveries"][0]["id"], effect.to_string());
    let again = world.post_with("k", "/v1/notifications", &body).await;
    assert_eq!((again.json(), replayed(&again)), (first.json(), true));
    for (n, channel) in channels.iter().enumerate() {
        let kept = world.get(&format!("/v1/channels/{}/deliveries", channel.as_str().unwrap())).await.json();
        assert_eq!(kept["items"].as_array().unwrap().len(), 1);
        assert_eq!(kept["items"][0]["id"], first.json()["deliveries"][n]["id"]);
    }
}

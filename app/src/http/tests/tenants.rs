//! Tenants from outside: keys that change, tenants that are disabled, and what each may have.

use std::net::SocketAddr;
use std::time::Duration;

use actors::broadcast::CloseReason;
use actors::model::TenantId;
use actors::store::{KeyHash, Quotas};
use axum::body::Body;
use http::Request;
use tokio::time::timeout;

use super::{Answer, OTHER_KEY, World};
use crate::http::auth::{DEMO_KEY, confirm};
use crate::http::serve::Peer;

const JOB: &str = "/v1/jobs/018f0000-0000-7000-8000-000000000000";

fn other() -> TenantId {
    TenantId::new("other").unwrap()
}

/// GET of a job that is not there: 404 means that the key was right.
async fn with_key(world: &World, key: &str) -> Answer {
    from_peer(world, key, "192.0.2.1:5000").await
}

async fn from_peer(world: &World, key: &str, peer: &str) -> Answer {
    let peer = Peer(peer.parse::<SocketAddr>().unwrap());
    let request = Request::get(JOB).header("authorization", format!("Bearer {key}")).extension(peer);
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_disabled_tenant_is_403_and_says_so_until_it_is_enabled() {
    let world = World::new().await;
    with_key(&world, OTHER_KEY).await.problem(404);
    world.state.store.disable_tenant(&other()).await.unwrap();
    world.state.tenants.catch_up().await;
    let detail = with_key(&world, OTHER_KEY).await.problem(403)["detail"].clone();
    assert_eq!(detail, "the tenant other is disabled, the operator of this service knows why");
    with_key(&world, DEMO_KEY).await.problem(404);
    world.state.store.enable_tenant(&other()).await.unwrap();
    world.state.tenants.catch_up().await;
    with_key(&world, OTHER_KEY).await.problem(404);
}

#[tokio::test]
async fn a_key_that_was_rotated_elsewhere_opens_nothing_after_ten_seconds_even_if_no_change_is_noticed() {
    let world = World::new().await;
    let router = world.router();
    let ask = || {
        let request = Request::get(JOB).header("authorization", format!("Bearer {OTHER_KEY}"));
        super::ask(router.clone(), request.body(Body::empty()).unwrap())
    };
    ask().await.problem(404);
    world.state.store.rotate_tenant_key(&other(), &KeyHash::of("pk_new")).await.unwrap();
    ask().await.problem(404);
    // Only for a moment: the store's threads live in real time.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    ask().await.problem(401);
}

#[tokio::test]
async fn a_change_closes_the_sockets_of_a_revoked_key_and_of_no_other() {
    let world = World::new().await;
    let connect = |name: &str| {
        let tenant = TenantId::new(name).unwrap();
        world.state.hub.connect(tenant, &[], world.state.bounds.sockets).unwrap()
    };
    let (revoked, kept) = (connect("other"), connect("demo"));
    let is_open = async |subscriber: &actors::broadcast::Subscriber| {
        timeout(Duration::from_millis(1), subscriber.cut()).await.is_err()
    };
    // A change of limits is no reason to close anything.
    let quotas = Quotas { sockets: Some(1), ..Quotas::default() };
    world.state.store.set_tenant_quotas(&other(), quotas).await.unwrap();
    world.state.tenants.catch_up().await;
    assert!(is_open(&revoked).await);
    world.state.store.rotate_tenant_key(&other(), &KeyHash::of("pk_new")).await.unwrap();
    world.state.tenants.catch_up().await;
    assert_eq!(revoked.cut().await, CloseReason::Revoked);
    assert!(is_open(&kept).await);
    assert!(confirm(&world.state.tenants, &KeyHash::of(OTHER_KEY)).await.is_err(), "who connects now is found out");
    // Another change later must not close what was opened with the new key.
    let renewed = connect("other");
    world.state.store.set_tenant_quotas(&other(), Quotas::default()).await.unwrap();
    world.state.tenants.catch_up().await;
    assert!(is_open(&renewed).await);
}

#[tokio::test]
async fn requests_over_a_tenants_rate_are_429_with_its_limits_and_cost_no_other_tenant() {
    let world = World::with(&[("APP__TENANTS__REQUESTS_BURST", "3"), ("APP__TENANTS__REQUESTS_PER_S", "1")]).await;
    let router = world.router();
    // Refused before the store is asked, so that time can stand still.
    let ask = |key: &str| {
        let request = Request::post("/v1/jobs").header("authorization", format!("Bearer {key}"));
        super::ask(router.clone(), request.body(Body::empty()).unwrap())
    };
    ask(OTHER_KEY).await.problem(415);
    let first = ask(DEMO_KEY).await;
    first.problem(415);
    assert_eq!(first.headers["ratelimit-policy"], "\"tenant\";q=3;w=3");
    assert_eq!(first.headers["ratelimit"], "\"tenant\";r=2");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    for _ in 0..3 {
        ask(DEMO_KEY).await.problem(415);
    }
    let refused = ask(DEMO_KEY).await;
    assert_eq!(refused.problem(429)["detail"], "the tenant may send 1 requests a second, 3 at once");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["ratelimit"], "\"tenant\";r=0");
    ask(OTHER_KEY).await.problem(415);
    tokio::time::advance(Duration::from_secs(1)).await;
    ask(DEMO_KEY).await.problem(415);
}

#[tokio::test]
async fn guesses_from_one_address_are_429_and_cost_no_key_that_was_right_before() {
    let world = World::with(&[("APP__LIMITS__AUTH_FAILURES_PER_MIN", "2")]).await;
    with_key(&world, DEMO_KEY).await.problem(404);
    for guess in ["pk_a", "pk_b", "pk_c"] {
        with_key(&world, guess).await.problem(401);
    }
    let refused = with_key(&world, "pk_d").await;
    refused.problem(429);
    let retry_after: u32 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((10..=30).contains(&retry_after), "{retry_after}");
    with_key(&world, OTHER_KEY).await.problem(429);
    with_key(&world, DEMO_KEY).await.problem(404);
    from_peer(&world, OTHER_KEY, "192.0.2.2:5000").await.problem(404);
    let none = world.send(Request::get(JOB).body(Body::empty()).unwrap()).await;
    assert_eq!(none.status, 401, "no key is no guess");
}

#[tokio::test]
async fn a_tenants_own_limits_are_in_force_at_its_next_request() {
    let world = World::new().await;
    with_key(&world, OTHER_KEY).await.problem(404);
    let quotas = Quotas { requests_burst: Some(1), ..Quotas::default() };
    world.state.store.set_tenant_quotas(&other(), quotas).await.unwrap();
    world.state.tenants.catch_up().await;
    assert_eq!(with_key(&world, OTHER_KEY).await.headers["ratelimit-policy"], "\"tenant\";q=1;w=1");
    assert_eq!(with_key(&world, DEMO_KEY).await.headers["ratelimit-policy"], "\"tenant\";q=2000;w=2");
}

#[tokio::test]
async fn jobs_over_a_tenants_limit_are_429_with_the_name_of_the_limit() {
    let world = World::with(&[("APP__TENANTS__JOBS_QUEUED", "1")]).await;
    let post = |key: &str| {
        let request = Request::post("/v1/jobs").header("authorization", format!("Bearer {key}"));
        let body = r#"{"kind": "publish", "payload": {"topic": "t", "data": 1}}"#;
        super::ask(world.router(), request.header("content-type", "application/json").body(Body::from(body)).unwrap())
    };
    assert_eq!(post(DEMO_KEY).await.status, 201);
    let refused = post(DEMO_KEY).await;
    let problem = refused.problem(429);
    let told = ("tenant_jobs_queued", "the tenant may have 1 jobs queued, it has 1");
    assert_eq!((problem["code"].as_str().unwrap(), problem["detail"].as_str().unwrap()), told);
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(post(OTHER_KEY).await.status, 201);
}

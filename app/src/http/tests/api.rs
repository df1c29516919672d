//! What the API refuses: each with its status, as a problem document, and with nothing stored.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::{OTHER_KEY, World};
use crate::http::auth::DemoKey;
use crate::http::tenants::Tenants;

fn job() -> Value {
    json!({"kind": "publish", "payload": {"topic": "hello", "data": {"n": 1}}})
}

#[tokio::test]
async fn a_request_without_a_key_or_with_a_foreign_one_is_401_with_the_way_in() {
    let world = World::new().await;
    let post = || Request::post("/v1/jobs").header("content-type", "application/json");
    let body = || Body::from(job().to_string());
    let none = world.send(post().body(body()).unwrap()).await;
    assert_eq!(none.problem(401)["detail"], "a key is needed, in the header authorization: Bearer KEY");
    assert_eq!(none.headers["www-authenticate"], "Bearer realm=\"api\"");
    for key in ["Bearer pk_nobody", "bearer PK_DEMO_DEVELOPMENT_ONLY"] {
        let foreign = world.send(post().header("authorization", key).body(body()).unwrap()).await;
        assert_eq!(foreign.problem(401)["detail"], "this key is nobody's");
        assert_eq!(foreign.headers["www-authenticate"], "Bearer realm=\"api\", error=\"invalid_token\"");
    }
    let basic = world.send(post().header("authorization", "Basic abc").body(body()).unwrap()).await;
    basic.problem(401);
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn outside_development_the_demo_key_is_nobodys_even_over_a_seeded_store() {
    let mut world = World::new().await;
    assert_eq!(world.post("/v1/jobs", &job()).await.status, 201);
    let (store, hub) = (world.state.store.clone(), world.state.hub.clone());
    world.state.tenants = Tenants::new(store, hub, DemoKey::Refused);
    let refused = world.post("/v1/jobs", &job()).await;
    assert_eq!(refused.problem(401)["detail"], "this key is nobody's");
    let other = Request::post("/v1/jobs").header("content-type", "application/json");
    let other = other.header("authorization", format!("Bearer {OTHER_KEY}")).body(Body::from(job().to_string()));
    assert_eq!(world.send(other.unwrap()).await.status, 201);
    assert_eq!(world.jobs().await, 2);
}

#[tokio::test]
async fn bad_json_is_400_wrong_shapes_are_422_and_nothing_is_stored() {
    let world = World::new().await;
    let post = |body: &str| {
        let request = world.authorized("POST", "/v1/jobs").body(Body::from(body.to_owned())).unwrap();
        world.send(request)
    };
    let problem = post("{\"kind\": \"publish\",\n \"payload\": }").await.problem(400);
    assert_eq!(problem["detail"], "the body is not JSON: expected value at line 2 column 13");
    post("").await.problem(400);
    for (body, field, reason) in [
        (r#"{"kind":7,"payload":{}}"#, "kind", "invalid type: integer `7`, expected a string"),
        (r#"{"kind":"publish"}"#, "", "missing field `payload`"),
        (
            r#"{"kind":"publish","payload":{},"priority":"high"}"#,
            "priority",
            "invalid type: string \"high\", expected an integer",
        ),
        (r#"[]"#, "", "must be an object"),
        (r#"["publish",{"topic":"t","data":1},null,null,null,null,null]"#, "", "must be an object"),
        (r#" "publish""#, "", "must be an object"),
    ] {
        let problem = post(body).await.problem(422);
        assert_eq!(problem["errors"], json!([{"field": field, "reason": reason}]), "{body}");
    }
    let unknown = post(r#"{"kind":"publish","payload":{},"retries":3}"#).await.problem(422);
    assert_eq!(unknown["errors"][0]["field"], "retries");
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn every_semantic_fault_of_a_job_is_told_at_once() {
    let world = World::new().await;
    let body = json!({
        "kind": "pulish", "payload": {}, "queue": "fast", "max_attempts": 0, "timeout_ms": 3_600_001,
    });
    let problem = world.post("/v1/jobs", &body).await.problem(422);
    let expected = json!([
        {"field": "kind", "reason": "no handler for the kind \"pulish\", known are: notify, publish"},
        {"field": "queue", "reason": "is not served, must be one of: default"},
        {"field": "max_attempts", "reason": "must be from 1 to 100"},
        {"field": "timeout_ms", "reason": "must be from 1 to 3600000"},
    ]);
    assert_eq!(problem["errors"], expected);
    let payload = json!({"kind": "publish", "payload": {"topic": 5, "data": 1}});
    let problem = world.post("/v1/jobs", &payload).await.problem(422);
    assert_eq!(problem["errors"][0]["field"], "payload.topic");
    let time = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "run_at": "tomorrow"});
    assert_eq!(world.post("/v1/jobs", &time).await.problem(422)["errors"][0]["field"], "run_at");
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn an_oversized_body_is_413_and_another_media_type_415() {
    let world = World::with(&[("APP__LIMITS__BODY_BYTES", "2000")]).await;
    let large = json!({"kind": "publish", "payload": {"topic": "a", "data": "x".repeat(2_000)}});
    let problem = world.post("/v1/jobs", &large).await.problem(413);
    assert_eq!(problem["detail"], "the body may have 2000 bytes at most");
    let mut request = world.authorized("POST", "/v1/jobs").body(Body::from(job().to_string())).unwrap();
    request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    world.send(request).await.problem(415);
    assert_eq!(world.jobs().await, 0);
}

#[tokio::test]
async fn unknown_routes_are_404_and_wrong_methods_405_key_or_not() {
    let world = World::new().await;
    for path in ["/", "/v1", "/v1/job", "/v2/jobs", "/admin/tree", "/metrics", "/dev/panic/scheduler"] {
        world.get(path).await.problem(404);
    }
    world.send(Request::get("/v1/nothing").body(Body::empty()).unwrap()).await.problem(404);
    let wrong = world.send(world.authorized("DELETE", "/v1/jobs").body(Body::empty()).unwrap()).await;
    wrong.problem(405);
    assert_eq!(wrong.headers["allow"], "POST,GET,HEAD");
}

#[tokio::test]
async fn another_tenants_job_is_as_unknown_as_any() {
    let world = World::new().await;
    let posted = world.post("/v1/jobs", &job()).await;
    assert_eq!(posted.status, 201, "{}", posted.body);
    let path = posted.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(world.get(&path).await.status, 200);
    let foreign = Request::get(&path).header("authorization", format!("Bearer {OTHER_KEY}"));
    let foreign = world.send(foreign.body(Body::empty()).unwrap()).await.problem(404);
    let unknown = world.get("/v1/jobs/018f0000-0000-7000-8000-000000000000").await.problem(404);
    assert_eq!((&foreign["detail"], &unknown["detail"]), (&json!("no such job"), &json!("no such job")));
    world.get("/v1/jobs/not-an-id").await.problem(404);
}

#[tokio::test]
async fn a_store_that_is_away_is_503_with_the_time_to_come_again() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/jobs/018f0000-0000-7000-8000-000000000000").await.status, 404);
    world.state.store.close().await;
    let answer = world.post("/v1/jobs", &job()).await;
    answer.problem(503);
    assert_eq!(answer.headers["retry-after"], "2");
}

#[tokio::test]
async fn a_plain_get_of_the_socket_is_refused_and_a_bad_topic_named() {
    let world = World::new().await;
    let refused = world.get("/v1/socket?topic=a").await;
    assert!(refused.status.is_client_error());
    refused.problem(refused.status.as_u16());
}

#[tokio::test]
async fn the_request_id_of_the_client_is_in_the_answer_and_in_the_problem() {
    let world = World::new().await;
    let request = world.authorized("GET", "/v1/jobs/x").header("x-request-id", "my-id.7").body(Body::empty()).unwrap();
    let answer = world.send(request).await;
    assert_eq!(answer.problem(404)["instance"], "my-id.7");
}

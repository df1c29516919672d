//! The probes, on both listeners: what they say, and what they keep to themselves.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::{World, ask};
use crate::http::probes::{Detail, Probes};

/// Status and body of a probe.
async fn probe(world: &World, detail: Detail, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = ask(world.state.probes.router(detail).into(), request).await;
    (answer.status.as_u16(), answer.json())
}

fn probes(world: &World) -> &Probes {
    &world.state.probes
}

#[tokio::test]
async fn before_the_first_start_is_complete_the_service_is_starting_and_healthy() {
    let world = World::new().await;
    let starting = json!({"status": "starting", "reasons": ["the first start is not complete"]});
    assert_eq!(probe(&world, Detail::Reasons, "/startupz").await, (503, starting.clone()));
    assert_eq!(probe(&world, Detail::Reasons, "/readyz").await, (503, starting));
    assert_eq!(probe(&world, Detail::Reasons, "/healthz").await, (200, json!({"status": "healthy"})));
}

#[tokio::test]
async fn readiness_follows_the_store_and_names_it_to_operators_only() {
    let world = World::new().await;
    probes(&world).lifecycle.set_started();
    let unchecked = json!({"status": "unready", "reasons": ["store: not checked yet"]});
    assert_eq!(probe(&world, Detail::Reasons, "/readyz").await, (503, unchecked));
    assert_eq!(probe(&world, Detail::WordOnly, "/readyz").await, (503, json!({"status": "unready"})));
    world.sweep.run().await;
    assert_eq!(probe(&world, Detail::Reasons, "/readyz").await, (200, json!({"status": "ready"})));
}

#[tokio::test]
async fn a_draining_service_is_not_ready_but_healthy() {
    let world = World::new().await;
    world.sweep.run().await;
    probes(&world).lifecycle.set_started();
    probes(&world).lifecycle.drain();
    let (status, body) = probe(&world, Detail::Reasons, "/readyz").await;
    assert_eq!((status, &body["status"]), (503, &json!("draining")));
    assert_eq!(probe(&world, Detail::Reasons, "/healthz").await.0, 200);
    assert_eq!(probe(&world, Detail::Reasons, "/startupz").await.0, 200);
}

#[tokio::test]
async fn a_main_runtime_that_runs_no_task_is_unhealthy() {
    let mut world = World::new().await;
    probes(&world).lifecycle.set_started();
    world.state.probes.runtime_stuck_after = Duration::ZERO;
    let (status, body) = probe(&world, Detail::Reasons, "/healthz").await;
    assert_eq!((status, &body["status"]), (503, &json!("wedged")));
    assert!(body["reasons"][0].as_str().unwrap().starts_with("the main runtime has not run a task for"));
    assert_eq!(probe(&world, Detail::WordOnly, "/healthz").await, (503, json!({"status": "wedged"})));
}

#[tokio::test]
async fn the_api_serves_the_probes_without_a_key_and_without_reasons() {
    let world = World::new().await;
    let answer = world.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (503, json!({"status": "starting"})));
    assert!(answer.headers.contains_key("x-request-id"));
}

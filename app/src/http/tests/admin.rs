//! The admin listener: its token, its views, and the demo of a panic on a real tree.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use secrecy::SecretString;
use serde_json::json;
use supervision::{Backoff, ChildSpec, Strategy, SupervisorSpec, Tree};

use super::{Answer, World, ask};
use crate::http::admin::{AdminState, Dev, router};

fn state(world: &World, dev: Dev) -> AdminState {
    AdminState {
        token: None,
        dev,
        tree: Arc::clone(&world.state.probes.tree),
        liveness: world.state.probes.liveness.clone(),
        probes: world.state.probes.clone(),
        metrics: Arc::new(|| "up 1\n".to_owned()),
    }
}

async fn get(router: Router, path: &str) -> Answer {
    ask(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(router: Router, path: &str) -> Answer {
    ask(router, Request::post(path).body(Body::empty()).unwrap()).await
}

/// A tree with one child that waits and is restarted at once.
async fn plant(world: &World) -> Tree {
    let child = ChildSpec::task("scheduler", |context| async move {
        context.cancelled().cancelled().await;
        Ok(())
    });
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(child.backoff(Backoff::NONE));
    let tree = Tree::start(spec, world.heartbeats.clone()).await.unwrap();
    assert!(world.state.probes.tree.set(tree.clone()).is_ok());
    tree
}

#[tokio::test]
async fn with_a_token_everything_but_the_probes_asks_for_it() {
    let world = World::new().await;
    let token = Some(SecretString::from("a-token-of-our-own"));
    let state = AdminState { token, ..state(&world, Dev::Served) };
    for path in ["/metrics", "/admin/liveness", "/admin/tree", "/admin/incidents", "/admin/incidents/x"] {
        let refused = get(router(state.clone()), path).await;
        refused.problem(401);
        assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"admin\"");
    }
    post(router(state.clone()), "/dev/panic/scheduler").await.problem(401);
    assert_eq!(get(router(state.clone()), "/healthz").await.status, 200);
    for (token, status) in [("Bearer a-token-of-our-own", 200), ("Bearer a-token-of-our-owN", 401)] {
        let request = Request::get("/metrics").header("authorization", token).body(Body::empty()).unwrap();
        assert_eq!(ask(router(state.clone()), request).await.status, status);
    }
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_reads_them() {
    let world = World::new().await;
    let answer = get(router(state(&world, Dev::Served)), "/metrics").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "up 1\n"));
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn liveness_shows_each_subsystem_also_while_it_has_no_loop() {
    let world = World::new().await;
    let liveness = get(router(state(&world, Dev::Served)), "/admin/liveness").await.json();
    assert_eq!(liveness["subsystems"][0]["name"], "scheduler");
    assert_eq!(liveness["subsystems"][0]["state"], "waiting");
}

#[tokio::test]
async fn the_tree_is_503_until_it_stands_and_then_shown() {
    let world = World::new().await;
    let before = get(router(state(&world, Dev::Served)), "/admin/tree").await;
    before.problem(503);
    assert_eq!(before.headers["retry-after"], "1");
    let tree = plant(&world).await;
    let shown = get(router(state(&world, Dev::Served)), "/admin/tree").await.json();
    assert_eq!((&shown["children"][0]["path"], &shown["children"][0]["status"]), (&json!("scheduler"), &json!("up")));
    tree.stop().await;
}

#[tokio::test]
async fn a_child_is_made_to_panic_recorded_and_restarted() {
    telemetry::panic::install_hook();
    let world = World::new().await;
    let tree = plant(&world).await;
    let mut events = tree.events();
    let answer = post(router(state(&world, Dev::Served)), "/dev/panic/scheduler").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["path"]), (202, &json!("scheduler")));
    let restarted = async {
        while tree.snapshot().find("scheduler").is_none_or(|node| node.incarnation < 2) {
            events.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), restarted).await.unwrap();
    let incidents = get(router(state(&world, Dev::Served)), "/admin/incidents").await.json();
    let items = incidents["items"].as_array().unwrap();
    let ours = items.iter().find(|incident| incident["actor"] == "scheduler").unwrap();
    let one =
        get(router(state(&world, Dev::Served)), &format!("/admin/incidents/{}", ours["id"].as_str().unwrap())).await;
    assert_eq!((&one.json()["id"], &one.json()["policy"]), (&ours["id"], &json!("restart")));
    tree.stop().await;
}

#[tokio::test]
async fn a_path_that_names_no_child_is_404_and_says_so() {
    let world = World::new().await;
    let tree = plant(&world).await;
    let problem = post(router(state(&world, Dev::Served)), "/dev/panic/scheduler/nobody").await.problem(404);
    assert_eq!(problem["detail"], "there is no child `scheduler.nobody` in the tree");
    get(router(state(&world, Dev::Served)), "/admin/incidents/018f0000-0000-7000-8000-000000000000").await.problem(404);
    tree.stop().await;
}

#[tokio::test]
async fn outside_development_there_is_no_way_to_make_anything_panic() {
    let world = World::new().await;
    let tree = plant(&world).await;
    post(router(state(&world, Dev::Absent)), "/dev/panic/scheduler").await.problem(404);
    assert_eq!(tree.snapshot().find("scheduler").unwrap().incarnation, 1);
    tree.stop().await;
}

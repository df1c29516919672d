//! The admin listener as a page in a browser sees it: the console, and the stream that keeps it live.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use http::Request;
use secrecy::SecretString;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::admin::{get, plant, state};
use super::{Answer, World, ask};
use crate::http::admin::{AdminState, Dev, live::Live, router};
use crate::http::auth::Gatekeeper;

/// A listener that ends when its token does, watched.
async fn watched(state: &AdminState) -> (Answer, BodyDataStream) {
    let request = Request::get("/admin/live").body(Body::empty()).unwrap();
    let (parts, body) = router(state.clone()).oneshot(request).await.unwrap().into_parts();
    let answer = Answer { status: parts.status, headers: parts.headers, body: String::new() };
    (answer, body.into_data_stream())
}

/// What the next event says; none at the end.
async fn seen(stream: &mut BodyDataStream) -> Option<serde_json::Value> {
    let next = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("an event in time")?;
    let event = String::from_utf8(next.unwrap().to_vec()).unwrap();
    let data = event.strip_prefix("event: seen\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    Some(serde_json::from_str(data.unwrap_or_else(|| panic!("{event}"))).unwrap())
}

#[tokio::test]
async fn the_service_is_watched_live_and_the_stream_ends_with_its_listener() {
    let world = World::new().await;
    let ends = CancellationToken::new();
    let state = AdminState { live: Live::new(ends.clone()), ..state(&world, Dev::Absent) };
    let (answer, mut stream) = watched(&state).await;
    assert_eq!((answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    assert_eq!(seen(&mut stream).await.unwrap()["tree"], json!(null), "it does not stand yet");
    let tree = plant(&world).await;
    let until = async |stream: &mut BodyDataStream, status: &str| loop {
        let event = seen(stream).await.unwrap();
        let child = event["tree"]["children"][0].clone();
        if child["status"] == status {
            return child;
        }
    };
    assert_eq!(until(&mut stream, "up").await["incarnation"], 1);
    tree.stop_child("scheduler").await.unwrap();
    until(&mut stream, "stopped_by_hand").await;
    tree.start_child("scheduler").await.unwrap();
    assert_eq!(until(&mut stream, "up").await["incarnation"], 2);
    ends.cancel();
    while seen(&mut stream).await.is_some() {}
    tree.stop().await;
}

#[tokio::test]
async fn however_much_happens_in_the_tree_no_more_than_four_events_go_out_in_a_second() {
    let world = World::new().await;
    let tree = plant(&world).await;
    let state = state(&world, Dev::Absent);
    let (_, mut stream) = watched(&state).await;
    tokio::time::pause();
    let busy = async {
        loop {
            tree.restart("scheduler").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let events = async {
        let began = tokio::time::Instant::now();
        let mut events = 0;
        while began.elapsed() < Duration::from_secs(10) {
            seen(&mut stream).await.unwrap();
            events += 1;
        }
        events
    };
    let events = tokio::select! { events = events => events, () = busy => unreachable!() };
    assert!((35..=42).contains(&events), "{events} in 10 s");
    tree.stop().await;
}

#[tokio::test]
async fn only_so_many_watch_at_once_and_a_place_is_free_again_when_one_leaves() {
    let world = World::new().await;
    let state = state(&world, Dev::Absent);
    let mut watching = Vec::new();
    for _ in 0..8 {
        watching.push(watched(&state).await.1);
    }
    let refused = get(router(state.clone()), "/admin/live").await;
    refused.problem(503);
    assert_eq!(refused.headers["retry-after"], "5");
    watching.pop();
    assert_eq!(watched(&state).await.0.status, 200);
}

/// A browser says where a page is from; the console is from the listener that it asks.
#[tokio::test]
async fn without_a_token_the_listeners_own_page_may_change_things_and_no_other() {
    let world = World::new().await;
    let tree = plant(&world).await;
    let asked = async |origin: &str, host: &str| {
        let request = Request::post("/admin/tree/restart/scheduler").header("origin", origin).header("host", host);
        ask(router(state(&world, Dev::Absent)), request.body(Body::empty()).unwrap()).await.status.as_u16()
    };
    for host in ["127.0.0.1:8081", "localhost:8081", "[::1]:8081"] {
        assert_eq!(asked(&format!("http://{host}"), host).await, 200, "{host}");
        assert_eq!(asked(&format!("https://{host}"), host).await, 200, "behind a proxy that speaks TLS: {host}");
    }
    let foreign = [
        ("http://localhost:3000", "localhost:8081"),
        ("http://127.0.0.1", "127.0.0.1:8081"),
        ("http://localhost:8081", "127.0.0.1:8081"),
        ("http://evil.example:8081", "evil.example:8081"),
        ("null", "127.0.0.1:8081"),
        ("ftp://127.0.0.1:8081", "127.0.0.1:8081"),
    ];
    for (origin, host) in foreign {
        assert_eq!(asked(origin, host).await, 403, "{origin} at {host}");
    }
    tree.stop().await;
}

#[tokio::test]
async fn with_a_token_the_console_is_there_without_it_and_holds_nothing() {
    let world = World::new().await;
    let keeper = Gatekeeper { token: Some(SecretString::from("ours")), failures: world.state.failures.clone() };
    let state = AdminState { keeper, ..state(&world, Dev::Absent) };
    for path in ["/console", "/console/traces/x", "/console/assets/main.js"] {
        assert_eq!(get(router(state.clone()), path).await.status, 200, "{path}");
    }
    get(router(state), "/admin/live").await.problem(401);
}

//! What operators see of the work: this process at a glance, and the rows of one tenant.

use actors::broadcast::Topic;
use http::Request;
use serde_json::json;
use uuid::Uuid;

use super::admin::{get, state};
use super::{World, ask};
use crate::http::admin::{Dev, router};

#[tokio::test]
async fn the_tenants_with_the_most_sockets_come_first_and_health_has_its_history() {
    let world = World::new().await;
    let topic = [Topic::new("news").unwrap()];
    let connect = |tenant: &str| {
        let limits = world.state.bounds.sockets;
        world.state.hub.connect(actors::model::TenantId::new(tenant).unwrap(), &topic, limits).unwrap()
    };
    let _open: Vec<_> = ["few", "many", "many"].into_iter().map(connect).collect();
    let _crowd: Vec<_> = (0..25).map(|number| connect(&format!("one-{number:02}"))).collect();
    let work = get(router(state(&world, Dev::Absent)), "/admin/work").await.json();
    let sockets = &work["sockets"];
    assert_eq!(
        (&sockets["open"], &sockets["subscriptions"], &sockets["tenants"]),
        (&json!(28), &json!(28), &json!(27))
    );
    let top = sockets["top"].as_array().unwrap();
    assert_eq!((top.len(), &top[0]), (20, &json!({"tenant": "many", "sockets": 2, "subscriptions": 2})));
    assert_eq!((&top[1]["tenant"], &top[2]["tenant"]), (&json!("few"), &json!("one-00")));
    assert_eq!((&work["health"][0]["name"], &work["health"][0]["state"]), (&json!("store"), &json!("unknown")));
    assert_eq!(work["channels"], json!({"in_use": 0, "open": 0, "longest_open": []}));
}

#[tokio::test]
async fn a_view_without_parameters_refuses_any() {
    let world = World::new().await;
    let doors =
        ["/admin/work", "/admin/backlog", "/admin/tree", "/admin/liveness", "/admin/incidents", "/debug/pprof/heap"];
    for door in doors {
        let answer = get(router(state(&world, Dev::Absent)), &format!("{door}?tenant=demo")).await;
        assert_eq!(answer.status, 422, "{door}");
        assert_eq!(answer.json()["errors"][0]["field"], "tenant", "{door}");
    }
}

#[tokio::test]
async fn channels_whose_breaker_is_open_are_named_with_their_tenants_and_the_time_and_no_more_than_twenty() {
    let world = World::new().await;
    let board = world.state.channels.board();
    let tenant = |name: &str| actors::model::TenantId::new(name).unwrap();
    let fail = |name: &str, channel: Uuid| (0..100).for_each(|_| board.entry(&tenant(name), channel).failed());
    let first = Uuid::from_u128(99);
    fail("demo", first);
    let since = std::time::SystemTime::now();
    (0..25).for_each(|number| fail("other", Uuid::from_u128(number)));
    board.entry(&tenant("demo"), Uuid::from_u128(100)).succeeded();
    let channels = get(router(state(&world, Dev::Absent)), "/admin/work").await.json()["channels"].take();
    assert_eq!((&channels["in_use"], &channels["open"]), (&json!(27), &json!(26)));
    let open = channels["longest_open"].as_array().unwrap();
    assert_eq!((open.len(), &open[0]["tenant"], &open[0]["channel"]), (20, &json!("demo"), &json!(first)));
    let ms = u128::from(open[0]["open_ms"].as_u64().unwrap());
    assert!(ms <= since.elapsed().unwrap().as_millis() + 1_000, "{ms}");
    assert_eq!(open[1]["tenant"], "other");
}

#[tokio::test]
async fn the_connections_that_are_behind_and_those_that_were_closed_are_shown_of_all_tenants_or_of_one() {
    let world = World::new().await;
    let tenant = |name: &str| actors::model::TenantId::new(name).unwrap();
    let connect = |name: &str| {
        let topic = [Topic::new("news").unwrap()];
        world.state.hub.connect(tenant(name), &topic, world.state.bounds.sockets).unwrap()
    };
    let _open = [connect("few"), connect("many"), connect("many")];
    world.state.hub.revoke(&tenant("few"));
    let admin = async |path: &str| get(router(state(&world, Dev::Absent)), path).await;
    let all = admin("/admin/sockets").await.json();
    assert_eq!(all["furthest_behind"].as_array().unwrap().len(), 3);
    let closed = &all["closed"];
    assert_eq!(
        (&closed[0]["tenant"], &closed[0]["reason"], &closed[1]),
        (&json!("few"), &json!("revoked"), &json!(null))
    );
    let one = admin("/admin/sockets?tenant=many&limit=1").await.json();
    assert_eq!(one["closed"], json!([]));
    let [only] = one["furthest_behind"].as_array().unwrap().as_slice() else { panic!("{one:#}") };
    assert_eq!(
        (&only["tenant"], &only["topics"], &only["behind_ms"]),
        (&json!("many"), &json!(["news"]), &json!(null))
    );
    admin("/admin/sockets?tenant=NO%20NAME").await.problem(422);
}

#[tokio::test]
async fn who_has_the_most_jobs_and_deliveries_is_shown_of_all_tenants() {
    let world = World::new().await;
    world.post("/v1/jobs", &json!({"kind": "publish", "payload": {"topic": "a", "data": 1}})).await;
    let channel = json!({"kind": "webhook", "url": "http://127.0.0.1:9/hook"});
    let channel = world.post("/v1/channels", &channel).await.json()["id"].clone();
    world.post("/v1/notifications", &json!({"channel": channel, "text": "hi"})).await;
    let seen = get(router(state(&world, Dev::Absent)), "/admin/backlog").await.json();
    assert_eq!(seen["tenants"], json!([{"tenant": "demo", "queued": 1, "running": 0, "dead": 0}]));
    let waiting = &seen["channels"][0];
    assert_eq!((&waiting["channel"], &waiting["tenant"], &waiting["pending"]), (&channel, &json!("demo"), &json!(1)));
}

#[tokio::test]
async fn jobs_schedules_and_channels_are_shown_of_one_tenant_alone() {
    let world = World::new().await;
    let admin = async |path: &str| get(router(state(&world, Dev::Absent)), path).await;
    let job = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}});
    let made = world.post("/v1/jobs", &job).await.json();
    let schedule = json!({"kind": "publish", "payload": {"topic": "a", "data": 1}, "every_ms": 60_000});
    let schedule = world.post("/v1/schedules", &schedule).await.json();
    let jobs = admin("/admin/tenants/demo/jobs?limit=1&state=ready").await.json();
    assert_eq!((&jobs["items"][0]["id"], jobs.get("next_cursor")), (&made["id"], None));
    assert_eq!(admin("/admin/tenants/demo/jobs?state=dead").await.json()["items"], json!([]));
    let path = format!("jobs/{}/explain", made["id"].as_str().unwrap());
    let explained = admin(&format!("/admin/tenants/demo/{path}")).await.json();
    assert_eq!((&explained["id"], &explained["state"]), (&made["id"], &json!("ready")));
    assert!(!explained["reasons"].as_array().unwrap().is_empty(), "{explained}");
    for absent in ["other", "nobody"] {
        admin(&format!("/admin/tenants/{absent}/{path}")).await.problem(404);
    }
    admin("/admin/tenants/demo/jobs/seven/explain").await.problem(404);
    assert_eq!(admin("/admin/tenants/demo/schedules").await.json()["items"][0]["id"], schedule["id"]);
    let channel = json!({"kind": "webhook", "url": "http://127.0.0.1:9/hook"});
    let channel = world.post("/v1/channels", &channel).await.json();
    let shown = admin("/admin/tenants/demo/channels").await.json()["items"][0].clone();
    assert_eq!((&shown["id"], &shown["receiver"]), (&channel["id"], &json!(null)));
    assert_eq!(shown.get("secret"), None, "it was shown once");
    let demo = actors::model::TenantId::new("demo").unwrap();
    let _in_use = world.state.channels.board().entry(&demo, channel["id"].as_str().unwrap().parse().unwrap()).begin();
    let shown = admin("/admin/tenants/demo/channels").await.json()["items"][0].clone();
    assert_eq!(shown["receiver"], json!({"open": false, "in_flight": 1}));
    for what in ["jobs", "schedules", "channels"] {
        assert_eq!(admin(&format!("/admin/tenants/other/{what}")).await.json()["items"], json!([]));
        for absent in ["nobody", "NO%20NAME"] {
            admin(&format!("/admin/tenants/{absent}/{what}")).await.problem(404);
        }
        admin(&format!("/admin/tenants/demo/{what}?page=2")).await.problem(422);
    }
    admin("/admin/tenants/demo/jobs?state=asleep").await.problem(422);
    let request = Request::post("/admin/tenants/demo/jobs").body(axum::body::Body::empty()).unwrap();
    ask(router(state(&world, Dev::Absent)), request).await.problem(405);
}

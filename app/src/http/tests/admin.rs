//! The admin listener: its token, its views, and the demo of a panic on a real tree.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use secrecy::SecretString;
use serde_json::json;
use supervision::{Backoff, ChildSpec, Strategy, SupervisorSpec, Tree};
use telemetry::export::LogFilter;
use telemetry::recorder::{Recorder, RecorderSettings};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Answer, World, ask};
use crate::http::admin::{AdminState, Dev, live::Live, router};
use crate::http::auth::Gatekeeper;
use crate::parts::Reporting;

pub(super) fn state(world: &World, dev: Dev) -> AdminState {
    AdminState {
        keeper: Gatekeeper { token: None, failures: world.state.failures.clone() },
        dev,
        tree: Arc::clone(&world.state.probes.tree),
        liveness: world.state.probes.liveness.clone(),
        probes: world.state.probes.clone(),
        store: world.state.store.clone(),
        scheduler: world.state.scheduler.clone(),
        tenants: world.state.tenants.clone(),
        bounds: world.state.bounds,
        body_bytes_max: 10_000,
        body_within: world.state.limits.request,
        reporting: Reporting {
            metrics: Arc::new(|| "up 1\n".to_owned()),
            log_filter: LogFilter::new("info", Vec::new(), Handle::current()),
            recorder: Some(Recorder::new(&RecorderSettings::default())),
            runtime: Handle::current(),
        },
        hub: world.state.hub.clone(),
        board: world.state.channels.board(),
        live: Live::new(CancellationToken::new()),
    }
}

pub(super) async fn get(router: Router, path: &str) -> Answer {
    ask(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(super) async fn post(router: Router, path: &str) -> Answer {
    ask(router, Request::post(path).body(Body::empty()).unwrap()).await
}

/// A tree with one child that waits and is restarted at once.
pub(super) async fn plant(world: &World) -> Tree {
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
    let keeper = Gatekeeper { token, failures: world.state.failures.clone() };
    let state = AdminState { keeper, ..state(&world, Dev::Served) };
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
async fn without_a_token_what_a_page_in_a_browser_asks_for_is_refused() {
    let world = World::new().await;
    let tree = plant(&world).await;
    let from_page = || Request::post("/admin/tree/restart/scheduler").header("origin", "https://example.com");
    let request = from_page().body(Body::empty()).unwrap();
    let problem = ask(router(state(&world, Dev::Absent)), request).await.problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("admin.token"), "{problem}");
    assert_eq!(tree.snapshot().find("scheduler").unwrap().incarnation, 1);
    let keeper = Gatekeeper { token: Some(SecretString::from("ours")), failures: world.state.failures.clone() };
    let request = from_page().header("authorization", "Bearer ours").body(Body::empty()).unwrap();
    let answer = ask(router(AdminState { keeper, ..state(&world, Dev::Absent) }), request).await;
    assert_eq!(answer.status, 200, "no page has the token but from the operator");
    tree.stop().await;
}

/// DNS rebinding: the page's own name leads to loopback, so what it asks for is of its own origin, and bears no `Origin`.
#[tokio::test]
async fn without_a_token_only_an_address_or_localhost_is_a_host() {
    let world = World::new().await;
    let asked_at = async |state: AdminState, host: &str| {
        let request = Request::get("/admin/tenants").header("host", host).header("authorization", "Bearer ours");
        ask(router(state), request.body(Body::empty()).unwrap()).await
    };
    for good in ["127.0.0.1:8081", "127.0.0.1", "[::1]:8081", "localhost", "LocalHost:8081", "192.0.2.7:80"] {
        assert_eq!(asked_at(state(&world, Dev::Absent), good).await.status, 200, "{good}");
    }
    for bad in ["evil.example:8081", "127.0.0.1.evil.example", "localhost.evil.example", "a@127.0.0.1", ""] {
        let problem = asked_at(state(&world, Dev::Absent), bad).await.problem(403);
        assert!(problem["detail"].as_str().unwrap().contains("admin.token"), "{bad}: {problem}");
    }
    let keeper = Gatekeeper { token: Some(SecretString::from("ours")), failures: world.state.failures.clone() };
    let state = AdminState { keeper, ..state(&world, Dev::Absent) };
    assert_eq!(asked_at(state, "admin.example").await.status, 200, "no page has the token but from the operator");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408_here_too() {
    let world = World::with(&[("APP__LIMITS__REQUEST_MS", "50")]).await;
    let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>());
    let request = Request::put("/admin/log-filter").header("content-type", "application/json").body(never).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), ask(router(state(&world, Dev::Absent)), request));
    answer.await.unwrap().problem(408);
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

/// A request with a JSON body.
async fn send(router: Router, method: &str, path: &str, body: &serde_json::Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    ask(router, request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn a_tenant_is_made_looked_at_and_changed() {
    let world = World::new().await;
    let router = || router(state(&world, Dev::Absent));
    let made = send(router(), "POST", "/admin/tenants", &json!({"id": "acme"})).await;
    assert_eq!((made.status.as_u16(), made.headers["location"].to_str().unwrap()), (201, "/admin/tenants/acme"));
    assert_eq!(made.headers["cache-control"], "no-store", "it shows a key");
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("pk_") && key.len() == 67);
    let again = send(router(), "POST", "/admin/tenants", &json!({"id": "acme"})).await.problem(409);
    assert_eq!(again["detail"], "there is a tenant acme already");
    let bad = send(router(), "POST", "/admin/tenants", &json!({"id": "No Such"})).await.problem(422);
    assert_eq!(bad["errors"][0]["field"], "id");

    let shown = get(router(), "/admin/tenants/acme").await;
    assert_eq!((&shown.json()["disabled_at"], shown.json().get("key")), (&json!(null), None));
    assert!(!shown.body.contains(&key));
    let quotas = json!({"requests_per_s": 5, "sockets": 0});
    let limited = send(router(), "PUT", "/admin/tenants/acme/quotas", &quotas).await.json();
    assert_eq!((&limited["quotas"]["sockets"], &limited["in_force"]["sockets"]), (&json!(0), &json!(0)));
    assert_eq!(
        (&limited["quotas"]["requests_burst"], &limited["in_force"]["requests_burst"]),
        (&json!(null), &json!(2000))
    );
    let quotas = json!({"job_weight": 3, "jobs_queued": 0, "job_starts_per_s": 7});
    let limited = send(router(), "PUT", "/admin/tenants/acme/quotas", &quotas).await.json();
    let in_force =
        ["job_weight", "jobs_running", "jobs_queued", "job_starts_per_s", "sockets"].map(|of| &limited["in_force"][of]);
    assert_eq!(in_force, [&json!(3), &json!(16), &json!(0), &json!(7), &json!(10000)]);
    for (body, field) in [
        (json!({"requests_per_s": 0}), "requests_per_s"),
        (json!({"socket": 1}), "socket"),
        (json!({"job_weight": 1001}), "job_weight"),
    ] {
        let problem = send(router(), "PUT", "/admin/tenants/acme/quotas", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field);
    }
    assert!(post(router(), "/admin/tenants/acme/disable").await.json()["disabled_at"].is_string());
    assert_eq!(post(router(), "/admin/tenants/acme/enable").await.json()["disabled_at"], json!(null));
    let rotated = post(router(), "/admin/tenants/acme/rotate-key").await;
    assert_ne!(rotated.json()["key"], json!(key));
    assert_eq!(rotated.headers["cache-control"], "no-store", "it shows a key");
    for path in ["rotate-key", "disable", "enable"] {
        post(router(), &format!("/admin/tenants/nobody/{path}")).await.problem(404);
        post(router(), &format!("/admin/tenants/NO%20NAME/{path}")).await.problem(404);
    }
    get(router(), "/admin/tenants/nobody").await.problem(404);
}

#[tokio::test]
async fn tenants_are_listed_page_by_page_and_a_bad_page_is_named() {
    let world = World::new().await;
    let router = || router(state(&world, Dev::Absent));
    let first = get(router(), "/admin/tenants?limit=1").await.json();
    assert_eq!((&first["items"][0]["id"], first["next_cursor"].is_string()), (&json!("demo"), true));
    let next = first["next_cursor"].as_str().unwrap();
    let last = get(router(), &format!("/admin/tenants?limit=1&cursor={next}")).await.json();
    assert_eq!((&last["items"][0]["id"], last.get("next_cursor")), (&json!("other"), None));
    for bad in ["limit=0", "limit=201", "limit=many", "page=2", "cursor=demo"] {
        get(router(), &format!("/admin/tenants?{bad}")).await.problem(422);
    }
}

#[tokio::test]
async fn a_child_is_stopped_started_and_restarted_and_the_tree_says_why_not() {
    let world = World::new().await;
    let tree = plant(&world).await;
    let operate = async |what: &str| post(router(state(&world, Dev::Absent)), &format!("/admin/tree/{what}")).await;
    let running = operate("start/scheduler").await.problem(409);
    assert_eq!(running["detail"], "`scheduler`: the child is running");
    let restarted = operate("restart/scheduler").await.json();
    assert_eq!(restarted, json!({"path": "scheduler", "outcome": "started", "incarnation": 2}));
    let stopped = operate("stop/scheduler").await.json();
    assert_eq!(stopped, json!({"path": "scheduler", "outcome": "stopped", "incarnation": null}));
    assert_eq!(operate("start/scheduler").await.json()["incarnation"], 3);
    operate("stop/nobody").await.problem(404);
    operate("restart/scheduler/nobody").await.problem(404);
    let ourselves = operate("restart/admin").await.problem(409);
    assert_eq!(ourselves["detail"], "`admin` answers this request, and cannot end before it");
    tree.stop().await;
}

#[tokio::test]
async fn the_log_filter_is_changed_for_a_while_and_a_bad_one_is_refused_with_its_reason() {
    let world = World::new().await;
    let state = state(&world, Dev::Absent);
    let router = || router(state.clone());
    let path = "/admin/log-filter";
    let configured = json!({"filter": "info", "configured": "info", "reverts_in_ms": null});
    assert_eq!(get(router(), path).await.json(), configured);
    let changed = send(router(), "PUT", path, &json!({"filter": "debug"})).await.json();
    assert_eq!((&changed["filter"], &changed["configured"]), (&json!("debug"), &json!("info")));
    assert!((500_000..=600_000).contains(&changed["reverts_in_ms"].as_u64().unwrap()), "{changed}");
    let bad = [
        (json!({"filter": "info,x=loud"}), "filter"),
        (json!({"filter": " "}), "filter"),
        (json!({"filter": "info", "for_ms": 0}), "for_ms"),
        (json!({"filter": "info", "for_ms": 86_400_001}), "for_ms"),
    ];
    for (body, field) in bad {
        let problem = send(router(), "PUT", path, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(get(router(), path).await.json()["filter"], "debug");
    let reverted = ask(router(), Request::delete(path).body(Body::empty()).unwrap()).await.json();
    assert_eq!(reverted, configured);
}

#[tokio::test]
async fn a_bad_question_about_traces_is_answered_with_every_fault() {
    let world = World::new().await;
    let router = || router(state(&world, Dev::Absent));
    let bad = [
        ("/admin/traces?errors=yes&min_ms=-1&since_ms=now&limit=0&cursor=x&page=2", 6),
        ("/admin/traces?name=a&name=b", 1),
        ("/admin/spans/open?limit=5001", 1),
        ("/admin/logs?trace_id=xyz&level=loud&limit=many", 3),
        ("/debug/tasks?limit=0&page=1", 2),
    ];
    for (path, faults) in bad {
        let problem = get(router(), path).await.problem(422);
        assert_eq!(problem["errors"].as_array().unwrap().len(), faults, "{path}: {problem}");
    }
    for id in ["0af7651916cd43dd8448eb211c80319c", "short", "0AF7651916CD43DD8448EB211C80319C"] {
        get(router(), &format!("/admin/traces/{id}")).await.problem(404);
        get(router(), &format!("/admin/traces/{id}/otlp")).await.problem(404);
    }
}

#[tokio::test]
async fn where_nothing_is_recorded_the_views_say_so_and_tasks_are_shown_all_the_same() {
    let world = World::new().await;
    let mut state = state(&world, Dev::Absent);
    state.reporting.recorder = None;
    for path in ["/admin/traces", "/admin/traces/x", "/admin/spans/open", "/admin/logs"] {
        let problem = get(router(state.clone()), path).await.problem(404);
        assert!(problem["detail"].as_str().unwrap().contains("telemetry.recorder.enabled"), "{path}: {problem}");
    }
    assert_eq!(get(router(state.clone()), "/debug/tasks").await.json()["open_spans"], json!([]));
}

#[tokio::test]
async fn tasks_are_shown_by_the_child_that_started_them() {
    let world = World::new().await;
    let child = ChildSpec::task("api", |context| async move {
        for _ in 0..3 {
            context.tasks().spawn("socket", std::future::pending());
        }
        context.ready();
        context.cancelled().cancelled().await;
        Ok(())
    });
    let spec = SupervisorSpec::new("root", Strategy::OneForOne).child(child.start_when_ready());
    let tree = Tree::start(spec, world.heartbeats.clone()).await.unwrap();
    assert!(world.state.probes.tree.set(tree.clone()).is_ok());
    let shown = get(router(state(&world, Dev::Absent)), "/debug/tasks").await.json();
    assert_eq!(shown["tasks"], json!([{"path": "api", "name": "socket", "count": 3}]));
    assert!(shown["runtime"]["alive_tasks"].as_u64().unwrap() >= 4, "{shown}");
    assert_eq!(shown["runtime"]["workers"].as_array().unwrap().len(), 1);
    tree.stop().await;
}

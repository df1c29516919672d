//! Requests that can be read and must be refused: with a problem document of the right status, and nothing stored.

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::{Service, Socket};

use super::{is_a_problem, nothing_is_stored, post_text};

#[tokio::test]
async fn what_is_not_json_is_400_with_the_place_of_the_fault() {
    let service = Service::start().await;
    for body in [
        "",
        "{",
        "{\"kind\":",
        "nonsense",
        "{\"kind\":\"publish\",}",
        "\u{0}",
        "{\"kind\":\"publish\",\"payload\":{\"topic\":\"t\",\"data\":1}} x",
    ] {
        let answer = post_text(&service, "/v1/jobs", "application/json", body).await;
        is_a_problem(&answer, 400, body);
        assert!(answer.json()["detail"].as_str().unwrap().contains("line 1"), "{}", answer.body);
    }
    is_a_problem(&post_text(&service, "/v1/jobs", "application/json", vec![0xff, 0xfe]).await, 400, "no UTF-8");
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn wrong_types_missing_and_foreign_keys_are_422_and_name_the_field() {
    let service = Service::start().await;
    let good = json!({"topic": "t", "data": 1});
    let cases = [
        ("/v1/jobs", json!([]), ""),
        ("/v1/jobs", json!({}), "kind"),
        ("/v1/jobs", json!({"kind": "publish"}), "payload"),
        ("/v1/jobs", json!({"payload": good}), "kind"),
        ("/v1/jobs", json!({"kind": 7, "payload": good}), "kind"),
        ("/v1/jobs", json!({"kind": "dance", "payload": good}), "kind"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "colour": "red"}), "colour"),
        ("/v1/jobs", json!({"kind": "publish", "payload": "t"}), "payload"),
        ("/v1/jobs", json!({"kind": "publish", "payload": {"data": 1}}), "topic"),
        ("/v1/jobs", json!({"kind": "publish", "payload": {"topic": "", "data": 1}}), "topic"),
        ("/v1/jobs", json!({"kind": "publish", "payload": {"topic": "t", "data": 1, "extra": 1}}), "extra"),
        ("/v1/jobs", json!({"kind": "notify", "payload": {"channel": "no-id", "data": 1}}), "channel"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "run_at": "tomorrow"}), "run_at"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "run_at": 5}), "run_at"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "max_attempts": 0}), "max_attempts"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "max_attempts": -1}), "max_attempts"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "priority": "high"}), "priority"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "queue": ""}), "queue"),
        ("/v1/jobs", json!({"kind": "publish", "payload": good, "timeout_ms": 0}), "timeout_ms"),
        ("/v1/schedules", json!({"kind": "publish", "payload": good}), "every_ms"),
        ("/v1/schedules", json!({"kind": "publish", "payload": good, "every_ms": 0}), "every_ms"),
        ("/v1/schedules", json!({"kind": "publish", "payload": good, "cron": "at noon"}), "cron"),
        ("/v1/schedules", json!({"kind": "publish", "payload": good, "cron": "0 0 30 2 *"}), "cron"),
        ("/v1/channels", json!({"kind": "webhook"}), "url"),
        ("/v1/channels", json!({"kind": "webhook", "url": "not a url"}), "url"),
        ("/v1/channels", json!({"kind": "webhook", "url": "ftp://example.com"}), "url"),
        ("/v1/channels", json!({"kind": "pigeon", "url": "https://example.com"}), "kind"),
    ];
    for (path, body, field) in cases {
        let answer = service.api().post(path, &body).await;
        is_a_problem(&answer, 422, &format!("{path} {body}"));
        assert!(answer.json()["errors"].to_string().contains(field), "{path} {body}: {}", answer.body);
    }
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn a_body_above_the_limit_is_413_announced_or_not() {
    let service = Service::setup().set("limits.body_bytes", 10_000).start().await;
    let huge = format!(r#"{{"kind":"publish","payload":{{"topic":"t","data":"{}"}}}}"#, "x".repeat(20_000));
    is_a_problem(&post_text(&service, "/v1/jobs", "application/json", huge.clone()).await, 413, "announced");
    let chunks =
        huge.into_bytes().chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    is_a_problem(&post_text(&service, "/v1/jobs", "application/json", chunked).await, 413, "in chunks");
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn another_content_type_is_415() {
    let service = Service::start().await;
    let body = r#"{"kind":"publish","payload":{"topic":"t","data":1}}"#;
    for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
        is_a_problem(&post_text(&service, "/v1/jobs", content_type, body).await, 415, content_type);
    }
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn unknown_routes_are_404_and_wrong_methods_405_with_the_right_ones() {
    let service = Service::start().await;
    for path in
        ["/", "/v1", "/v1/job", "/v1/jobs/", "/v1/jobs/a/b", "/admin/tree", "/metrics", "/../etc/passwd", "/%00"]
    {
        is_a_problem(&service.api().get(path).await, 404, path);
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/jobs", "POST"),
        (Method::PUT, "/v1/schedules", "POST"),
        (Method::POST, "/v1/jobs/some", "GET"),
        (Method::PATCH, "/v1/channels", "POST"),
    ] {
        let answer = send(service.api().request(method, path)).await;
        is_a_problem(&answer, 405, path);
        assert!(answer.header("allow").contains(allowed), "{path}: {:?}", answer.headers);
    }
    let admin = service.admin().get("/nothing").await;
    is_a_problem(&admin, 404, "on the admin listener");
    is_a_problem(&service.admin().get("/dev/panic/scheduler").await, 405, "GET breaks nothing");
}

#[tokio::test]
async fn ids_that_are_none_or_nobodys_are_404() {
    let service = Service::start().await;
    for id in ["none", "0", "0190a7a0-0000-7000-8000-000000000000", "%27%20OR%201=1"] {
        for resource in ["jobs", "schedules", "channels"] {
            is_a_problem(&service.api().get(&format!("/v1/{resource}/{id}")).await, 404, id);
        }
        is_a_problem(&service.admin().get(&format!("/admin/incidents/{id}")).await, 404, id);
    }
}

#[tokio::test]
async fn without_a_right_key_everything_is_401_and_says_how_to_get_in() {
    let service = Service::start().await;
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    let strangers = [service.api().without_key(), service.api().with_key("pk_wrong"), service.api().with_key("")];
    for stranger in strangers {
        for answer in [stranger.post("/v1/jobs", &body).await, stranger.get("/v1/jobs/none").await] {
            is_a_problem(&answer, 401, "a stranger");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
        }
        assert_eq!(Socket::try_open(&stranger, &["t"]).await.err(), Some(401));
    }
    let basic = service.api().without_key().request(Method::GET, "/v1/jobs/none").header("authorization", "Basic eDp5");
    is_a_problem(&send(basic).await, 401, "another scheme");
    nothing_is_stored(&service).await;
}

#[tokio::test]
async fn an_admin_token_guards_all_but_the_probes() {
    let token = "a-long-secret-of-our-own";
    let service = Service::setup().set("admin.token", token).start().await;
    for path in ["/metrics", "/admin/tree", "/admin/liveness", "/admin/incidents"] {
        is_a_problem(&service.admin().get(path).await, 401, path);
        assert_eq!(service.admin().with_key(token).get(path).await.status, 200, "{path}");
    }
    is_a_problem(&service.admin().post("/dev/panic/scheduler", &Value::Null).await, 401, "a stranger's panic");
    for probe in ["/startupz", "/readyz", "/healthz"] {
        assert_eq!(service.admin().get(probe).await.status, 200, "{probe}");
    }
}

#[tokio::test]
async fn nothing_of_all_this_is_a_panic_or_an_error() {
    let service = Service::start().await;
    for body in ["", "{", "[]", "{\"kind\":\"publish\"}", "\u{0}"] {
        post_text(&service, "/v1/jobs", "application/json", body).await;
    }
    let panics = service.metrics().await.value("panic_recovered_total", &[]);
    assert_eq!(panics, Some(0.0));
    let errors: Vec<_> = service.process().stderr().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "a client's mistake is no error of ours: {errors:#?}");
}

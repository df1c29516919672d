//! The document and the routes are one: what is documented is served, and nothing else.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use actors::broadcast::TOPIC_MAX;
use actors::jobs::CHANNELS_MAX;

use super::World;
use crate::http::events::BATCH_MAX;

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "patch", "trace"];

const UNKNOWN: &str = "018f0000-0000-7000-8000-000000000000";

async fn document(world: &World) -> Value {
    let answer = world.send(Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    answer.json()
}

fn filled(path: &str) -> String {
    path.replace("{id}", UNKNOWN).replace("{delivery}", UNKNOWN).replace("{file}", "start.js")
}

#[tokio::test]
async fn each_documented_method_is_served_and_no_other() {
    let world = World::new().await;
    let document = document(&world).await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/v1/jobs") && paths.contains_key("/readyz") && paths.contains_key("/docs/{file}"));
    for (path, item) in paths {
        for method in METHODS {
            let request = world.authorized(&method.to_uppercase(), &filled(path)).body(Body::empty()).unwrap();
            let answer = world.send(request).await;
            let documented = item.get(method).is_some();
            assert_eq!(answer.status != 405, documented, "{method} {path}: {}", answer.status);
            // A 404 must be about the thing, not about the path.
            assert!(!answer.body.contains("nothing is served at this path"), "{method} {path}");
        }
    }
}

/// The only way to add a route is `routes!`, which puts it into the document, too. Tests and the admin listener aside.
#[test]
fn no_route_of_the_api_is_added_past_the_document() {
    let mut looked_at = 0;
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src/http").into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            match path.is_dir() {
                _ if name == "tests" || name == "admin" => {}
                true => folders.push(path),
                false => {
                    looked_at += 1;
                    adds_no_route(&path);
                }
            }
        }
    }
    assert!(looked_at > 15, "only {looked_at} files");
}

fn adds_no_route(path: &std::path::Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    for past in [".route(", ".route_service(", ".nest_service(", ".fallback("] {
        assert!(!code.contains(past), "{} has {past}", path.display());
    }
}

#[tokio::test]
async fn operations_have_names_of_their_own_and_a_key_unless_they_are_open() {
    let world = World::new().await;
    let document = document(&world).await;
    let mut names = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                names.insert(operation["operationId"].to_string()),
                "{method} {path}: {}",
                operation["operationId"]
            );
            let open = serde_json::json!([{}]) == operation["security"];
            assert_eq!(open, !path.starts_with("/v1/"), "{method} {path}: {}", operation["security"]);
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn each_time_is_documented_as_one() {
    let world = World::new().await;
    let document = document(&world).await;
    let mut times = 0;
    for (schema, shape) in document["components"]["schemas"].as_object().unwrap() {
        for (field, of_field) in shape["properties"].as_object().into_iter().flatten() {
            let is_time =
                field.ends_with("_at") || ["at", "not_before", "failing_since", "from", "to"].contains(&&**field);
            assert_eq!(of_field["format"] == "date-time", is_time, "{schema}.{field}: {of_field}");
            times += usize::from(is_time);
        }
    }
    assert!(times > 10, "only {times} times");
}

#[tokio::test]
async fn what_is_bounded_is_documented_with_its_bounds() {
    let world = World::new().await;
    let schemas = document(&world).await["components"]["schemas"].take();
    for body in ["PublishBody", "NewEvent"] {
        let topic = &schemas[body]["properties"]["topic"];
        let bounds = [&topic["minLength"], &topic["maxLength"], &topic["pattern"]];
        assert_eq!(bounds, [&json!(1), &json!(TOPIC_MAX), &json!("^[a-zA-Z0-9_.:/-]+$")], "{body}: {topic}");
    }
    for (body, field, most) in [("PublishBody", "events", BATCH_MAX), ("NotificationBody", "channels", CHANNELS_MAX)] {
        let list = &schemas[body]["properties"][field];
        assert_eq!([&list["minItems"], &list["maxItems"]], [&json!(1), &json!(most)], "{list}");
    }
}

#[tokio::test]
async fn the_page_needs_no_key_and_fetches_nothing_from_outside() {
    let world = World::new().await;
    let page = world.send(Request::get("/docs").body(Body::empty()).unwrap()).await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'; "));
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    let slash = world.send(Request::get("/docs/").body(Body::empty()).unwrap()).await;
    assert_eq!((slash.status.as_u16(), &slash.headers["location"]), (308, &"/docs".parse().unwrap()));
    assert!(!page.body.contains("//") && !page.body.contains("<script>"), "{}", page.body);
    let links = page.body.split('"').filter(|part| part.starts_with("/docs/"));
    let links: Vec<_> = links.collect();
    assert_eq!(links.len(), 4, "{links:?}");
    for link in links {
        let request = Request::get(link).body(Body::empty()).unwrap();
        let (parts, _) = tower::ServiceExt::oneshot(world.router(), request).await.unwrap().into_parts();
        assert_eq!(parts.status, 200, "{link}");
    }
    world.send(Request::get("/docs/index.html").body(Body::empty()).unwrap()).await.problem(404);
}

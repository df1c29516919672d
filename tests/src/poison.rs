//! The admin listener of a service with hostile texts in all its answers, for a page that must show them as they are.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use crate::Service;

/// What must be shown as it is, wherever it comes from.
pub const HOSTILE: &str = "<img src=x onerror=\"document.documentElement.dataset.ran=1\"><script>document.documentElement.dataset.ran=1</script>";

/// The answers of the service, with every text in them that could have come from anybody replaced by a hostile one.
fn poisoned(answer: Value, key: &str) -> Value {
    // What the service itself says, and by what things are found.
    const OWN: &str = "id status kind state level code at path trace_id span_id parent_span_id cause ring in actor";
    match answer {
        Value::String(text) if OWN.split(' ').any(|own| own == key) || text.is_empty() => Value::String(text),
        // So that it is still a backtrace.
        Value::String(_) if key == "backtrace" => format!("   0: {HOSTILE}\n             at {HOSTILE}\n").into(),
        Value::String(_) => HOSTILE.into(),
        Value::Array(items) => items.into_iter().map(|item| poisoned(item, key)).collect(),
        Value::Object(fields) => {
            let extra = (key == "attributes").then(|| (HOSTILE.to_owned(), HOSTILE.into()));
            let fields = fields.into_iter().map(|(key, value)| (key.clone(), poisoned(value, &key)));
            fields.chain(extra).collect()
        }
        other => other,
    }
}

/// The admin listener of a service, with every answer poisoned. The page itself is passed on as it is.
pub async fn double(service: &Service) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(service.admin().base().to_owned());
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The first of a stream, which may come in several pieces.
async fn event(pieces: impl Stream<Item = reqwest::Result<Bytes>>) -> String {
    let (mut pieces, mut bytes) = (std::pin::pin!(pieces), Vec::new());
    while !bytes.ends_with(b"\n\n") {
        bytes.extend(pieces.next().await.unwrap().unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

async fn answer(State(base): State<String>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    let given = reqwest::get(format!("{base}{path}")).await.unwrap();
    let (status, headers) = (given.status(), given.headers().clone());
    if path == "/admin/live" {
        let first = event(given.bytes_stream()).await;
        let seen = serde_json::from_str(first.strip_prefix("event: seen\ndata: ").unwrap()).unwrap();
        let event = format!("event: seen\ndata: {}\n\n", poisoned(seen, ""));
        let stays_open = futures_util::stream::once(async { Ok::<_, std::io::Error>(event) });
        return Body::from_stream(stays_open.chain(futures_util::stream::pending())).into_response();
    }
    let body = given.bytes().await.unwrap();
    if !["/admin", "/debug"].iter().any(|answers| path.starts_with(answers)) {
        let mut response = (status, body).into_response();
        *response.headers_mut() = headers;
        return response;
    }
    (status, axum::Json(poisoned(serde_json::from_slice(&body).unwrap(), ""))).into_response()
}

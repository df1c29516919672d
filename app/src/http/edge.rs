//! The edge of a listener, around every request: its id, its span, its metrics, its panics, and the shape of its
//! errors.
//!
//! The span is a server span by the semantic conventions of OpenTelemetry, named after method and route, never after
//! the path: a path has ids in it. Probes and `/metrics` have no span and no metrics; they would drown the rest.

use std::future::Future;

use actors::model::TenantId;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use supervision::{GuardSite, guard};
use telemetry::context::{REQUEST_ID, RequestId, TraceContext};
use telemetry::metrics::Method;
use telemetry::panic::Policy;
use tokio::time::Instant;
use tracing::Span;

use super::allowance::{RATE_LIMIT, RATE_LIMIT_POLICY};
use super::problem::Problem;
use super::serve::Peer;

telemetry::declare_spans! {
    /// One request of a client: a child of the client's own span if it sent one, else a root. Probes have none.
    pub(super) struct RequestSpan<'a> = ("{http.request.method} {http.route}" as "request", server, child) {
        #[name = "otel.name"]
        name: &'a str,
        #[name = "http.request.method"]
        method: &'a str,
        #[name = "http.route"]
        route: Option<&'a str>,
        #[name = "url.path"]
        path: &'a str,
        #[name = "url.scheme"]
        scheme: &'a str,
        #[name = "network.protocol.version"]
        version: &'a str,
        #[name = "client.address"]
        peer: Option<&'a str>,
        #[name = "user_agent.original"]
        agent: Option<&'a str>,
    } later {
        #[name = "http.response.status_code"]
        status: i64,
        #[name = "error.type"]
        error: &str,
        tenant: &str,
        #[name = "otel.status_code"]
        end: &str,
    }
}

telemetry::labels! {
    /// Requests of one method.
    pub struct OfMethod {
        #[name = "http.request.method"]
        method: Method,
    }
    /// A request that was answered. One that no route fits has the route `none`.
    pub struct Answered<'a> {
        #[name = "http.request.method"]
        method: Method,
        #[name = "http.route"]
        route: &'a str,
        #[name = "http.response.status_code"]
        status: &'a str,
    }
}

telemetry::declare_metrics! {
    /// Time to answer a request, by method, route and status.
    pub static DURATION: Histogram<Answered> = ("http.server.request.duration", "s",
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]);
    /// Requests that are being answered now.
    pub static ACTIVE: UpDownCounter<OfMethod> = ("http.server.active_requests", "{request}");
}

/// The trace of the request, out: the shortest way from a failing call to its trace.
pub const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// The middleware; `component` is the child of the root that owns the listener.
pub async fn edge(State(component): State<&'static str>, mut request: Request, next: Next) -> Response {
    let context = telemetry::context::extract(request.headers());
    let id = context.request_id().cloned().unwrap_or_else(RequestId::make);
    let context = context.with_request_id(Some(id.clone()));
    request.extensions_mut().insert(id.clone());
    let quiet = request.extensions().get::<MatchedPath>().filter(|path| is_quiet(path.as_str())).cloned();
    let response = if let Some(route) = quiet {
        Guarded { component, tenant: None, id: &id, route: route.as_str() }.run(next.run(request)).await
    } else {
        traced(component, &id, context, request, next).await
    };
    with_id(as_problem(response, &id), &id)
}

/// The answer to a request that comes no further than its head.
pub(super) fn refused(headers: &HeaderMap, problem: &Problem) -> Response {
    let id = telemetry::context::extract(headers).request_id().cloned().unwrap_or_else(RequestId::make);
    with_id(problem.write(id.as_str()), &id)
}

fn with_id(mut response: Response, id: &RequestId) -> Response {
    // An id is always a header's value.
    if let Ok(id) = HeaderValue::try_from(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// What is asked for again and again, and changes nothing. Whoever watches the traces must not fill them.
fn is_quiet(route: &str) -> bool {
    let probe = matches!(route, "/startupz" | "/readyz" | "/healthz" | "/metrics");
    let views = [
        "/admin/tree",
        "/admin/live",
        "/admin/liveness",
        "/admin/work",
        "/admin/sockets",
        "/admin/backlog",
        "/admin/spans/open",
        "/admin/logs",
    ];
    let families = ["/admin/traces", "/admin/incidents", "/debug", "/console"];
    probe || views.contains(&route) || families.iter().any(|family| route.starts_with(family))
}

async fn traced(
    component: &'static str,
    id: &RequestId,
    parent: TraceContext,
    request: Request,
    next: Next,
) -> Response {
    let method = Method::from(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = server_span(&request, method, route.as_deref());
    let label = route.clone().unwrap_or_else(|| "none".to_owned());
    let answering = Answering::start(method, label.clone());
    let future = async {
        let response = Guarded { component, tenant: None, id, route: &label }.run(next.run(request)).await;
        finish(&Span::current(), response)
    };
    let response = telemetry::context::as_child(span, &parent, future).await;
    answering.end(response.status());
    response
}

fn server_span(request: &Request, method: Method, route: Option<&str>) -> Span {
    let name = span_name(method, route);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
    let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let span = RequestSpan {
        name: &name,
        method: method.as_str(),
        route,
        path: request.uri().path(),
        scheme: "http",
        version: protocol_version(request.version()),
        peer: peer.as_deref(),
        agent,
    };
    span.open()
}

fn span_name(method: Method, route: Option<&str>) -> String {
    let method = method.in_name();
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// Only a server's own fault makes a span an error; a client's mistake is an answer like any other.
fn finish(span: &Span, mut response: Response) -> Response {
    let status = response.status();
    tracing::debug!(status = i64::from(status.as_u16()), "answered");
    RequestSpan::status(span, status.as_u16().into());
    let recorded = response.extensions().get::<Problem>().is_some_and(Problem::is_panic);
    if status.is_server_error() && !recorded {
        RequestSpan::end(span, "ERROR");
        RequestSpan::error(span, status.as_str());
    }
    let trace = TraceContext::current().trace_id().and_then(|id| HeaderValue::try_from(id).ok());
    if let Some(trace) = trace {
        response.headers_mut().insert(TRACE_ID, trace);
    }
    response
}

/// Runs a handler of `tenant`, which costs this request only if it panics. The edge catches the rest, but does not know
/// whose it was.
pub async fn guarded_for(tenant: &TenantId, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    match request.extensions().get::<RequestId>().cloned() {
        Some(id) => {
            let caller = Guarded { component: "api", tenant: Some(tenant.as_str()), id: &id, route: &route };
            caller.run(next.run(request)).await
        }
        None => next.run(request).await,
    }
}

/// Whose panic it would be.
struct Guarded<'a> {
    component: &'a str,
    tenant: Option<&'a str>,
    id: &'a RequestId,
    route: &'a str,
}

impl Guarded<'_> {
    async fn run(self, future: impl Future<Output = Response>) -> Response {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let site = GuardSite {
            component: self.component,
            actor: self.component,
            policy: Policy::KeepRunning,
            phase: "request",
            tenant: self.tenant,
            detail: vec![text("route", self.route), text("request_id", self.id.as_str())],
        };
        guard(site, future).await.unwrap_or_else(|panicked| {
            panicked.outcome("the request was answered 500");
            Problem::from(panicked).into_response()
        })
    }
}

/// Every error leaves as a problem document, but for the probes, whose JSON says more.
fn as_problem(response: Response, id: &RequestId) -> Response {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes() == b"application/json");
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    match response.extensions().get::<Problem>() {
        Some(problem) => problem.clone().write(id.as_str()).with_headers_of(response),
        None if is_error && !is_json => Problem::of_answer(&response).write(id.as_str()).with_headers_of(response),
        None => response,
    }
}

/// Keeps what the inner layers have added.
trait WithHeadersOf {
    fn with_headers_of(self, other: Response<Body>) -> Self;
}

impl WithHeadersOf for Response {
    fn with_headers_of(mut self, other: Response<Body>) -> Self {
        for name in [TRACE_ID, RATE_LIMIT, RATE_LIMIT_POLICY] {
            if let Some(value) = other.headers().get(&name) {
                self.headers_mut().insert(name, value.clone());
            }
        }
        self
    }
}

/// One request in the metrics, also when its client goes away and the future is dropped.
struct Answering {
    method: Method,
    route: String,
    began: Instant,
}

impl Answering {
    fn start(method: Method, route: String) -> Self {
        ACTIVE.add(1, OfMethod { method });
        Self { method, route, began: Instant::now() }
    }

    fn end(self, status: StatusCode) {
        let labels = Answered { method: self.method, route: &self.route, status: status.as_str() };
        DURATION.record(self.began.elapsed().as_secs_f64(), labels);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        ACTIVE.add(-1, OfMethod { method: self.method });
    }
}

fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::get};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    fn router() -> Router {
        Router::new()
            .route("/ok", get(|| async { "ok" }))
            .route("/panic", get(|| async { panic!("oh") as () }))
            .route("/readyz", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, axum::Json("details")) }))
            .layer(middleware::from_fn_with_state("api", edge))
    }

    async fn ask(method: &str, path: &str, id: &str) -> (Response<()>, String) {
        let request = Request::builder().method(method).uri(path).header(REQUEST_ID, id).body(Body::empty()).unwrap();
        let (parts, body) = router().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        (Response::from_parts(parts, ()), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_the_router_refuses_is_a_problem_with_the_request_id() {
        for (method, path, status) in [("GET", "/nowhere", 404), ("POST", "/ok", 405)] {
            let (response, body) = ask(method, path, "r-1").await;
            let document: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((response.status().as_u16(), &document["instance"]), (status, &Value::from("r-1")));
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
        assert_eq!(ask("POST", "/ok", "r-1").await.0.headers()["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn a_panicking_handler_is_a_500_that_names_its_incident() {
        let (response, body) = ask("GET", "/panic", "r-2").await;
        assert_eq!(response.status(), 500);
        let incidents = telemetry::incidents::recent(100);
        let ours = incidents.iter().find(|each| each.detail.contains(&("request_id".into(), "r-2".into()))).unwrap();
        assert!(body.contains(&ours.id.to_string()) && !body.contains("oh\""), "{body}");
        assert_eq!((ours.component.as_str(), ours.policy), ("api", "keep_running"));
    }

    #[test]
    fn a_span_is_named_after_a_known_method_and_the_route() {
        let name = |method: &str, route| span_name(Method::from(&method.parse::<http::Method>().unwrap()), route);
        assert_eq!(name("GET", Some("/v1/jobs/{id}")), "GET /v1/jobs/{id}");
        assert_eq!([name("GET", None), name("BREW", None)], ["GET", "HTTP"]);
        assert_eq!(name("BREW", Some("/v1/jobs")), "HTTP /v1/jobs");
    }

    #[tokio::test]
    async fn the_json_of_a_probe_is_left_alone() {
        assert_eq!(ask("GET", "/readyz", "r").await.1, "\"details\"");
    }
}

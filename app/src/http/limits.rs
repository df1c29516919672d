//! What all requests together, and each by itself, may take. What one tenant may take stands in `allowance.rs`.
//!
//! A caller may ask for less time than ours (`X-Request-Timeout-Ms`). What is in force is the request's deadline: the store
//! and outbound calls below see it ([`telemetry::context::deadline`]) and take less, so that the reason still gets out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use telemetry::context::{requested_timeout, with_deadline};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::lifecycle::Lifecycle;
use super::problem::Problem;
use crate::settings::WhileDraining;

telemetry::labels! {
    /// Which limit it was.
    pub struct Limited { reason: Limit }
}

telemetry::label_values! {
    /// The limits that a request may meet.
    pub enum Limit {
        Concurrency = "concurrency",
        Timeout = "timeout",
        Draining = "draining",
        AuthFailures = "auth_failures",
        TenantRate = "tenant_rate",
        TenantConcurrency = "tenant_concurrency",
        TenantJobsQueued = "tenant_jobs_queued",
        ChannelPending = "channel_pending",
    }
}

telemetry::declare_metrics! {
    /// Requests that were not answered as asked because of a limit, by reason.
    pub static LIMITED: Counter<Limited> = ("http.server.limited", "{request}");
}

/// When to come again after a 503 for want of a free place, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// The limits of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    places: Arc<Semaphore>,
    request: Duration,
    lifecycle: Arc<Lifecycle>,
    while_draining: WhileDraining,
}

impl Gate {
    /// At most `concurrency` requests at once, each for at most `request`; while the process drains as it is told.
    pub fn new(
        concurrency: usize,
        request: Duration,
        lifecycle: Arc<Lifecycle>,
        while_draining: WhileDraining,
    ) -> Self {
        Limit::ALL.into_iter().for_each(|reason| LIMITED.born(Limited { reason }));
        let places = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
        Self { places, request, lifecycle, while_draining }
    }
}

/// The outer middleware: whether a request is served at all, and how long it may take.
pub async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if gate.while_draining == WhileDraining::Refuse && gate.lifecycle.is_draining() {
        LIMITED.add(1, Limited { reason: Limit::Draining });
        return Problem::unavailable("the process is stopping, try again", RETRY_AFTER_S).into_response();
    }
    let limit = match requested_timeout(request.headers()) {
        Ok(asked) => asked.map_or(gate.request, |asked| asked.min(gate.request)),
        Err(bad) => return Problem::new(StatusCode::BAD_REQUEST, bad.to_string()).into_response(),
    };
    let deadline = Instant::now() + limit;
    match tokio::time::timeout_at(deadline, with_deadline(deadline, next.run(request))).await {
        Ok(response) => response,
        Err(_) => {
            LIMITED.add(1, Limited { reason: Limit::Timeout });
            let detail = format!("the request was not complete and answered within {} ms", limit.as_millis());
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }
    }
}

/// The inner middleware, behind what each tenant may have. Nobody waits for a place: a queue would only make the answer
/// later, not the service faster.
pub async fn place(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let Ok(_place) = gate.places.try_acquire() else {
        LIMITED.add(1, Limited { reason: Limit::Concurrency });
        return Problem::unavailable("too many requests at once, try again", RETRY_AFTER_S).into_response();
    };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use telemetry::context::REQUEST_TIMEOUT;
    use tower::ServiceExt;

    use super::*;

    fn router(concurrency: usize) -> Router {
        let limit = limit(concurrency, WhileDraining::Serve, Arc::default());
        Router::new()
            .route("/slow", get(std::future::pending::<()>))
            .route("/quick", get(|| async {}))
            .layer(middleware::from_fn_with_state(limit.clone(), place))
            .layer(middleware::from_fn_with_state(limit, gate))
    }

    fn limit(concurrency: usize, while_draining: WhileDraining, lifecycle: Arc<Lifecycle>) -> Gate {
        Gate::new(concurrency, Duration::from_secs(10), lifecycle, while_draining)
    }

    async fn ask(router: &Router, path: &str) -> Response {
        router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn ask_within(router: &Router, path: &str, ms: &str) -> Response {
        let request = Request::get(path).header(REQUEST_TIMEOUT, ms).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_ask_for_less_time_than_ours_and_never_for_more() {
        let router = router(1);
        for (asked, given_ms) in [("250", 250), ("10000", 10_000), ("99999999", 10_000)] {
            let began = Instant::now();
            let answer = ask_within(&router, "/slow", asked).await;
            assert_eq!(
                (answer.status(), began.elapsed().as_millis()),
                (StatusCode::REQUEST_TIMEOUT, given_ms),
                "{asked}"
            );
        }
        assert_eq!(ask_within(&router, "/quick", "250").await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_below_sees_the_deadline() {
        let left = get(|| async { telemetry::context::remaining().unwrap().as_millis().to_string() });
        let gated = middleware::from_fn_with_state(limit(1, WhileDraining::Serve, Arc::default()), gate);
        let router = Router::new().route("/left", left).layer(gated);
        for (answer, expected) in
            [(ask_within(&router, "/left", "250").await, "250"), (ask(&router, "/left").await, "10000")]
        {
            assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_time_that_cannot_be_read_is_400_and_names_the_header() {
        let answer = ask_within(&router(1), "/quick", "soon").await;
        assert_eq!(answer.status(), 400);
        assert!(answer.extensions().get::<Problem>().unwrap().detail().contains("x-request-timeout-ms"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_408_and_its_place_is_free_again() {
        let router = router(1);
        assert_eq!(ask(&router, "/slow").await.status(), 408);
        assert_eq!(ask(&router, "/quick").await.status(), 200);
    }

    #[tokio::test]
    async fn while_draining_requests_are_served_or_refused_as_the_setting_says() {
        for (rule, expected) in [(WhileDraining::Serve, 200), (WhileDraining::Refuse, 503)] {
            let lifecycle = Arc::new(Lifecycle::default());
            let gated = middleware::from_fn_with_state(limit(1, rule, Arc::clone(&lifecycle)), gate);
            let router = Router::new().route("/quick", get(|| async {})).layer(gated);
            assert_eq!(ask(&router, "/quick").await.status(), 200);
            lifecycle.drain();
            assert_eq!(ask(&router, "/quick").await.status(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_too_many_is_503_at_once() {
        let router = router(1);
        let (slow, refused) = tokio::join!(ask(&router, "/slow"), async {
            tokio::task::yield_now().await;
            ask(&router, "/quick").await
        });
        assert_eq!((slow.status(), refused.status()), (StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE));
    }
}

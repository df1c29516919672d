//! What all requests together, and each by itself, may take.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tokio::sync::Semaphore;

use super::lifecycle::Lifecycle;
use super::problem::Problem;
use crate::settings::WhileDraining;

telemetry::declare_metrics! {
    /// Requests that were not answered as asked because of a limit, by reason.
    pub static LIMITED: Counter = ("http.server.limited", "{request}");
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
        ["concurrency", "timeout", "draining"].iter().for_each(|reason| LIMITED.born(&[("reason", reason)]));
        let places = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
        Self { places, request, lifecycle, while_draining }
    }
}

/// The middleware. Nobody waits for a place: a queue would only make the answer later, not the service faster.
pub async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if gate.while_draining == WhileDraining::Refuse && gate.lifecycle.is_draining() {
        LIMITED.add(1, &[("reason", "draining")]);
        return Problem::unavailable("the process is stopping, try again", RETRY_AFTER_S).into_response();
    }
    let Ok(_place) = gate.places.try_acquire() else {
        LIMITED.add(1, &[("reason", "concurrency")]);
        return Problem::unavailable("too many requests at once, try again", RETRY_AFTER_S).into_response();
    };
    match tokio::time::timeout(gate.request, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            LIMITED.add(1, &[("reason", "timeout")]);
            let detail = format!("the request was not complete and answered within {} ms", gate.request.as_millis());
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use tower::ServiceExt;

    use super::*;

    fn router(concurrency: usize) -> Router {
        Router::new()
            .route("/slow", get(std::future::pending::<()>))
            .route("/quick", get(|| async {}))
            .layer(middleware::from_fn_with_state(limit(concurrency, WhileDraining::Serve, Arc::default()), gate))
    }

    fn limit(concurrency: usize, while_draining: WhileDraining, lifecycle: Arc<Lifecycle>) -> Gate {
        Gate::new(concurrency, Duration::from_secs(10), lifecycle, while_draining)
    }

    async fn ask(router: &Router, path: &str) -> Response {
        router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
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

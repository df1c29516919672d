//! The three probes: started, ready, healthy. Both listeners serve them; only the admin listener says why.
//!
//! `/healthz` says no only when a restart of the process would cure something. A child that is restarting or degraded
//! makes the status `degraded` and nothing more: half a service is better than none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::health_sweep::status::Health;
use actors::liveness_monitor::view::LivenessView;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use supervision::{NodeSnapshot, Status, Tree};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::lifecycle::Lifecycle;

/// The children without which the process is of no use.
pub const CRITICAL: [&str; 4] = ["admin", "store", "scheduler", "api"];

/// The tree, as soon as it stands; the admin listener is a part of it and serves earlier.
pub type TreeSlot = Arc<OnceLock<Tree>>;

/// What the probes look at. Cheap to clone.
#[derive(Clone)]
pub struct Probes {
    /// Started, draining, and whether the main runtime runs.
    pub lifecycle: Arc<Lifecycle>,
    /// The verdicts of the health sweep.
    pub health: Health,
    /// The heartbeats.
    pub liveness: LivenessView,
    /// The tree, for what is restarting, degraded or leaked.
    pub tree: TreeSlot,
    /// The main runtime is stuck when it has not run a task for this long.
    pub runtime_stuck_after: Duration,
}

/// How much a probe tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The word alone: tenants need not know more.
    WordOnly,
    /// The word, and what is wrong.
    Reasons,
}

/// What a probe answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verdict {
    #[serde(skip)]
    code: StatusCode,
    /// One word.
    pub status: &'static str,
    /// What is wrong, named; empty if nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Probes {
    /// The routes of the probes.
    pub fn router<S: Clone + Send + Sync + 'static>(&self, detail: Detail) -> OpenApiRouter<S> {
        OpenApiRouter::new()
            .routes(routes!(startupz))
            .routes(routes!(readyz))
            .routes(routes!(healthz))
            .with_state(Asked { probes: self.clone(), detail })
    }

    /// Whether the first start is complete.
    pub fn startup(&self) -> Verdict {
        match self.lifecycle.is_started() {
            true => Verdict::good("started", Vec::new()),
            false => Verdict::bad("starting", vec!["the first start is not complete".to_owned()]),
        }
    }

    /// Whether new requests should be sent here.
    pub fn readiness(&self) -> Verdict {
        if !self.lifecycle.is_started() {
            return self.startup();
        }
        if self.lifecycle.is_draining() {
            return Verdict::bad("draining", vec!["the process is stopping".to_owned()]);
        }
        match self.health.required_faults() {
            faults if faults.is_empty() => Verdict::running("ready", self.degradations()),
            faults => Verdict::bad("unready", faults),
        }
    }

    /// Whether the process should be left alone.
    pub fn health(&self) -> Verdict {
        match self.wedged() {
            wedged if wedged.is_empty() => Verdict::running("healthy", self.degradations()),
            wedged => Verdict::bad("wedged", wedged),
        }
    }

    fn wedged(&self) -> Vec<String> {
        let loops = self.liveness.snapshot().wedged(&CRITICAL);
        let mut wedged: Vec<_> = loops.into_iter().map(|each| format!("{each} is wedged")).collect();
        let leaked = |node: &&NodeSnapshot| node.status == Status::Leaked && CRITICAL.contains(&node.path.component());
        wedged.extend(self.nodes(leaked).into_iter().map(|path| format!("{path} is leaked")));
        wedged.extend(self.liveness.not_yielding(self.liveness.wedged_after()));
        let silent = self.lifecycle.runtime_silent_for();
        // Before the first start is complete nobody watches the runtime yet.
        if self.lifecycle.is_started() && silent >= self.runtime_stuck_after {
            wedged.push(format!("the main runtime has not run a task for {} ms", silent.as_millis()));
        }
        wedged
    }

    fn degradations(&self) -> Vec<String> {
        let degraded = self.nodes(|node| node.degraded).into_iter().map(|path| format!("{path} is degraded"));
        let unhealthy = self.health.statuses();
        let unhealthy =
            unhealthy.iter().filter(|status| status.state == actors::health_sweep::status::State::Unhealthy);
        let holding = self.liveness.not_yielding(Duration::ZERO);
        degraded
            .chain(holding)
            .chain(self.troubles())
            .chain(unhealthy.map(|status| format!("{} is unhealthy", status.name)))
            .collect()
    }

    fn troubles(&self) -> Vec<String> {
        let Some(tree) = self.tree.get() else { return Vec::new() };
        let snapshot = tree.snapshot();
        let told = |node: &NodeSnapshot| trouble(&node.status).map(|trouble| format!("{} {trouble}", node.path));
        snapshot.walk().into_iter().filter_map(told).collect()
    }

    fn nodes(&self, which: impl Fn(&&NodeSnapshot) -> bool) -> Vec<String> {
        let Some(tree) = self.tree.get() else { return Vec::new() };
        let snapshot = tree.snapshot();
        snapshot.walk().into_iter().filter(|node| which(node)).map(|node| node.path.to_string()).collect()
    }
}

/// What is not as it should be about a child in this state.
fn trouble(status: &Status) -> Option<&'static str> {
    match status {
        Status::Waiting { .. } => Some("waits for its restart"),
        Status::Leaked => Some("is leaked"),
        _ => None,
    }
}

impl Verdict {
    fn good(status: &'static str, reasons: Vec<String>) -> Self {
        Self { code: StatusCode::OK, status, reasons }
    }

    fn bad(status: &'static str, reasons: Vec<String>) -> Self {
        Self { code: StatusCode::SERVICE_UNAVAILABLE, status, reasons }
    }

    fn running(word: &'static str, degradations: Vec<String>) -> Self {
        Self::good(if degradations.is_empty() { word } else { "degraded" }, degradations)
    }

    fn answer(mut self, detail: Detail) -> Response {
        if detail == Detail::WordOnly {
            self.reasons.clear();
        }
        let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        (self.code, no_store, axum::Json(self)).into_response()
    }
}

/// The probes, and how much they tell on this listener.
#[derive(Clone)]
struct Asked {
    probes: Probes,
    detail: Detail,
}

/// Whether the first start is complete.
#[utoipa::path(get, path = "/startupz", tag = "probes", security(()), responses(
    (status = 200, description = "It is", body = Verdict), (status = 503, description = "Not yet", body = Verdict)))]
async fn startupz(State(asked): State<Asked>) -> Response {
    asked.probes.startup().answer(asked.detail)
}

/// Whether new requests should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()), responses(
    (status = 200, description = "Yes", body = Verdict), (status = 503, description = "No", body = Verdict)))]
async fn readyz(State(asked): State<Asked>) -> Response {
    asked.probes.readiness().answer(asked.detail)
}

/// Whether the process should be left alone.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()), responses(
    (status = 200, description = "Yes", body = Verdict), (status = 503, description = "Restart it", body = Verdict)))]
async fn healthz(State(asked): State<Asked>) -> Response {
    asked.probes.health().answer(asked.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaked_child_is_not_said_to_wait_for_a_restart() {
        assert_eq!(trouble(&Status::Leaked), Some("is leaked"));
        assert_eq!(trouble(&Status::Waiting { due_in_ms: 5 }), Some("waits for its restart"));
        assert_eq!(trouble(&Status::Up), None);
    }
}

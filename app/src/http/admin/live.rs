//! `GET /admin/live`: how the service is, as a stream of Server-Sent Events: one at once, one whenever the tree changes, and
//! one every second, as what beats grows older by itself. Changes are gathered: no more than four go out in a second.
//!
//! Each event has all of it, so a client that misses some misses nothing. It is made when the connection takes it, so a
//! client that does not read costs no memory, and is cut by its connection as any other. The stream ends with its listener,
//! which is the last to stop, and one event tells how that went: the whole stop can be watched.

mod node;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use jiff::Timestamp;
use serde::Serialize;
use supervision::{Event, Tree};
use telemetry::incidents::{self, IncidentId};
use telemetry::recorder::Stats;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{AdminState, Dev};
use crate::http::probes::Verdict;
use crate::http::problem::Problem;
use node::Node;

/// Between two events at least.
const GATHER: Duration = Duration::from_millis(250);

/// And at most.
const BEAT: Duration = Duration::from_secs(1);

/// Streams at once. One is a look at the whole tree each second.
const STREAMS_MAX: usize = 8;

/// When to come again if there are so many.
const FULL_RETRY_S: u32 = 5;

/// The latest incidents that an event names.
const INCIDENTS: usize = 20;

/// So much of what an incident says.
const MESSAGE_CHARS: usize = 200;

/// Who watches, and until when. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    places: Arc<Semaphore>,
    ends: CancellationToken,
}

impl Live {
    /// Streams that end when `ends` does.
    pub fn new(ends: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), ends }
    }
}

/// The route.
pub fn routes() -> Router<AdminState> {
    Router::new().route("/admin/live", get(live))
}

async fn live(State(state): State<AdminState>) -> Result<Response, Problem> {
    let place = Arc::clone(&state.live.places).try_acquire_owned();
    let place = place.map_err(|_| Problem::unavailable("too many watch already", FULL_RETRY_S))?;
    let watch = Watch { state, changes: None, sent: None, is_over: false, _place: place };
    let events = unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok::<_, Infallible>(event), watch))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// One stream.
struct Watch {
    state: AdminState,
    changes: Option<broadcast::Receiver<Event>>,
    sent: Option<Instant>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// How the service is.
#[derive(Serialize)]
struct Seen {
    at_ms: i64,
    readiness: Verdict,
    health: Verdict,
    draining: bool,
    /// Whether children can be made to panic.
    drills: bool,
    /// Null until it stands.
    tree: Option<Node>,
    /// The latest, newest first.
    incidents: Vec<Brief>,
    /// What the flight recorder has seen; null if it is off.
    recorded: Option<Recorded>,
}

/// An incident in a line.
#[derive(Serialize)]
struct Brief {
    id: IncidentId,
    at: Timestamp,
    kind: &'static str,
    actor: String,
    message: String,
    outcome: Option<String>,
    /// Whoever shows the whole of it asks again then.
    has_backtrace: bool,
}

/// Whoever shows a list of traces or of log records learns that there are others now: what is counted only grows, while what
/// is held stays the same once there is no more room.
#[derive(Serialize)]
struct Recorded {
    /// Spans that have started, and again when they have ended.
    spans: u64,
    /// Log records.
    logs: u64,
    /// Spans that are open now.
    open: usize,
}

impl From<Stats> for Recorded {
    fn from(stats: Stats) -> Self {
        Self { spans: stats.started + stats.ended, logs: stats.logged, open: stats.open.items }
    }
}

impl Watch {
    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let ends = self.state.live.ends.clone();
        self.is_over = ends.run_until_cancelled(self.changed()).await.is_none();
        self.sent = Some(Instant::now());
        // Maps with strings as keys can always be written.
        let seen = serde_json::to_string(&self.look()).unwrap_or_default();
        Some(format!("event: seen\ndata: {seen}\n\n").into())
    }

    /// Resolves when it is time for another event.
    async fn changed(&mut self) {
        let Some(sent) = self.sent else { return };
        if self.changes.is_none() {
            self.changes = self.state.tree.get().map(Tree::events);
        }
        let changed = async {
            match &mut self.changes {
                // Whoever is told that it missed some has missed changes.
                Some(changes) => drop(changes.recv().await),
                None => sleep(GATHER).await,
            }
        };
        tokio::select! {
            () = changed => sleep_until(sent + GATHER).await,
            () = sleep_until(sent + BEAT) => {}
        }
        if let Some(changes) = &mut self.changes {
            *changes = changes.resubscribe();
        }
    }

    fn look(&self) -> Seen {
        let state = &self.state;
        let liveness = state.liveness.snapshot();
        Seen {
            at_ms: Timestamp::now().as_millisecond(),
            readiness: state.probes.readiness(),
            health: state.probes.health(),
            draining: state.probes.lifecycle.is_draining(),
            drills: state.dev == Dev::Served,
            tree: state.tree.get().map(|tree| Node::new(tree.snapshot(), &mut node::beats(liveness))),
            incidents: incidents::recent(INCIDENTS).iter().map(|incident| Brief::of(incident)).collect(),
            recorded: state.reporting.recorder.as_ref().map(|recorder| recorder.stats().into()),
        }
    }
}

impl Brief {
    fn of(incident: &incidents::Incident) -> Self {
        Self {
            id: incident.id,
            at: incident.at,
            kind: incident.kind,
            actor: incident.actor.clone(),
            message: incident.message.chars().take(MESSAGE_CHARS).collect(),
            outcome: incident.outcome.clone(),
            has_backtrace: incident.backtrace.is_some(),
        }
    }
}

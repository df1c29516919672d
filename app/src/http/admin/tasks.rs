//! `/debug/tasks`: what runs in this process now, and what hangs: spans that have not ended, tasks by name, the runtime.

use axum::extract::State;
use serde::Serialize;
use supervision::{TaskCount, Tree};
use telemetry::recorder::OpenView;
use tokio::runtime::Handle;

use super::AdminState;
use super::traces::limit;
use crate::http::json::Json;
use crate::http::page::Query;
use crate::http::problem::Problem;

/// Names of tasks in one answer.
const TASKS_MAX: usize = 1_000;

/// What runs now.
#[derive(Serialize)]
pub struct Tasks {
    runtime: Runtime,
    /// Of the children of the tree, most first.
    tasks: Vec<TaskCount>,
    /// Names of tasks that are not shown.
    tasks_left_off: usize,
    /// Oldest first.
    open_spans: Vec<OpenView>,
    /// How many there are, also those that are not shown.
    open_spans_total: usize,
}

/// The runtime that all but the admin listener runs on.
#[derive(Serialize)]
struct Runtime {
    /// Tasks that have not ended, also those that no child of the tree has started by name.
    alive_tasks: usize,
    /// Tasks that wait for any worker.
    global_queue_depth: usize,
    workers: Vec<Worker>,
}

/// One of its threads.
#[derive(Serialize)]
struct Worker {
    /// For how long it has worked since it started, in milliseconds.
    busy_ms: u64,
    /// How often it had nothing to do.
    parks: u64,
}

impl Runtime {
    fn of(handle: &Handle) -> Self {
        let metrics = handle.metrics();
        let worker = |worker| Worker {
            busy_ms: u64::try_from(metrics.worker_total_busy_duration(worker).as_millis()).unwrap_or(u64::MAX),
            parks: metrics.worker_park_count(worker),
        };
        Self {
            alive_tasks: metrics.num_alive_tasks(),
            global_queue_depth: metrics.global_queue_depth(),
            workers: (0..metrics.num_workers()).map(worker).collect(),
        }
    }
}

/// Everything at once. It waits for nobody, and does not need the tree to stand.
pub async fn tasks(State(state): State<AdminState>, mut query: Query) -> Result<Json<Tasks>, Problem> {
    let limit = limit(&mut query);
    query.finish()?;
    let mut tasks = state.tree.get().map(Tree::tasks).unwrap_or_default();
    tasks.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.path, &a.name).cmp(&(&b.path, &b.name))));
    let tasks_left_off = tasks.len().saturating_sub(TASKS_MAX);
    tasks.truncate(TASKS_MAX);
    let recorder = state.reporting.recorder.as_ref();
    let (open_spans, open_spans_total) = recorder.map(|recorder| recorder.open(limit)).unwrap_or_default();
    let runtime = Runtime::of(&state.reporting.runtime);
    Ok(Json(Tasks { runtime, tasks, tasks_left_off, open_spans, open_spans_total }))
}

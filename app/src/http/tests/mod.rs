//! The routers from outside: a real store in a directory of its own, a real hub, a real tree; no network.

mod admin;
mod api;
mod console;
mod events;
pub mod house;
mod idempotency;
mod jobs;
mod lists;
mod openapi;
mod probes;
mod resources;
mod schedules;
mod tenants;
mod work;

use std::sync::Arc;
use std::time::Duration;

use actors::broadcast::{Hub, HubSettings};
use actors::bus::{Bus, MemoryBus, MemoryBusLimits};
use actors::channel_manager::ChannelManager;
use actors::channels::Adapters;
use actors::health_sweep::{Sweep, probes::Probe};
use actors::jobs::{Handlers, Notify, Publish};
use actors::liveness_monitor::view::LivenessView;
use actors::model::{Poke, TenantId};
use actors::scheduler::Scheduler;
use actors::store::{KeyHash, SharedStore, SqliteStore};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use supervision::{Heartbeats, TaskGroup};
use tempfile::TempDir;
use tower::ServiceExt;

use super::auth::{DEMO_KEY, DemoKey, seed_demo_tenant};
use super::failures::Failures;
use super::lifecycle::Lifecycle;
use super::probes::{Probes, TreeSlot};
use super::tenants::Tenants;
use super::{ApiState, router};
use crate::settings::{Settings, Sources, load};

/// The key of the second tenant.
const OTHER_KEY: &str = "pk_other";

/// Everything that the routers stand on.
struct World {
    state: ApiState,
    heartbeats: Heartbeats,
    sweep: Sweep,
    _directory: TempDir,
}

/// The parts of an answer that tests look at.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With settings, as variables.
    async fn with(environment: &[(&str, &str)]) -> Self {
        let settings = settings(environment);
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", directory.path().display());
        let store: SharedStore = Arc::new(SqliteStore::open(&url, settings.for_sqlite()).await.unwrap());
        seed_demo_tenant(&*store).await.unwrap();
        store.create_tenant(&TenantId::new("other").unwrap(), &KeyHash::of(OTHER_KEY)).await.unwrap();
        let bus: Arc<dyn Bus> = MemoryBus::new(MemoryBusLimits::default());
        let heartbeats = Heartbeats::new();
        let ports: Vec<Box<dyn Probe>> = vec![Box::new(actors::health_sweep::probes::StoreProbe(Arc::clone(&store)))];
        let sweep = Sweep::new(settings.for_health_sweep(), ports).unwrap();
        let probes = Probes {
            lifecycle: Arc::new(Lifecycle::default()),
            health: sweep.health(),
            liveness: LivenessView::new(heartbeats.clone(), Duration::from_secs(60), ["scheduler"]),
            tree: TreeSlot::default(),
            runtime_stuck_after: Duration::from_secs(10),
        };
        let handlers = Handlers::new().with(Publish::new(Arc::clone(&bus))).with(Notify);
        let jobs = Arc::clone(&store);
        let scheduler = Scheduler::new(settings.for_scheduler(), jobs, handlers, Poke::new()).unwrap();
        let hub = Hub::new(HubSettings::default(), &*bus);
        // Nobody sends here: there is no tree.
        let section = settings.for_channel_manager();
        let channels =
            ChannelManager::with_adapters(section, Arc::clone(&store), Poke::new(), Adapters::default()).unwrap();
        let state = ApiState {
            tenants: Tenants::new(Arc::clone(&store), Arc::clone(&hub), DemoKey::Accepted),
            failures: Failures::new(settings.limits.auth_failures_per_min),
            bounds: settings.for_tenants(),
            store,
            scheduler,
            hub,
            bus,
            sockets: TaskGroup::new("api"),
            channels,
            probes,
            limits: settings.limits.clone(),
            idempotency: settings.idempotency.clone(),
            while_draining: settings.shutdown.while_draining,
        };
        Self { state, heartbeats, sweep, _directory: directory }
    }

    fn router(&self) -> Router {
        router(self.state.clone())
    }

    /// POST of JSON with the demo tenant's key.
    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.authorized("POST", path).body(Body::from(body.to_string())).unwrap()).await
    }

    /// GET with the demo tenant's key.
    async fn get(&self, path: &str) -> Answer {
        self.send(self.authorized("GET", path).body(Body::empty()).unwrap()).await
    }

    fn authorized(&self, method: &str, path: &str) -> http::request::Builder {
        let builder = Request::builder().method(method).uri(path).header("content-type", "application/json");
        builder.header("authorization", format!("Bearer {DEMO_KEY}"))
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        ask(self.router(), request).await
    }

    /// How many jobs are kept, in whatever state.
    async fn jobs(&self) -> u64 {
        let counts = self.state.store.job_counts().await.unwrap();
        counts.waiting + counts.ready + counts.running + counts.done + counts.dead + counts.cancelled
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The problem document, after checking that it is one, of this status, with the request's id.
    fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["instance"], self.headers["x-request-id"].to_str().unwrap());
        assert!(document["title"].is_string() && document["detail"].is_string());
        document
    }
}

async fn ask(router: Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 10_000_000).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

fn settings(environment: &[(&str, &str)]) -> Settings {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    load(&Sources { environment, ..Sources::default() }).unwrap().settings
}

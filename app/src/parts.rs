//! The shared state: made before the tree, and outliving every actor. Actors come and go; what must not be lost with one
//! of them is here, in the store, or on the bus.

use std::sync::{Arc, OnceLock};

use actors::{
    broadcast::Hub,
    bus::{Bus, MemoryBus, MemoryBusLimits, RedisBus},
    channel_manager::ChannelManager,
    health_sweep::{
        Sweep,
        probes::{BusProbe, ChannelsProbe, Probe, StoreProbe},
    },
    liveness_monitor::view::LivenessView,
    model::Poke,
    outbound::Outbound,
    scheduler::Scheduler,
    store::{PostgresStore, SharedStore, SqliteStore, StoreError},
};
use secrecy::ExposeSecret;
use supervision::{BoxError, Heartbeats, TaskGroup, Tree};
use telemetry::{export::LogFilter, recorder::Recorder};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    http::{
        ApiState,
        admin::{AdminState, Dev, live::Live},
        auth::{DemoKey, Gatekeeper},
        failures::Failures,
        lifecycle::Lifecycle,
        listener::Listener,
        probes::{Probes, TreeSlot},
        tenants::Tenants,
    },
    jobs::handlers,
    settings::{BusUrl, Settings, StoreUrl},
};

/// What the process tells about itself, and how much of it.
#[derive(Clone)]
pub struct Reporting {
    /// Writes all metrics in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What is logged.
    pub log_filter: LogFilter,
    /// The latest traces and log records, unless nothing is kept.
    pub recorder: Option<Recorder>,
    /// The runtime of the service itself, which is not the admin listener's.
    pub runtime: Handle,
}

/// Everything that the children of the tree share. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// What is in force.
    pub settings: Arc<Settings>,
    /// Every heartbeat.
    pub heartbeats: Heartbeats,
    /// Everything durable.
    pub store: SharedStore,
    /// What carries events.
    pub bus: Arc<dyn Bus>,
    /// Who listens to them.
    pub hub: Arc<Hub>,
    /// Who the tenants are, by their keys.
    pub tenants: Tenants,
    /// What wrong keys cost their senders.
    pub failures: Failures,
    /// What wrong tokens cost theirs: apart, so that nobody who guesses keys keeps the operator out.
    pub admin_failures: Failures,
    /// Deliveries to receivers.
    pub channels: ChannelManager,
    /// Jobs and schedules.
    pub scheduler: Scheduler,
    /// What we stand on, and how it is.
    pub sweep: Sweep,
    /// Who beats.
    pub liveness: LivenessView,
    /// Started, draining.
    pub lifecycle: Arc<Lifecycle>,
    /// The tenants' socket.
    pub api: Listener,
    /// The operators' socket.
    pub admin: Listener,
    reporting: Reporting,
    tree: TreeSlot,
}

/// The direct children of the root that beat.
pub(crate) const BEATING: [&str; 7] =
    ["store", "bus", "health_sweep", "liveness_monitor", "broadcaster", "channel_manager", "scheduler"];

impl Parts {
    /// Puts everything together. Nothing is opened, bound or sent yet.
    ///
    /// # Errors
    /// Settings that contradict each other, or an address that cannot be used.
    pub fn new(settings: Settings, reporting: Reporting) -> Result<Self, BoxError> {
        let heartbeats = Heartbeats::new();
        let store = store_of(&settings)?;
        let bus: Arc<dyn Bus> = match &settings.bus.url {
            BusUrl::Memory => MemoryBus::new(MemoryBusLimits::default()),
            BusUrl::Redis(url) => RedisBus::new(settings.for_redis_bus(url))?,
        };
        let deliveries = Poke::new();
        // Every call to the outside goes by it, so that all are bounded together; a fork hands it to its handlers too.
        let outbound = Outbound::new(settings.for_outbound())?;
        let channels =
            ChannelManager::new(settings.for_channel_manager(), store.clone(), deliveries.clone(), &outbound)?;
        let handlers = handlers(&settings, &bus, &outbound)?;
        let scheduler = Scheduler::new(settings.for_scheduler(), store.clone(), handlers, deliveries)?;
        scheduler.tell(bus.clone());
        let probes: Vec<Box<dyn Probe>> = vec![
            Box::new(StoreProbe(store.clone())),
            Box::new(BusProbe(bus.clone())),
            Box::new(ChannelsProbe(channels.board())),
        ];
        let hub = Hub::new(settings.for_hub(), &*bus);
        let demo_key = if settings.is_development() { DemoKey::Accepted } else { DemoKey::Refused };
        Ok(Self {
            tenants: Tenants::new(store.clone(), hub.clone(), demo_key),
            failures: Failures::new(settings.limits.auth_failures_per_min),
            admin_failures: Failures::new(settings.limits.auth_failures_per_min),
            hub,
            sweep: Sweep::new(settings.for_health_sweep(), probes)?,
            liveness: LivenessView::new(heartbeats.clone(), settings.liveness_monitor.wedged_after, BEATING),
            lifecycle: Arc::default(),
            api: Listener::new(settings.api.listen),
            admin: Listener::new(settings.admin.listen),
            tree: Arc::new(OnceLock::new()),
            settings: Arc::new(settings),
            heartbeats,
            store,
            bus,
            channels,
            scheduler,
            reporting,
        })
    }

    /// Hands the running tree to those who look at it or add children to it. Only the first call counts.
    pub fn attach(&self, tree: &Tree) {
        if self.tree.set(tree.clone()).is_ok() {
            self.channels.attach(tree);
        }
    }

    /// What the API serves from; `sockets` is where its incarnation keeps its tasks.
    pub fn api_state(&self, sockets: &TaskGroup) -> ApiState {
        ApiState {
            store: self.store.clone(),
            tenants: self.tenants.clone(),
            failures: self.failures.clone(),
            bounds: self.settings.for_tenants(),
            scheduler: self.scheduler.clone(),
            bus: self.bus.clone(),
            hub: self.hub.clone(),
            sockets: sockets.clone(),
            channels: self.channels.clone(),
            probes: self.probes(),
            limits: self.settings.limits.clone(),
            idempotency: self.settings.idempotency.clone(),
            while_draining: self.settings.shutdown.while_draining,
        }
    }

    /// What the admin listener serves from; whoever watches is sent away when it `ends`.
    pub fn admin_state(&self, ends: CancellationToken) -> AdminState {
        AdminState {
            keeper: Gatekeeper { token: self.settings.admin.token.clone(), failures: self.admin_failures.clone() },
            dev: if self.settings.is_development() { Dev::Served } else { Dev::Absent },
            tree: self.tree.clone(),
            liveness: self.liveness.clone(),
            probes: self.probes(),
            store: self.store.clone(),
            scheduler: self.scheduler.clone(),
            tenants: self.tenants.clone(),
            bounds: self.settings.for_tenants(),
            body_bytes_max: self.settings.limits.body_bytes,
            body_within: self.settings.limits.request,
            reporting: self.reporting.clone(),
            hub: self.hub.clone(),
            board: self.channels.board(),
            live: Live::new(ends),
        }
    }

    fn probes(&self) -> Probes {
        Probes {
            lifecycle: self.lifecycle.clone(),
            health: self.sweep.health(),
            liveness: self.liveness.clone(),
            tree: self.tree.clone(),
            runtime_stuck_after: self.settings.liveness_monitor.runtime_stuck_after,
        }
    }
}

/// The store that the settings choose, not opened yet.
///
/// # Errors
/// An address that cannot be used.
pub fn store_of(settings: &Settings) -> Result<SharedStore, StoreError> {
    Ok(match &settings.store.url {
        StoreUrl::Sqlite(url) => Arc::new(SqliteStore::new(url, settings.for_sqlite())?),
        StoreUrl::Postgres(url) => Arc::new(PostgresStore::new(url.expose_secret(), settings.for_postgres())?),
    })
}

//! The tree: everything that runs, in one list. It starts downwards and stops upwards.
//!
//! Each child of the root has a restart budget of its own, and none is shared: a child that fails often costs no other
//! anything. When a *critical* child gives up, the process ends and names it; any other degrades, which means that it is
//! tried again for ever, slowly, and shown, counted and alerted on meanwhile.

use std::time::Duration;

use actors::{
    broadcast::DrainPlan, broadcaster, bus, channel_manager, health_sweep, liveness_monitor, scheduler, store,
};
use supervision::{
    Backoff, BoxError, ChildContext, ChildSpec, Intensity, OnGiveUp, Shutdown, Strategy, SupervisorSpec,
};

use crate::{
    http::{
        ApiState, admin, auth,
        listener::Listener,
        router,
        serve::{ConnectionLimits, Server, serve},
    },
    parts::Parts,
    settings,
};

/// The root and its children. To add an actor, add a line here and one to [`settings::StopTable`]; to delete one, delete its
/// lines and its folder.
pub fn tree(parts: &Parts) -> SupervisorSpec {
    let set = &parts.settings;
    let children = [
        // Serves the probes before anything else is up and after all else is down, on a thread of its own: it must be
        // able to say that the main runtime is stuck.
        critical(admin_listener(parts), set.admin.stop_budget, Recovery::usual()),
        // Nothing is accepted without a place to keep it.
        critical(store::store(parts.store.clone(), set.store.interval), set.store.stop_budget, Recovery::usual()),
        // Carries events; without it jobs still run and are retried.
        degrading(bus::bus(parts.bus.clone(), set.for_bus()), set.bus.stop_budget, Recovery::usual()),
        // Says whether the two above still answer; readiness depends on it.
        degrading(health_sweep::health_sweep(&parts.sweep), set.health_sweep.stop_budget, (&set.health_sweep).into()),
        // Watches the heartbeats of everything, so it is up before those that beat.
        degrading(
            liveness_monitor::liveness_monitor(&parts.liveness, &set.for_liveness_monitor()),
            set.liveness_monitor.stop_budget,
            (&set.liveness_monitor).into(),
        ),
        // From the bus to the sockets; must listen before the first job publishes.
        degrading(broadcaster_tree(parts), set.broadcaster.stop_budget, (&set.broadcaster).into()),
        // Sends what jobs leave behind as deliveries.
        degrading(
            channel_manager::channel_manager(
                &parts.channels,
                set.channel_manager.restart.intensity(),
                set.channel_manager.backoff.backoff(),
            ),
            set.channel_manager.stop_budget,
            (&set.channel_manager).into(),
        ),
        // What the service is for. Everything a job may touch is up by now, and still up when it drains.
        critical(
            scheduler::scheduler(&parts.scheduler, set.scheduler.restart.intensity(), set.scheduler.backoff.backoff()),
            set.scheduler.stop_budget,
            (&set.scheduler).into(),
        ),
        // Opens the door last and closes it first. It owns the connections, and only its end closes sockets.
        critical(api_listener(parts), set.api.stop_budget, Recovery::usual()),
    ];
    SupervisorSpec::new("root", Strategy::OneForOne).no_shared_intensity().with_children(children)
}

/// A restart budget, the backoff within it, and the slow beat beyond it.
#[derive(Clone, Copy)]
struct Recovery {
    intensity: Intensity,
    backoff: Backoff,
    degraded_retry: Duration,
}

impl Recovery {
    /// 5 restarts in 60 s, 1 s doubling to 30 s between them, then every 5 minutes.
    fn usual() -> Self {
        let intensity = Intensity::new(5, Duration::from_secs(60));
        Self { intensity, backoff: Backoff::default(), degraded_retry: Duration::from_secs(300) }
    }

    fn of(restart: &settings::Restart, backoff: &settings::Backoff) -> Self {
        Self { intensity: restart.intensity(), backoff: backoff.backoff(), degraded_retry: backoff.degraded_cap }
    }
}

/// Each subsystem has its own section with the same two tables.
macro_rules! recovery_of {
    ($($section:ident),+) => {$(
        impl From<&settings::$section> for Recovery {
            fn from(section: &settings::$section) -> Self {
                Self::of(&section.restart, &section.backoff)
            }
        }
    )+};
}
recovery_of!(Scheduler, Broadcaster, ChannelManager, HealthSweep, LivenessMonitor);

/// If it gives up, the process ends with exit code 70.
fn critical(child: ChildSpec, stop_budget: Duration, recovery: Recovery) -> ChildSpec {
    child
        .stop_within(Shutdown::Within(stop_budget))
        .intensity(recovery.intensity)
        .backoff(recovery.backoff)
        .on_give_up(OnGiveUp::Escalate)
}

/// If it gives up, it is tried again for ever at a slow beat.
fn degrading(child: ChildSpec, stop_budget: Duration, recovery: Recovery) -> ChildSpec {
    critical(child, stop_budget, recovery).on_give_up(OnGiveUp::Degrade { retry: recovery.degraded_retry })
}

fn broadcaster_tree(parts: &Parts) -> ChildSpec {
    let spec = broadcaster::broadcaster(parts.hub.clone(), parts.bus.clone(), parts.settings.for_broadcaster());
    ChildSpec::supervisor(spec)
}

fn admin_listener(parts: &Parts) -> ChildSpec {
    let parts = parts.clone();
    ChildSpec::task("admin", move |context| {
        let parts = parts.clone();
        async move {
            let router = admin::router(parts.admin_state(context.cancelled()));
            let within = parts.settings.admin.stop_budget;
            listen("admin", &parts.admin, router, within, &parts, &context).await
        }
    })
    .on_own_runtime()
    .start_when_ready()
}

fn api_listener(parts: &Parts) -> ChildSpec {
    let parts = parts.clone();
    ChildSpec::task("api", move |context| {
        let parts = parts.clone();
        async move {
            if parts.settings.is_development() {
                auth::seed_demo_tenant(&*parts.store).await?;
            }
            // Before the first key is believed, so that only what changes from now on closes sockets.
            parts.tenants.catch_up().await;
            let state: ApiState = parts.api_state(context.tasks());
            let within = parts.settings.api.stop_budget;
            let listening = listen("api", &parts.api, router(state), within, &parts, &context);
            // A listener that cannot serve fails at once, and waits for no stop.
            let sockets = async {
                see_sockets_off(&parts, &context).await;
                Ok(())
            };
            let watching = async {
                parts.tenants.watch(context.cancelled()).await;
                Ok(())
            };
            tokio::try_join!(listening, sockets, watching).map(drop)
        }
    })
    .start_when_ready()
}

/// When the process stops, sockets are asked to come back elsewhere, not all at once. When only this listener is started
/// again, they are closed with its incarnation.
async fn see_sockets_off(parts: &Parts, context: &ChildContext) {
    context.cancelled().cancelled().await;
    if parts.lifecycle.is_draining() {
        let within = parts.settings.api.stop_budget.mul_f64(0.8);
        let report = parts.hub.drain(DrainPlan { within, ..DrainPlan::default() }).await;
        tracing::info!(asked = report.asked, left = report.left, "sockets were asked to come back elsewhere");
    } else {
        context.tasks().cancel();
    }
}

async fn listen(
    name: &'static str,
    listener: &Listener,
    router: axum::Router,
    finish_within: Duration,
    parts: &Parts,
    context: &ChildContext,
) -> Result<(), BoxError> {
    let socket = listener.open()?;
    context.ready();
    let limits = &parts.settings.limits;
    let server = Server {
        name,
        router,
        lifecycle: parts.lifecycle.clone(),
        tasks: context.tasks().clone(),
        limits: ConnectionLimits {
            connections: limits.connections,
            header_read: limits.header_read,
            write_stall: limits.write_stall,
            idle: limits.idle,
            header_bytes: limits.header_bytes,
        },
        finish_within,
    };
    Ok(serve(socket, server, context.cancelled()).await?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, LazyLock};

    use supervision::Tree;
    use telemetry::export::LogFilter;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::parts::{BEATING, Reporting};
    use crate::settings::{FLUSH, Sources, StopTable, load};

    /// Of the log filter. It must not be dropped within a test's own runtime.
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().unwrap());

    fn parts() -> Parts {
        parts_of(&Sources::default())
    }

    fn parts_of(sources: &Sources) -> Parts {
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let log_filter = LogFilter::new("info", Vec::new(), RUNTIME.handle().clone());
        let runtime = RUNTIME.handle().clone();
        let reporting = Reporting { metrics: Arc::new(String::new), log_filter, recorder: None, runtime };
        Parts::new(load(sources).unwrap().settings, reporting).unwrap()
    }

    /// Whoever beats and is not in the list is watched, but missed by nobody when its loop never begins.
    #[tokio::test]
    async fn the_list_of_those_that_beat_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", directory.path().join("test.db").display());
        let environment = [
            ("APP__API__LISTEN", "127.0.0.1:0"),
            ("APP__ADMIN__LISTEN", "127.0.0.1:0"),
            ("APP__STORE__URL", store.as_str()),
        ];
        let environment = environment.map(|(name, value)| (name.into(), value.into())).into_iter().collect();
        let parts = parts_of(&Sources { environment, ..Sources::default() });
        let running = Tree::start(tree(&parts), parts.heartbeats.clone()).await.unwrap();
        parts.attach(&running);
        let child = |path: String| path.split('.').next().unwrap_or_default().to_owned();
        let beats: BTreeSet<_> =
            parts.heartbeats.snapshot().into_iter().map(|beat| child(beat.path.to_string())).collect();
        assert_eq!(beats, BEATING.map(str::to_owned).into());
        running.stop().await;
    }

    #[test]
    fn the_tree_is_sound() {
        assert_eq!(tree(&parts()).check(), Ok(()));
    }

    #[test]
    fn what_the_probes_call_critical_is_what_escalates() {
        let tree = tree(&parts());
        let escalates = tree.children().iter().filter(|child| child.give_up_rule() == OnGiveUp::Escalate);
        assert_eq!(escalates.map(ChildSpec::id).collect::<Vec<_>>(), crate::http::probes::CRITICAL);
    }

    /// Also says that none directly under the root may take for ever.
    #[test]
    fn every_child_has_the_budget_that_the_stop_table_shows_in_reverse_order() {
        let parts = parts();
        let table = StopTable::of(&parts.settings);
        let drain = ("drain delay", Shutdown::Within(parts.settings.shutdown.drain_delay));
        let tree = tree(&parts);
        let children = tree.children().iter().rev().map(|child| (child.id(), child.stop_budget()));
        let flush = ("telemetry flush", Shutdown::Within(FLUSH));
        let stop: Vec<_> = [drain].into_iter().chain(children).chain([flush]).collect();
        let steps: Vec<_> = table.steps.iter().map(|(step, budget)| (*step, Shutdown::Within(*budget))).collect();
        assert_eq!(stop, steps);
    }
}

//! Boot, life and stop of the service.
//!
//! Boot: telemetry, panic hook, the shared parts, the tree in order, warm, ready. Stop: not ready, drain, the tree in
//! reverse, telemetry last of all. The boot is one trace, and so is the stop.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use actors::liveness_monitor::view::State;
use supervision::{Exit, StartError, StopReport, TaskGroup, Tree, Watchdog, WatchdogSettings};
use telemetry::export::Telemetry;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    banner::{Banner, NAME},
    exit,
    parts::{Parts, Reporting},
    reporters,
    settings::{FLUSH, Loaded, Settings},
    shutdown::{Reason, Shutdown, Signals},
    tree,
};

telemetry::declare_spans! {
    /// From the first part to ready.
    struct BootSpan<'a> = ("boot", internal, root) {
        profile: &'a str,
    }
    /// The wait, at the end of the boot, for the loops that make the service useful.
    struct WarmSpan = ("warm", internal, child) {}
    /// From the wish to stop until every child is gone.
    struct ShutdownSpan<'a> = ("shutdown", internal, root) {
        reason: &'a str,
    }
}

telemetry::declare_metrics! {
    /// Time from the wish to stop until every child was gone.
    pub static SHUTDOWN_DURATION: Histogram = ("shutdown.duration", "s", [0.1, 0.5, 1.0, 5.0, 10.0, 30.0]);
}

/// Loops whose first tick makes the service warm: the first claim, the bus heard by the broadcaster, channels looked at.
const WARM: [&str; 4] = ["claimer", "relay", "dispatcher", "sweep"];

/// A part that is not warm by then is stale, and shown as such; it does not hold up the rest.
const WARM_WITHIN: Duration = Duration::from_secs(5);

/// Runs the service until it is told to stop or cannot go on. Returns the exit code.
pub async fn run(loaded: &Loaded, began: Instant) -> u8 {
    let settings = &loaded.settings;
    let telemetry = match telemetry::export::start(settings.for_telemetry(NAME, Uuid::new_v4())) {
        Ok(telemetry) => Arc::new(telemetry),
        Err(error) => {
            eprintln!("telemetry: {error}");
            return exit::CONFIGURATION;
        }
    };
    telemetry::panic::install_hook();
    if let Err(error) = reporters::start(settings) {
        // The service does its work without them; incidents are in the log, too.
        tracing::error!(%error, "nobody is told of incidents");
    }
    tracing::info!(took = ?began.elapsed(), profile = settings.profile.name(), "settings are in force");
    let code = match Signals::new() {
        Ok(signals) => live(settings, telemetry.clone(), signals, began).await,
        Err(error) => could_not_start(&format!("signals: {error}")),
    };
    let flushed = telemetry.flush_and_stop(FLUSH).await;
    if !flushed.is_clean() {
        eprintln!("{flushed}");
    }
    code
}

async fn live(settings: &Settings, telemetry: Arc<Telemetry>, signals: Signals, began: Instant) -> u8 {
    let shutdown = Shutdown::new();
    // Outlives the tree: a second signal must be heard while the tree stops.
    let watchers = TaskGroup::new("process");
    watchers.spawn("signals", watch_signals(signals, shutdown.clone()));
    let boot = BootSpan { profile: settings.profile.name() }.open();
    let booted = boot_up(settings, telemetry, &shutdown, &watchers, began).instrument(boot).await;
    let code = match booted {
        Ok((parts, tree, watchdog)) => {
            let code = serve_until_stopped(&parts, &tree, &shutdown).await;
            watchdog.stop();
            code
        }
        Err(code) => code,
    };
    watchers.abort();
    code
}

async fn boot_up(
    settings: &Settings,
    telemetry: Arc<Telemetry>,
    shutdown: &Shutdown,
    watchers: &TaskGroup,
    began: Instant,
) -> Result<(Parts, Tree, Watchdog), u8> {
    let log_filter = telemetry.log_filter();
    let (recorder, runtime) = (telemetry.recorder(), Handle::current());
    let reporting = Reporting { metrics: Arc::new(move || telemetry.prometheus()), log_filter, recorder, runtime };
    let parts = Parts::new(settings.clone(), reporting).map_err(|error| could_not_start(&error.to_string()))?;
    let watchdog = parts.heartbeats.watch(WatchdogSettings::default());
    let watchdog = watchdog.map_err(|error| could_not_start(&format!("watchdog: {error}")))?;
    let spec = tree::tree(&parts);
    let order: Vec<String> = spec.children().iter().map(|child| child.id().to_owned()).collect();
    let options = Tree::options().heartbeats(parts.heartbeats.clone()).cancelled_by(shutdown.token());
    let started = options.start(spec).await;
    let tree = started.map_err(not_started)?;
    parts.attach(&tree);
    let lifecycle = parts.lifecycle.clone();
    watchers.spawn("runtime", async move { lifecycle.watch_runtime().await });
    warm(&parts).instrument(WarmSpan {}.open()).await;
    parts.lifecycle.set_started();
    announce(&parts, &order, began);
    Ok((parts, tree, watchdog))
}

fn announce(parts: &Parts, order: &[String], began: Instant) {
    let (Some(api), Some(admin)) = (parts.api.address(), parts.admin.address()) else {
        return;
    };
    let tree: Vec<&str> = order.iter().map(String::as_str).collect();
    let took = began.elapsed();
    tracing::info!(?took, %api, %admin, "ready");
    // Whoever started us may have closed its end; that is no reason to stop.
    let _ = write!(std::io::stdout(), "{}", Banner { settings: &parts.settings, api, admin, tree: &tree, took });
}

/// Waits until each of the loops that make the service useful has done its work once.
async fn warm(parts: &Parts) {
    let deadline = Instant::now() + WARM_WITHIN;
    loop {
        let snapshot = parts.liveness.snapshot();
        let cold: Vec<&str> = snapshot
            .subsystems
            .iter()
            .flat_map(|part| &part.loops)
            .filter(|each| WARM.contains(&each.name) && each.state == State::Starting)
            .map(|each| each.name)
            .collect();
        if cold.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            return tracing::warn!(?cold, "not warm in time");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn serve_until_stopped(parts: &Parts, tree: &Tree, shutdown: &Shutdown) -> u8 {
    tokio::select! {
        ended = tree.ended() => {
            parts.lifecycle.drain();
            gave_up(&ended.exit, &ended.report)
        }
        reason = shutdown.requested() => {
            let span = ShutdownSpan { reason: &reason.0 }.open();
            stop(parts, tree, &reason).instrument(span).await
        }
    }
}

/// Not ready at once; still serving for the drain delay; then the tree, in reverse.
async fn stop(parts: &Parts, tree: &Tree, reason: &Reason) -> u8 {
    let asked = Instant::now();
    parts.lifecycle.drain();
    let delay = parts.settings.shutdown.drain_delay;
    tracing::info!(reason = reason.0, ?delay, "draining");
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        ended = tree.ended() => return gave_up(&ended.exit, &ended.report),
    }
    let report = tree.stop().await;
    SHUTDOWN_DURATION.record(asked.elapsed().as_secs_f64(), ());
    log_report(&report);
    if report.is_clean() { exit::CLEAN } else { exit::UNCLEAN_STOP }
}

fn log_report(report: &StopReport) {
    let lines: Vec<String> = report
        .children
        .iter()
        .map(|child| format!("{} {:?} in {} ms", child.path, child.outcome, child.took.as_millis()))
        .collect();
    tracing::info!(took = ?report.took, children = lines.join(", "), "stopped");
    for child in report.unclean() {
        eprintln!("stopped uncleanly: {} was {:?} after {} ms", child.path, child.outcome, child.took.as_millis());
    }
}

fn gave_up(exit: &Exit, report: &StopReport) -> u8 {
    log_report(report);
    tracing::error!(%exit, "a critical part gave up");
    eprintln!("{exit}");
    exit::GAVE_UP
}

fn not_started(error: StartError) -> u8 {
    match error {
        StartError::Cancelled => {
            tracing::info!("stopped before the start was complete");
            exit::CLEAN
        }
        error => could_not_start(&error.to_string()),
    }
}

fn could_not_start(what: &str) -> u8 {
    tracing::error!(what, "could not start");
    eprintln!("could not start: {what}");
    exit::UNAVAILABLE
}

/// The first signal begins the stop, the second ends the process at once.
async fn watch_signals(mut signals: Signals, shutdown: Shutdown) {
    let (name, _) = signals.next().await;
    shutdown.trigger(name);
    let (name, number) = signals.next().await;
    eprintln!("{name} again: ended at once");
    std::process::exit(exit::second_signal(number).into());
}

//! A failure that comes with each request must not flood the log: in each window a call site has its share of warnings and
//! errors, and beyond it they are only counted.
//!
//! Spans are kept as ever, with the failure on them. What is audited is not limited, and panics have limits of their own.

use crate::{door, lock};
use opentelemetry::Context as Exported;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// Warnings and errors of one call site in each window.
const RECORDS_MAX: u32 = 100;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);

/// What has limits of its own, and what must be told whatever comes.
const UNLIMITED: [&str; 4] = ["audit", "telemetry::panic", "telemetry::log", "opentelemetry"];

crate::labels! {
    /// Records of one module.
    struct OfModule<'a> { module: &'a str }
}

crate::declare_metrics! {
    /// Warnings and errors that were left out of the log, because their call site had its share for the moment.
    static SUPPRESSED: Counter<OfModule> = ("log.suppressed", "{record}");
}

crate::declare_events! {
    /// So many records of one call site were left out of the log in the last 10 s.
    struct Suppressed<'a> = ("log.suppressed", warn, "telemetry::log") {
        #[name = "code.file.path"]
        file: &'a str,
        #[name = "code.line.number"]
        line: i64,
        suppressed: i64,
    }
}

/// What has come from each call site in the window; of one place where records go.
#[derive(Debug, Default)]
pub(super) struct Flood {
    /// As many as there are call sites in the program.
    sites: Mutex<HashMap<Identifier, Site>>,
}

#[derive(Debug)]
struct Site {
    metadata: &'static Metadata<'static>,
    began: Instant,
    records: u32,
    left_out: u64,
}

impl Flood {
    fn admit(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if *metadata.level() > Level::WARN || UNLIMITED.iter().any(|target| metadata.target().starts_with(target)) {
            return true;
        }
        let mut sites = lock(&self.sites);
        let fresh = || Site { metadata, began: now, records: 0, left_out: 0 };
        let site = sites.entry(metadata.callsite()).or_insert_with(fresh);
        if now.duration_since(site.began) >= WINDOW {
            (site.began, site.records) = (now, 0);
        }
        site.records += 1;
        let is_admitted = site.records <= RECORDS_MAX;
        site.left_out += u64::from(!is_admitted);
        is_admitted
    }

    /// Counts and tells what was left out, after each window, for as long as the runtime lives.
    pub(super) fn tell_on(self: &Arc<Self>, runtime: &Handle) {
        let flood = Arc::clone(self);
        drop(door::spawn(runtime, async move {
            loop {
                tokio::time::sleep(WINDOW).await;
                flood.tell();
            }
        }));
    }

    /// What was left out since the last time.
    pub(super) fn tell(&self) {
        // On the runtime of telemetry what is logged is not exported, unless one says so.
        let _exported = Exported::new().attach();
        for (metadata, left_out) in self.left_out() {
            SUPPRESSED.add(left_out, OfModule { module: metadata.target() });
            let file = metadata.file().unwrap_or_default();
            let line = metadata.line().map_or(0, i64::from);
            let suppressed = i64::try_from(left_out).unwrap_or(i64::MAX);
            let told = format_args!("{suppressed} records like those of {file}:{line} were left out");
            Suppressed { file, line, suppressed }.log(told);
        }
    }

    /// Not locked while it is told: that logs.
    fn left_out(&self) -> Vec<(&'static Metadata<'static>, u64)> {
        let mut sites = lock(&self.sites);
        let taken = sites.values_mut().map(|site| (site.metadata, std::mem::take(&mut site.left_out)));
        taken.filter(|(_, left_out)| *left_out > 0).collect()
    }
}

/// One place's share of the records.
#[derive(Debug)]
pub(super) struct Bounded(pub(super) Arc<Flood>);

impl<S> Filter<S> for Bounded {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.admit(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::{Layer, SubscriberExt as _};

    /// Counts what passes.
    struct Passed(Arc<Mutex<HashMap<&'static str, u32>>>);

    impl<S: tracing::Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *lock(&self.0).entry(event.metadata().target()).or_default() += 1;
        }
    }

    fn fail(target_too: bool) {
        tracing::warn!(target: "store", "the store is away");
        tracing::info!(target: "chatty", "all is well");
        tracing::warn!(target: "audit", "somebody was kept out");
        if target_too {
            tracing::error!(target: "another", "this too");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_site_has_its_share_in_each_window_and_what_it_is_over_is_told_with_its_place() {
        let (flood, passed) = (Arc::new(Flood::default()), Arc::default());
        let layer = Passed(Arc::clone(&passed)).with_filter(Bounded(Arc::clone(&flood)));
        let _installed = tracing::subscriber::set_default(Registry::default().with(layer));
        (0..250).for_each(|n| fail(n == 0));
        let seen = |target: &str| lock(&passed).get(target).copied().unwrap_or_default();
        assert_eq!(["store", "chatty", "audit", "another"].map(seen), [100, 250, 250, 1]);
        let told = flood.left_out();
        let [(metadata, 150)] = told.as_slice() else { panic!("{told:?}") };
        assert!(metadata.file().unwrap().ends_with("flood.rs") && metadata.target() == "store", "{metadata:?}");
        assert_eq!(flood.left_out(), []);
        tokio::time::advance(WINDOW).await;
        (0..10).for_each(|_| fail(false));
        assert_eq!((seen("store"), flood.left_out().len()), (110, 0), "the next window");
        (0..95).for_each(|_| fail(false));
        flood.tell();
        assert_eq!(seen("telemetry::log"), 1, "one record for the five");
    }
}

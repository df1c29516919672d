//! The log filter of the running process, and how it is changed for a while.
//!
//! It governs the log on stderr and the log records by OTLP. Spans are kept as ever: a filter that lost spans would cut
//! traces in two.

use super::{StartError, filter};
use crate::{door, lock};
use opentelemetry::Context;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Puts a filter in force at one place, having been handed one that can be read.
pub type Reload = Box<dyn Fn(&str) -> Result<(), StartError> + Send + Sync>;

/// The filter in force. Cheap to clone; all clones are the same filter.
#[derive(Clone)]
pub struct LogFilter(Arc<Inner>);

struct Inner {
    configured: String,
    places: Vec<Reload>,
    runtime: Handle,
    /// Held while a filter is put in force, so that all places have the same one.
    change: Mutex<Option<Change>>,
}

/// A filter that is in force for a while.
struct Change {
    filter: String,
    until: Instant,
    timer: JoinHandle<()>,
}

/// What is in force now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilterState {
    /// The filter in force.
    pub filter: String,
    /// The one of the settings.
    pub configured: String,
    /// When the configured one comes back, if another is in force.
    pub reverts_in: Option<Duration>,
}

impl LogFilter {
    /// The configured filter, in force at all `places`; the timers of later ones run on `runtime`.
    pub fn new(configured: impl Into<String>, places: Vec<Reload>, runtime: Handle) -> Self {
        let configured = configured.into();
        Self(Arc::new(Inner { configured, places, runtime, change: Mutex::new(None) }))
    }

    /// What is in force now.
    pub fn state(&self) -> LogFilterState {
        self.0.state(lock(&self.0.change).as_ref())
    }

    /// Puts `filter` in force, and the configured one again after `time`, unless there is another change before. `reverted`
    /// is called then, to tell of it.
    ///
    /// # Errors
    /// [`StartError::Filter`] for one that cannot be read; then nothing has changed.
    pub fn set(
        &self,
        filter: &str,
        time: Duration,
        reverted: impl FnOnce() + Send + 'static,
    ) -> Result<LogFilterState, StartError> {
        let mut change = lock(&self.0.change);
        self.0.apply(filter)?;
        let until = Instant::now() + time;
        let later = self.clone();
        let timer = door::spawn(&self.0.runtime, async move {
            tokio::time::sleep_until(until).await;
            if later.revert_at(until) {
                // On this runtime what is logged is not exported, unless one says so.
                let _exported = Context::new().attach();
                reverted();
            }
        });
        let before = change.replace(Change { filter: filter.to_owned(), until, timer });
        before.inspect(|before| before.timer.abort());
        Ok(self.0.state(change.as_ref()))
    }

    /// Puts the configured filter in force again, now.
    pub fn revert(&self) -> LogFilterState {
        let mut change = lock(&self.0.change);
        self.0.revert(&mut change);
        self.0.state(change.as_ref())
    }

    /// The end of a change, if it is the one that was to end then.
    fn revert_at(&self, until: Instant) -> bool {
        let mut change = lock(&self.0.change);
        let is_it = change.as_ref().is_some_and(|change| change.until == until);
        if is_it {
            self.0.revert(&mut change);
        }
        is_it
    }
}

impl Inner {
    fn state(&self, change: Option<&Change>) -> LogFilterState {
        LogFilterState {
            filter: change.map_or_else(|| self.configured.clone(), |change| change.filter.clone()),
            configured: self.configured.clone(),
            reverts_in: change.map(|change| change.until.saturating_duration_since(Instant::now())),
        }
    }

    fn apply(&self, filter: &str) -> Result<(), StartError> {
        filter::env_filter(filter)?;
        self.places.iter().try_for_each(|place| place(filter))
    }

    fn revert(&self, change: &mut Option<Change>) {
        if let Some(change) = change.take() {
            change.timer.abort();
            // It was read at the start of the process, so it can be read now.
            let _ = self.apply(&self.configured);
        }
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A filter with one place, and what was put in force there.
    fn filter() -> (LogFilter, Arc<Mutex<Vec<String>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = applied.clone();
        let place: Reload = Box::new(move |filter| {
            lock(&seen).push(filter.to_owned());
            Ok(())
        });
        (LogFilter::new("info", vec![place], Handle::current()), applied)
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_is_in_force_for_its_time_and_then_the_configured_one_again() {
        let (filter, applied) = filter();
        let told = Arc::new(AtomicBool::new(false));
        let tell = told.clone();
        let state = filter.set("debug", MINUTE, move || tell.store(true, Relaxed)).unwrap();
        let expected = LogFilterState { filter: "debug".into(), configured: "info".into(), reverts_in: Some(MINUTE) };
        assert_eq!(state, expected);
        tokio::time::sleep(MINUTE - Duration::from_millis(1)).await;
        assert!(filter.state().filter == "debug" && !told.load(Relaxed));
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!((filter.state().filter.as_str(), filter.state().reverts_in), ("info", None));
        assert_eq!(*lock(&applied), ["debug", "info"]);
        assert!(told.load(Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_filter_takes_the_place_of_the_one_before_and_has_its_own_time() {
        let (filter, applied) = filter();
        filter.set("debug", MINUTE, || panic!("it was replaced")).unwrap();
        filter.set("warn", 3 * MINUTE, || panic!("it was reverted by hand")).unwrap();
        tokio::time::sleep(2 * MINUTE).await;
        assert_eq!(filter.state().filter, "warn");
        assert_eq!(filter.revert().reverts_in, None);
        tokio::time::sleep(2 * MINUTE).await;
        assert_eq!(*lock(&applied), ["debug", "warn", "info"], "it reverts once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_that_cannot_be_read_changes_nothing() {
        let (filter, applied) = filter();
        let refused = filter.set("info,scheduler=loud", MINUTE, || panic!("it was not set")).unwrap_err();
        assert!(matches!(refused, StartError::Filter { .. }), "{refused}");
        assert_eq!((filter.state().reverts_in, lock(&applied).len()), (None, 0));
    }
}

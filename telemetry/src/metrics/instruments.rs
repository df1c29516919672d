//! The instruments as statics. Each is made from the global meter once, when a provider is there.

use super::bound::{BoundCounter, BoundGauge, BoundHistogram, BoundUpDownCounter};
use super::waiting::{is_full, is_ready, when_ready};
use super::{Declaration, Label, attributes};
use crate::{SCOPE, lock};
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry::{KeyValue, global, metrics as otel};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

/// A number that only goes up.
#[derive(Debug)]
pub struct Counter {
    declaration: &'static Declaration,
    instrument: OnceLock<otel::Counter<u64>>,
}

impl Counter {
    #[doc(hidden)]
    pub const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new() }
    }

    /// Adds `value`, in the metric's unit.
    pub fn add(&'static self, value: u64, labels: &[Label<'_>]) {
        measure(|| attributes(labels), move |attributes| self.instrument().add(value, attributes));
    }

    /// Exports this set of labels as 0 at once. An alert on an increase needs the zero before the one.
    pub fn born(&'static self, labels: &[Label<'_>]) {
        self.add(0, labels);
    }

    /// Fixes the labels, so that counting costs a few nanoseconds. Keep what it returns.
    pub fn bind(&'static self, labels: &[Label<'_>]) -> BoundCounter {
        BoundCounter::new(self, attributes(labels))
    }

    pub(super) fn instrument(&self) -> &otel::Counter<u64> {
        let Declaration { name, unit, help, .. } = self.declaration;
        self.instrument.get_or_init(|| meter().u64_counter(*name).with_unit(*unit).with_description(*help).build())
    }
}

/// A number that goes up and down by steps: sockets open, tasks alive.
#[derive(Debug)]
pub struct UpDownCounter {
    declaration: &'static Declaration,
    instrument: OnceLock<otel::UpDownCounter<i64>>,
}

impl UpDownCounter {
    #[doc(hidden)]
    pub const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new() }
    }

    /// Adds `value`, which may be negative, in the metric's unit.
    pub fn add(&'static self, value: i64, labels: &[Label<'_>]) {
        measure(|| attributes(labels), move |attributes| self.instrument().add(value, attributes));
    }

    /// Exports this set of labels as 0 at once.
    pub fn born(&'static self, labels: &[Label<'_>]) {
        self.add(0, labels);
    }

    /// Fixes the labels once, for a place that counts often.
    pub fn bind(&'static self, labels: &[Label<'_>]) -> BoundUpDownCounter {
        BoundUpDownCounter::new(self, attributes(labels))
    }

    pub(super) fn instrument(&self) -> &otel::UpDownCounter<i64> {
        let Declaration { name, unit, help, .. } = self.declaration;
        self.instrument
            .get_or_init(|| meter().i64_up_down_counter(*name).with_unit(*unit).with_description(*help).build())
    }
}

/// A value that is set: a depth, an age, a state.
#[derive(Debug)]
pub struct Gauge {
    declaration: &'static Declaration,
    instrument: OnceLock<otel::Gauge<f64>>,
}

impl Gauge {
    #[doc(hidden)]
    pub const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new() }
    }

    /// Sets the value, in the metric's unit.
    pub fn set(&'static self, value: f64, labels: &[Label<'_>]) {
        measure(|| attributes(labels), move |attributes| self.instrument().record(value, attributes));
    }

    /// Fixes the labels, so that setting costs a few nanoseconds. Keep what it returns.
    pub fn bind(&'static self, labels: &[Label<'_>]) -> BoundGauge {
        BoundGauge::new(self, attributes(labels))
    }

    pub(super) fn instrument(&self) -> &otel::Gauge<f64> {
        let Declaration { name, unit, help, .. } = self.declaration;
        self.instrument.get_or_init(|| meter().f64_gauge(*name).with_unit(*unit).with_description(*help).build())
    }
}

/// Values counted into the buckets of the declaration.
#[derive(Debug)]
pub struct Histogram {
    declaration: &'static Declaration,
    instrument: OnceLock<otel::Histogram<f64>>,
}

impl Histogram {
    #[doc(hidden)]
    pub const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new() }
    }

    /// Counts one value, in the metric's unit.
    pub fn record(&'static self, value: f64, labels: &[Label<'_>]) {
        measure(|| attributes(labels), move |attributes| self.instrument().record(value, attributes));
    }

    /// Fixes the labels, so that recording costs some twenty nanoseconds. Keep what it returns.
    pub fn bind(&'static self, labels: &[Label<'_>]) -> BoundHistogram {
        BoundHistogram::new(self, attributes(labels))
    }

    pub(super) fn instrument(&self) -> &otel::Histogram<f64> {
        let Declaration { name, unit, help, boundaries, .. } = self.declaration;
        self.instrument.get_or_init(|| {
            let meter = meter();
            let builder = meter.f64_histogram(*name);
            builder.with_unit(*unit).with_description(*help).with_boundaries(boundaries.to_vec()).build()
        })
    }
}

type Callback = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

/// A gauge whose value is computed when somebody asks.
pub struct ObservableGauge {
    declaration: &'static Declaration,
    instrument: OnceLock<otel::ObservableGauge<f64>>,
    // Beside the instrument, because OpenTelemetry has no way to take a callback back: an actor that restarts replaces it.
    callback: Mutex<Option<Callback>>,
}

impl ObservableGauge {
    #[doc(hidden)]
    pub const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new(), callback: Mutex::new(None) }
    }

    /// Asks `callback` at each scrape and export from now on; it replaces the one before. It must be quick and must not
    /// block: it runs on the thread that scrapes.
    pub fn observe_with(&'static self, callback: impl Fn(&Observation<'_>) + Send + Sync + 'static) {
        *lock(&self.callback) = Some(Arc::new(callback));
        when_ready(move || self.create());
    }

    fn create(&'static self) {
        let Declaration { name, unit, help, .. } = self.declaration;
        self.instrument.get_or_init(|| {
            let meter = meter();
            let builder = meter.f64_observable_gauge(*name).with_unit(*unit).with_description(*help);
            builder.with_callback(move |observer| self.observe(observer)).build()
        });
    }

    fn observe(&self, observer: &dyn AsyncInstrument<f64>) {
        let callback = lock(&self.callback).clone();
        if let Some(callback) = callback {
            callback(&Observation(observer));
        }
    }
}

impl fmt::Debug for ObservableGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservableGauge").field("declaration", &self.declaration).finish_non_exhaustive()
    }
}

/// Where the callback of an [`ObservableGauge`] puts its values.
pub struct Observation<'a>(&'a dyn AsyncInstrument<f64>);

impl Observation<'_> {
    /// The value now for this set of labels, in the metric's unit.
    pub fn value(&self, value: f64, labels: &[Label<'_>]) {
        self.0.observe(value, &attributes(labels));
    }
}

impl fmt::Debug for Observation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observation")
    }
}

/// Measures now, or when a provider is there. Labels that nobody will see are not even made.
pub(super) fn measure(
    attributes: impl FnOnce() -> Vec<KeyValue>,
    measurement: impl FnOnce(&[KeyValue]) + Send + 'static,
) {
    if is_ready() {
        measurement(&attributes());
    } else if !is_full() {
        let attributes = attributes();
        when_ready(move || measurement(&attributes));
    }
}

fn meter() -> Meter {
    global::meter(SCOPE)
}

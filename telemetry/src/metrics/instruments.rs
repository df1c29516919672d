//! The instruments as statics. Each is made from the global meter once, when a provider is there.

use super::bound::{BoundCounter, BoundGauge, BoundHistogram, BoundUpDownCounter};
use super::waiting::{is_full, is_ready, when_ready};
use super::{Declaration, LabelSet, Labels as _};
use crate::{SCOPE, lock};
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry::{KeyValue, global, metrics as otel};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock};

/// What is behind a static, whatever its labels: the instrument of OpenTelemetry, once there is one.
#[derive(Debug)]
pub(super) struct Core<I> {
    declaration: &'static Declaration,
    instrument: OnceLock<I>,
}

impl<I: Instrument> Core<I> {
    const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new() }
    }

    pub(super) fn instrument(&self) -> &I {
        self.instrument.get_or_init(|| I::make(&meter(), self.declaration))
    }
}

/// An instrument of OpenTelemetry that a declaration is made into.
pub(super) trait Instrument {
    fn make(meter: &Meter, declaration: &Declaration) -> Self;
}

impl Instrument for otel::Counter<u64> {
    fn make(meter: &Meter, Declaration { name, unit, help, .. }: &Declaration) -> Self {
        meter.u64_counter(*name).with_unit(*unit).with_description(*help).build()
    }
}

impl Instrument for otel::UpDownCounter<i64> {
    fn make(meter: &Meter, Declaration { name, unit, help, .. }: &Declaration) -> Self {
        meter.i64_up_down_counter(*name).with_unit(*unit).with_description(*help).build()
    }
}

impl Instrument for otel::Gauge<f64> {
    fn make(meter: &Meter, Declaration { name, unit, help, .. }: &Declaration) -> Self {
        meter.f64_gauge(*name).with_unit(*unit).with_description(*help).build()
    }
}

impl Instrument for otel::Histogram<f64> {
    fn make(meter: &Meter, Declaration { name, unit, help, boundaries, .. }: &Declaration) -> Self {
        let builder = meter.f64_histogram(*name).with_unit(*unit).with_description(*help);
        builder.with_boundaries(boundaries.to_vec()).build()
    }
}

/// Makes one kind of static: what is measured, with which labels, and the same with its labels fixed.
macro_rules! instrument {
    ($(#[$doc:meta])+ $name:ident of $inner:ty, $verb:ident as $call:ident($value:ty), bound as $bound:ident;
        $(#[$call_doc:meta])+) => {
        $(#[$doc])+
        #[derive(Debug)]
        pub struct $name<L = ()> {
            core: Core<$inner>,
            labels: PhantomData<fn() -> L>,
        }

        impl<L: LabelSet> $name<L> {
            #[doc(hidden)]
            pub const fn new(declaration: &'static Declaration) -> Self {
                Self { core: Core::new(declaration), labels: PhantomData }
            }

            $(#[$call_doc])+
            pub fn $call(&'static self, value: $value, labels: L::With<'_>) {
                measure(|| labels.attributes(), move |attributes| self.core.instrument().$verb(value, attributes));
            }

            /// Fixes the labels, for a place that measures often. Keep what it returns.
            pub fn bind(&'static self, labels: L::With<'_>) -> $bound {
                $bound::new(&self.core, labels.attributes())
            }
        }
    };
}

instrument! {
    /// A number that only goes up.
    Counter of otel::Counter<u64>, add as add(u64), bound as BoundCounter;
    /// Adds `value`, in the metric's unit.
}

instrument! {
    /// A number that goes up and down by steps: sockets open, tasks alive.
    UpDownCounter of otel::UpDownCounter<i64>, add as add(i64), bound as BoundUpDownCounter;
    /// Adds `value`, which may be negative, in the metric's unit.
}

instrument! {
    /// A value that is set: a depth, an age, a state.
    Gauge of otel::Gauge<f64>, record as set(f64), bound as BoundGauge;
    /// Sets the value, in the metric's unit.
}

instrument! {
    /// Values counted into the buckets of the declaration.
    Histogram of otel::Histogram<f64>, record as record(f64), bound as BoundHistogram;
    /// Counts one value, in the metric's unit.
}

impl<L: LabelSet> Counter<L> {
    /// Exports this set of labels as 0 at once. An alert on an increase needs the zero before the one.
    pub fn born(&'static self, labels: L::With<'_>) {
        self.add(0, labels);
    }
}

impl<L: LabelSet> UpDownCounter<L> {
    /// Exports this set of labels as 0 at once.
    pub fn born(&'static self, labels: L::With<'_>) {
        self.add(0, labels);
    }
}

type Callback<L> = Arc<dyn Fn(&Observation<'_, L>) + Send + Sync>;

/// A gauge whose value is computed when somebody asks.
pub struct ObservableGauge<L: 'static = ()> {
    declaration: &'static Declaration,
    instrument: OnceLock<otel::ObservableGauge<f64>>,
    // Beside the instrument, because OpenTelemetry has no way to take a callback back: an actor that restarts replaces it.
    callback: Mutex<Option<Callback<L>>>,
}

impl<L: LabelSet> ObservableGauge<L> {
    #[doc(hidden)]
    pub const fn new(declaration: &'static Declaration) -> Self {
        Self { declaration, instrument: OnceLock::new(), callback: Mutex::new(None) }
    }

    /// Asks `callback` at each scrape and export from now on; it replaces the one before. It must be quick and must not
    /// block: it runs on the thread that scrapes.
    pub fn observe_with(&'static self, callback: impl Fn(&Observation<'_, L>) + Send + Sync + 'static) {
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
            callback(&Observation { observer, labels: PhantomData });
        }
    }
}

impl<L> fmt::Debug for ObservableGauge<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservableGauge").field("declaration", &self.declaration).finish_non_exhaustive()
    }
}

/// Where the callback of an [`ObservableGauge`] puts its values.
pub struct Observation<'a, L = ()> {
    observer: &'a dyn AsyncInstrument<f64>,
    labels: PhantomData<fn() -> L>,
}

impl<L: LabelSet> Observation<'_, L> {
    /// The value now for this set of labels, in the metric's unit.
    pub fn value(&self, value: f64, labels: L::With<'_>) {
        self.observer.observe(value, &labels.attributes());
    }
}

impl<L> fmt::Debug for Observation<'_, L> {
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

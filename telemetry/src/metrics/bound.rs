//! Instruments with their labels fixed, for places that measure often.

use super::instruments::{Core, measure};
use super::waiting::is_ready;
use opentelemetry::{KeyValue, metrics as otel};
use std::sync::OnceLock;

/// Makes one bound instrument: it resolves its labels once, when a provider is there, and until then lets values wait.
macro_rules! bound {
    ($(#[$doc:meta])+ $name:ident of $source:literal, $source_inner:ty, $inner:ty, $verb:ident as $call:ident($value:ty)) => {
        $(#[$doc])+
        #[derive(Debug, Clone)]
        pub struct $name {
            source: &'static Core<$source_inner>,
            attributes: Vec<KeyValue>,
            resolved: OnceLock<$inner>,
        }

        impl $name {
            pub(super) fn new(source: &'static Core<$source_inner>, attributes: Vec<KeyValue>) -> Self {
                Self { source, attributes, resolved: OnceLock::new() }
            }

            #[doc = concat!("As [`", $source, "::", stringify!($call), "`](super::", $source, "::", stringify!($call), "), with the labels given to `bind`.")]
            pub fn $call(&self, value: $value) {
                if let Some(resolved) = self.resolved.get() {
                    resolved.$verb(value);
                } else if is_ready() {
                    self.resolved.get_or_init(|| self.source.instrument().bind(&self.attributes)).$verb(value);
                } else {
                    let source = self.source;
                    measure(|| self.attributes.clone(), move |attributes| source.instrument().$verb(value, attributes));
                }
            }
        }
    };
}

bound! {
    /// A [`Counter`](super::Counter) with fixed labels.
    BoundCounter of "Counter", otel::Counter<u64>, otel::BoundCounter<u64>, add as add(u64)
}

bound! {
    /// A [`Gauge`](super::Gauge) with fixed labels.
    BoundGauge of "Gauge", otel::Gauge<f64>, otel::BoundGauge<f64>, record as set(f64)
}

bound! {
    /// A [`Histogram`](super::Histogram) with fixed labels.
    BoundHistogram of "Histogram", otel::Histogram<f64>, otel::BoundHistogram<f64>, record as record(f64)
}

/// An [`UpDownCounter`](super::UpDownCounter) with fixed labels. OpenTelemetry cannot resolve these ahead, so it saves only making the labels.
#[derive(Debug, Clone)]
pub struct BoundUpDownCounter {
    source: &'static Core<otel::UpDownCounter<i64>>,
    attributes: Vec<KeyValue>,
}

impl BoundUpDownCounter {
    pub(super) fn new(source: &'static Core<otel::UpDownCounter<i64>>, attributes: Vec<KeyValue>) -> Self {
        Self { source, attributes }
    }

    /// As [`UpDownCounter::add`](super::UpDownCounter::add), with the labels given to `bind`.
    pub fn add(&self, value: i64) {
        if is_ready() {
            self.source.instrument().add(value, &self.attributes);
        } else {
            let source = self.source;
            measure(|| self.attributes.clone(), move |attributes| source.instrument().add(value, attributes));
        }
    }
}

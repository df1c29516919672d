//! The page Prometheus scrapes.
//!
//! The reader would append `_total` to every counter, also to one that already ends so. It is told not to, and the ending is
//! added here to those that lack it: `panic_recovered_total` stays itself, `job.claimed` becomes `job_claimed_total`.

use super::StartError;
use opentelemetry_prometheus::PrometheusExporter;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

/// The registry behind the page. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    registry: Registry,
}

impl Page {
    /// The page, and the reader that the meter provider needs to fill it.
    pub(crate) fn new() -> Result<(Self, PrometheusExporter), StartError> {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_counter_suffixes()
            .scope_info_enabled(false)
            .build()
            .map_err(|error| StartError::Prometheus(error.to_string()))?;
        Ok((Self { registry }, reader))
    }

    /// All metrics in the text format.
    pub(crate) fn render(&self) -> String {
        let mut families = self.registry.gather();
        families.iter_mut().for_each(name_as_prometheus_does);
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&families, &mut text) {
            Ok(()) => text,
            Err(error) => format!("# the metrics could not be written: {error}\n"),
        }
    }
}

fn name_as_prometheus_does(family: &mut MetricFamily) {
    if family.get_field_type() == MetricType::COUNTER && !family.name().ends_with("_total") {
        let name = format!("{}_total", family.name());
        family.set_name(name);
    }
}

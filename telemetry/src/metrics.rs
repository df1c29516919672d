//! Metrics, declared once beside what they measure.
//!
//! ```
//! telemetry::declare_metrics! {
//!     /// Jobs claimed by this process.
//!     pub static CLAIMED: Counter = ("job.claimed", "{job}");
//!     /// From due to started.
//!     pub static LATENCY: Histogram = ("job.start.latency", "s", [0.01, 0.1, 1.0]);
//! }
//! CLAIMED.born(&[("queue", "default")]);
//! CLAIMED.add(1, &[("queue", "default")]);
//! let latency = LATENCY.bind(&[("queue", "default")]);
//! latency.record(0.2);
//! ```
//!
//! The doc comment becomes the help text and every declaration lands in [`catalogue`].
//!
//! Instruments are statics, so they are often used before a meter provider exists. They never bind to the no-op provider:
//! what is measured before [`provider_installed`] is kept, up to a limit, and replayed then.
//!
//! Label values are names, never ids or free text: the SDK keeps 2000 sets of labels for each metric, and no more.

mod bound;
mod declare;
mod instruments;
mod waiting;

pub use bound::{BoundCounter, BoundGauge, BoundHistogram, BoundUpDownCounter};
pub use declare::{CATALOGUE, Declaration, Kind, catalogue};
pub use instruments::{Counter, Gauge, Histogram, ObservableGauge, Observation, UpDownCounter};
pub use waiting::provider_installed;

use opentelemetry::KeyValue;

/// A name and its value. The name is fixed in the code, the value one of few.
pub type Label<'a> = (&'static str, &'a str);

/// The value of `http.request.method`, by the semantic conventions of OpenTelemetry: known methods only, for a label must not
/// be what a client makes up.
pub fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

/// How a span names a method that [`method_label`] has labelled, by the same conventions: one that is not known is `HTTP`.
pub fn method_in_name(label: &'static str) -> &'static str {
    if label == "_OTHER" { "HTTP" } else { label }
}

fn attributes(labels: &[Label<'_>]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect()
}

#[cfg(all(test, feature = "export"))]
mod tests {
    use super::*;
    use crate::testing;

    crate::declare_metrics! {
        /// Used before there
        /// is a provider.
        static EARLY: Counter = ("test.early", "{thing}");
        /// Bound before there is a provider.
        static EARLY_BOUND: Histogram = ("test.early.bound", "s", [0.1, 1.0]);
        /// Born, never counted.
        static BORN: Counter = ("test.born", "{thing}");
        /// Goes up and down.
        static OPEN: UpDownCounter = ("test.open", "{thing}");
        /// Set.
        static DEPTH: Gauge = ("test.depth", "{thing}");
        /// Asked for at each scrape.
        static AGE: ObservableGauge = ("test.age", "s");
    }

    #[test]
    fn what_is_measured_before_the_provider_is_there_is_not_lost() {
        EARLY.add(2, &[("when", "early")]);
        let bound = EARLY_BOUND.bind(&[]);
        bound.record(0.5);
        let text = testing::scrape();
        assert!(text.contains("test_early_total{when=\"early\"} 2"), "{text}");
        bound.record(0.05);
        EARLY.add(1, &[("when", "early")]);
        let text = testing::scrape();
        assert!(text.contains("test_early_total{when=\"early\"} 3"), "{text}");
        assert!(text.contains("test_early_bound_seconds_bucket{le=\"0.1\"} 1"), "{text}");
        assert!(text.contains("test_early_bound_seconds_bucket{le=\"1\"} 2"), "{text}");
    }

    #[test]
    fn a_born_counter_is_exported_as_zero() {
        BORN.born(&[("queue", "default")]);
        let text = testing::scrape();
        assert!(text.contains("test_born_total{queue=\"default\"} 0"), "{text}");
    }

    #[test]
    fn every_kind_is_exported_with_its_last_value() {
        OPEN.add(3, &[]);
        OPEN.bind(&[]).add(-1);
        DEPTH.set(7.0, &[]);
        DEPTH.bind(&[("of", "bound")]).set(9.0);
        let text = testing::scrape();
        assert!(text.contains("test_open 2"), "{text}");
        assert!(text.contains("test_depth 7"), "{text}");
        assert!(text.contains("test_depth{of=\"bound\"} 9"), "{text}");
    }

    #[test]
    fn an_observed_gauge_asks_the_latest_callback_only() {
        AGE.observe_with(|seen| seen.value(1.0, &[("of", "first")]));
        AGE.observe_with(|seen| seen.value(2.0, &[("of", "second")]));
        let text = testing::scrape();
        assert!(text.contains("test_age_seconds{of=\"second\"} 2"), "{text}");
        assert!(!text.contains("of=\"first\""), "{text}");
    }

    #[test]
    fn the_catalogue_holds_every_declaration_with_its_doc_comment() {
        let found = catalogue().into_iter().find(|entry| entry.name == "test.early").map(|entry| entry.help);
        assert_eq!(found, Some("Used before there is a provider."));
    }
}

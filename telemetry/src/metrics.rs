//! Metrics, declared once beside what they measure.
//!
//! ```
//! telemetry::labels! {
//!     /// Jobs of one queue.
//!     pub struct Queue<'a> { queue: &'a str }
//! }
//! telemetry::declare_metrics! {
//!     /// Jobs claimed by this process.
//!     pub static CLAIMED: Counter<Queue> = ("job.claimed", "{job}");
//!     /// From due to started.
//!     pub static LATENCY: Histogram<Queue> = ("job.start.latency", "s", [0.01, 0.1, 1.0]);
//!     /// Times that nothing was found.
//!     pub static IDLE: Counter = ("job.idle", "{look}");
//! }
//! CLAIMED.born(Queue { queue: "default" });
//! CLAIMED.add(1, Queue { queue: "default" });
//! IDLE.add(1, ());
//! let latency = LATENCY.bind(Queue { queue: "default" });
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
mod labels;
mod waiting;

pub use bound::{BoundCounter, BoundGauge, BoundHistogram, BoundUpDownCounter};
pub use declare::{CATALOGUE, Declaration, Kind, catalogue};
pub use instruments::{Counter, Gauge, Histogram, ObservableGauge, Observation, UpDownCounter};
#[doc(hidden)]
pub use labels::declared;
pub use labels::{Label, LabelSet, LabelValue, Labels};
pub use waiting::provider_installed;

crate::label_values! {
    /// The value of `http.request.method`, by the semantic conventions of OpenTelemetry: known methods only, for a label must not
    /// be what a client makes up.
    pub enum Method {
        Get = "GET",
        Post = "POST",
        Put = "PUT",
        Patch = "PATCH",
        Delete = "DELETE",
        Head = "HEAD",
        Options = "OPTIONS",
        Other = "_OTHER",
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == method.as_str());
        known.unwrap_or(Self::Other)
    }
}

impl Method {
    /// How it stands in the name of a span, by the same conventions: one that is not known is `HTTP`.
    pub fn in_name(self) -> &'static str {
        if self == Self::Other { "HTTP" } else { self.as_str() }
    }
}

#[cfg(all(test, feature = "export"))]
mod tests {
    use super::*;
    use crate::testing;

    crate::labels! {
        /// For tests.
        struct Of<'a> { of: &'a str }
        /// Where a label is not always there, or has another name than its field.
        struct Ended<'a> {
            #[name = "error.type"]
            error: Option<&'a str>,
            end: End,
        }
    }

    crate::label_values! {
        /// For tests.
        enum End { Good = "good", Bad = "bad" }
    }

    crate::declare_metrics! {
        /// Used before there
        /// is a provider.
        static EARLY: Counter<Of> = ("test.early", "{thing}");
        /// Bound before there is a provider.
        static EARLY_BOUND: Histogram = ("test.early.bound", "s", [0.1, 1.0]);
        /// Born, never counted.
        static BORN: Counter<Ended> = ("test.born", "{thing}");
        /// Goes up and down.
        static OPEN: UpDownCounter = ("test.open", "{thing}");
        /// Set.
        static DEPTH: Gauge<Of> = ("test.depth", "{thing}");
        /// Asked for at each scrape.
        static AGE: ObservableGauge<Of> = ("test.age", "s");
    }

    #[test]
    fn what_is_measured_before_the_provider_is_there_is_not_lost() {
        EARLY.add(2, Of { of: "early" });
        let bound = EARLY_BOUND.bind(());
        bound.record(0.5);
        let text = testing::scrape();
        assert!(text.contains("test_early_total{of=\"early\"} 2"), "{text}");
        bound.record(0.05);
        EARLY.add(1, Of { of: "early" });
        let text = testing::scrape();
        assert!(text.contains("test_early_total{of=\"early\"} 3"), "{text}");
        assert!(text.contains("test_early_bound_seconds_bucket{le=\"0.1\"} 1"), "{text}");
        assert!(text.contains("test_early_bound_seconds_bucket{le=\"1\"} 2"), "{text}");
    }

    #[test]
    fn a_born_counter_is_exported_as_zero() {
        BORN.born(Ended { error: None, end: End::Good });
        BORN.born(Ended { error: Some("lost"), end: End::Bad });
        let text = testing::scrape();
        assert!(text.contains("test_born_total{end=\"good\"} 0"), "{text}");
        assert!(text.contains("test_born_total{end=\"bad\",error_type=\"lost\"} 0"), "{text}");
    }

    #[test]
    fn every_kind_is_exported_with_its_last_value() {
        OPEN.add(3, ());
        OPEN.bind(()).add(-1);
        DEPTH.set(7.0, Of { of: "free" });
        DEPTH.bind(Of { of: "bound" }).set(9.0);
        let text = testing::scrape();
        assert!(text.contains("test_open 2"), "{text}");
        assert!(text.contains("test_depth{of=\"free\"} 7"), "{text}");
        assert!(text.contains("test_depth{of=\"bound\"} 9"), "{text}");
    }

    #[test]
    fn an_observed_gauge_asks_the_latest_callback_only() {
        AGE.observe_with(|seen| seen.value(1.0, Of { of: "first" }));
        AGE.observe_with(|seen| seen.value(2.0, Of { of: "second" }));
        let text = testing::scrape();
        assert!(text.contains("test_age_seconds{of=\"second\"} 2"), "{text}");
        assert!(!text.contains("of=\"first\""), "{text}");
    }

    #[test]
    fn the_catalogue_holds_every_declaration_with_its_doc_comment() {
        let found = catalogue().into_iter().find(|entry| entry.name == "test.early").map(|entry| entry.help);
        assert_eq!(found, Some("Used before there is a provider."));
    }

    #[test]
    fn the_catalogue_knows_the_labels_and_the_values_of_a_closed_set() {
        let born = catalogue().into_iter().find(|entry| entry.name == "test.born").unwrap();
        let labels = (born.labels)();
        assert_eq!(labels[0], Label { name: "error.type", values: vec![] });
        assert_eq!(labels[1], Label { name: "end", values: vec!["good", "bad"] });
    }
}

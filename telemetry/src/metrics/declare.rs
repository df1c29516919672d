//! The declaration of a metric, the macro that writes it, and the catalogue of all of them.

use super::Label;
use linkme::distributed_slice;

/// Every declaration linked into this binary. Filled by the linker; read it with [`catalogue`].
#[distributed_slice]
pub static CATALOGUE: [Declaration];

/// All declared metrics, by name. This is what documentation, dashboards and alerts are checked against.
pub fn catalogue() -> Vec<&'static Declaration> {
    let mut all: Vec<_> = CATALOGUE.iter().collect();
    all.sort_by_key(|declaration| declaration.name);
    all
}

/// What a metric is, as it was declared.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// Name as exported by OTLP, dots between its parts. Prometheus sees underscores, the unit and `_total`.
    pub name: &'static str,
    /// Unit by UCUM: `s`, `By`, `1`, or what is counted in braces: `{job}`.
    pub unit: &'static str,
    /// Which kind of instrument.
    pub kind: Kind,
    /// The doc comment.
    pub help: &'static str,
    /// Upper bounds of the buckets, in the metric's unit. Empty unless the kind is [`Kind::Histogram`].
    pub boundaries: &'static [f64],
    /// Its labels.
    pub labels: fn() -> Vec<Label>,
    /// The module that declares it.
    pub module: &'static str,
}

/// The kinds of instruments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down by steps.
    UpDownCounter,
    /// Is set to a value.
    Gauge,
    /// Counts values into buckets.
    Histogram,
    /// Is asked for its value at each scrape or export.
    ObservableGauge,
}

impl Kind {
    /// The kind as one word, as the catalogue prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::UpDownCounter => "updowncounter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::ObservableGauge => "observable gauge",
        }
    }
}

/// Declares metrics as statics: `static NAME: Kind<Labels> = (name, unit);`, for a histogram `(name, unit, [boundaries])`.
///
/// Kinds: `Counter`, `UpDownCounter`, `Gauge`, `Histogram`, `ObservableGauge`. Labels are a struct made by
/// [`labels!`](crate::labels); without them there are none. The doc comment is required and becomes the help text.
#[macro_export]
macro_rules! declare_metrics {
    ($($(#[doc = $help:literal])+ $visibility:vis static $name:ident: $kind:ident $(<$labels:ty>)? =
        ($metric:literal, $unit:literal $(, $boundaries:expr)?);)*) => {$(
        $(#[doc = $help])+
        $visibility static $name: $crate::metrics::$kind $(<$labels>)? = {
            #[$crate::__private::linkme::distributed_slice($crate::metrics::CATALOGUE)]
            #[linkme(crate = $crate::__private::linkme)]
            #[allow(unsafe_code, reason = "linkme puts the declaration into a section of the binary")]
            static DECLARATION: $crate::metrics::Declaration = $crate::metrics::Declaration {
                name: $metric,
                unit: $unit,
                kind: $crate::metrics::Kind::$kind,
                help: $crate::metrics::Declaration::help(concat!($($help),+)),
                boundaries: $crate::declare_metrics!(@boundaries $($boundaries)?),
                labels: $crate::metrics::declared::<$crate::declare_metrics!(@labels $($labels)?)>,
                module: module_path!(),
            };
            $crate::metrics::$kind::new(&DECLARATION)
        };
    )*};
    (@boundaries) => { &[] };
    (@boundaries $boundaries:expr) => { &$boundaries };
    (@labels) => { () };
    (@labels $labels:ty) => { $labels };
}

impl Declaration {
    /// What Prometheus calls it on `/metrics`. Of a histogram, what its three series begin with.
    pub fn prometheus_name(&self) -> String {
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let name = self.name.replace('.', "_");
        let total = if self.kind == Kind::Counter && !name.ends_with("_total") { "_total" } else { "" };
        format!("{name}{unit}{total}")
    }

    /// The help text from the lines of a doc comment, each of which begins with the space after `///`.
    #[doc(hidden)]
    pub const fn help(doc: &'static str) -> &'static str {
        doc.trim_ascii()
    }
}

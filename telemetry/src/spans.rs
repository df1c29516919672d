//! Spans, declared once beside what they are about.
//!
//! ```
//! telemetry::declare_spans! {
//!     /// One run of a job.
//!     pub struct RunSpan<'a> = ("job.run", consumer, follower) {
//!         #[name = "job.kind"]
//!         kind: &'a str,
//!     } later {
//!         #[name = "job.outcome"]
//!         outcome: &str,
//!     }
//! }
//! let span = RunSpan { kind: "publish" }.open();
//! RunSpan::outcome(&span, "done");
//! ```
//!
//! What is known at the begin is a field of the struct; what comes later has a function of its own. Who makes a span can
//! neither forget an attribute nor misspell one, and every declaration lands in [`catalogue`].
//!
//! The second word of a declaration is the span's kind: `internal`, `server`, `client`, `producer` or `consumer`. The third is
//! where it is made, see [`Made`]: `child`, `child_of` (`open` then asks for the parent), `root` or `follower`; hand one of the
//! last kind to [`as_follower`](crate::context::as_follower). A name with braces is made of attributes; the field
//! `otel.name` then has it, and the catalogue the pattern.

use linkme::distributed_slice;
use tracing::field::DisplayValue;

/// Attributes that any span may bear: the id of the request that it all began with, and what went wrong.
pub const EVERYWHERE: [&str; 2] = [crate::context::REQUEST_ID_FIELD, "error.type"];

/// Every declaration linked into this binary. Filled by the linker; read it with [`catalogue`].
#[distributed_slice]
pub static SPANS: [Declaration];

/// All declared spans, by name.
pub fn catalogue() -> Vec<&'static Declaration> {
    let mut all: Vec<_> = SPANS.iter().collect();
    all.sort_by_key(|declaration| declaration.name);
    all
}

/// What a span is, as it was declared.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// Name as exported. What stands in braces differs from span to span.
    pub name: &'static str,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// Where it begins.
    pub made: Made,
    /// The doc comment.
    pub help: &'static str,
    /// Names of its fields; see [`Declaration::attributes`].
    pub fields: &'static [&'static str],
    /// The module that declares it.
    pub module: &'static str,
}

impl Declaration {
    /// The names of its attributes: its own, and [`origin.trace_id`](crate::context::ORIGIN_TRACE_ID) of a follower. Any of them
    /// may be missing where there is nothing to say.
    pub fn attributes(&self) -> Vec<&'static str> {
        // Fields by which the layer of tracing-opentelemetry is told name, kind and status.
        let own = self.fields.iter().copied().filter(|field| !field.starts_with("otel."));
        own.chain((self.made == Made::Follower).then_some(crate::context::ORIGIN_TRACE_ID)).collect()
    }
}

/// Where a span begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Below the span that is current; a root if there is none.
    Child,
    /// A new root.
    Root,
    /// A new root with a link back to what it follows from.
    Follower,
}

impl Made {
    /// In words, as the catalogue prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Made::Child => "child",
            Made::Root => "root",
            Made::Follower => "new root plus link",
        }
    }
}

/// An attribute that is written as it is displayed: an id.
pub type Shown<'a, T> = DisplayValue<&'a T>;

/// Makes a [`Shown`].
pub fn shown<T: std::fmt::Display>(value: &T) -> Shown<'_, T> {
    tracing::field::display(value)
}

/// Declares spans as structs; see [`spans`](crate::spans).
#[macro_export]
macro_rules! declare_spans {
    ($($(#[doc = $help:literal])+ $visibility:vis struct $name:ident $(<$lifetime:lifetime>)? =
        ($span:literal $(as $written:literal)?, $kind:ident, $made:ident) {
            $($(#[name = $key:literal])? $field:ident: $type:ty),* $(,)?
        } $(later {
            $($(#[name = $later_key:literal])? $later:ident: $later_type:ty),+ $(,)?
        })?
    )*) => {$(
        $(#[doc = $help])+
        #[derive(Debug)]
        $visibility struct $name $(<$lifetime>)? {
            $(
                #[doc = concat!("The attribute `", $crate::labels!(@key $field $($key)?), "`.")]
                $visibility $field: $type,
            )*
        }

        const _: () = {
            #[$crate::__private::linkme::distributed_slice($crate::spans::SPANS)]
            #[linkme(crate = $crate::__private::linkme)]
            #[allow(unsafe_code, reason = "linkme puts the declaration into a section of the binary")]
            static DECLARATION: $crate::spans::Declaration = $crate::spans::Declaration {
                name: $span,
                kind: stringify!($kind),
                made: $crate::declare_spans!(@made $made),
                help: $crate::metrics::Declaration::help(concat!($($help),+)),
                fields: &[
                    $($crate::labels!(@key $field $($key)?),)*
                    $($($crate::labels!(@key $later $($later_key)?),)+)?
                ],
                module: module_path!(),
            };
        };

        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            $crate::declare_spans!(@open $visibility $made $kind [$crate::declare_spans!(@written $span $($written)?)]
                [$([$crate::labels!(@key $field $($key)?)] $field)*]
                [$($([$crate::labels!(@key $later $($later_key)?)])+)?]);

            $($(
                #[doc = concat!("Says `", $crate::labels!(@key $later $($later_key)?), "`.")]
                $visibility fn $later(span: &$crate::__private::tracing::Span, value: $later_type) {
                    span.record($crate::labels!(@key $later $($later_key)?), value);
                }
            )+)?
        }
    )*};
    (@made child) => { $crate::spans::Made::Child };
    (@made child_of) => { $crate::spans::Made::Child };
    (@made root) => { $crate::spans::Made::Root };
    (@made follower) => { $crate::spans::Made::Follower };
    (@written $span:literal) => { $span };
    (@written $span:literal $written:literal) => { $written };
    (@open $visibility:vis child $($rest:tt)+) => {
        /// Begins it.
        $visibility fn open(self) -> $crate::__private::tracing::Span {
            $crate::declare_spans!(@span self () $($rest)+)
        }
    };
    (@open $visibility:vis child_of $($rest:tt)+) => {
        /// Begins it below `parent`, or as a root if that is none.
        $visibility fn open(self, parent: &$crate::__private::tracing::Span) -> $crate::__private::tracing::Span {
            $crate::declare_spans!(@span self (parent: parent,) $($rest)+)
        }
    };
    (@open $visibility:vis root $($rest:tt)+) => {
        /// Begins it.
        $visibility fn open(self) -> $crate::__private::tracing::Span {
            $crate::declare_spans!(@span self (parent: None,) $($rest)+)
        }
    };
    (@open $visibility:vis follower $($rest:tt)+) => {
        $crate::declare_spans!(@open $visibility root $($rest)+);
    };
    (@span $self:ident ($($parent:tt)*) internal [$span:expr] [$([$key:expr] $field:ident)*] [$([$later:expr])*]) => {
        $crate::__private::tracing::info_span!($($parent)* $span,
            $({ $key } = $self.$field,)* $({ $later } = $crate::__private::tracing::field::Empty,)*)
    };
    (@span $self:ident ($($parent:tt)*) $kind:ident [$span:expr] [$([$key:expr] $field:ident)*] [$([$later:expr])*]) => {
        $crate::__private::tracing::info_span!($($parent)* $span, otel.kind = stringify!($kind),
            $({ $key } = $self.$field,)* $({ $later } = $crate::__private::tracing::field::Empty,)*)
    };
}

#[cfg(all(test, feature = "export"))]
mod tests {
    use opentelemetry::trace::{SpanId, SpanKind, Status};

    use super::*;
    use crate::context::{TraceContext, as_follower};
    use crate::testing::{Recording, attribute};

    crate::declare_spans! {
        /// Below what
        /// is current.
        struct Below<'a> = ("test.{letter}" as "below", client, child) {
            #[name = "otel.name"]
            name: &'a str,
            letter: Option<&'a str>,
        } later {
            #[name = "test.count"]
            count: i64,
            #[name = "otel.status_code"]
            end: &str,
        }
        /// Begins a story.
        struct Alone = ("test.alone", internal, root) {}
        /// Goes on with one.
        struct After<'a> = ("test.after", consumer, follower) {
            id: Shown<'a, u64>,
        }
        /// Below what is given.
        struct Given = ("test.given", internal, child_of) {}
    }

    #[test]
    fn a_span_is_exported_as_it_was_declared() {
        let recording = Recording::new();
        recording.run(|| {
            let alone = Alone {}.open();
            alone.in_scope(|| {
                let below = Below { name: "test.a", letter: Some("a") }.open();
                Below::count(&below, 7);
                Below::end(&below, "ERROR");
                drop(Below { name: "test.", letter: None }.open());
                drop(Alone {}.open());
            });
            drop(Given {}.open(&alone));
        });
        let (first, below) = (recording.span("test.given"), recording.span("test.a"));
        let alone = recording.spans().into_iter().find(|span| span.span_context.span_id() == first.parent_span_id);
        let alone = alone.expect("the parent that was given");
        assert_eq!((alone.name.as_ref(), alone.parent_span_id), ("test.alone", SpanId::INVALID));
        assert_eq!((below.parent_span_id, &below.span_kind), (alone.span_context.span_id(), &SpanKind::Client));
        assert_eq!(attribute(&below.attributes, "letter").as_deref(), Some("a"));
        assert_eq!(attribute(&below.attributes, "test.count").as_deref(), Some("7"));
        assert!(matches!(below.status, Status::Error { .. }) && attribute(&below.attributes, "end").is_none());
        assert_eq!(recording.span("test.").attributes, []);
        let roots = recording.spans().into_iter().filter(|span| span.name == "test.alone");
        assert!(roots.into_iter().all(|span| span.parent_span_id == SpanId::INVALID), "whatever is current");
    }

    #[tokio::test]
    async fn a_follower_is_a_root_and_bears_its_origin_also_in_the_catalogue() {
        let recording = Recording::new();
        let _default = tracing::dispatcher::set_default(&recording.dispatch);
        let story = Alone {}.open().in_scope(TraceContext::current);
        as_follower(After { id: shown(&7) }.open(), &story, async {}).await;
        let after = recording.span("test.after");
        assert_eq!((after.parent_span_id, after.links.links.len()), (SpanId::INVALID, 1));
        let declared = catalogue().into_iter().find(|span| span.name == "test.after").unwrap();
        let borne: Vec<&str> = after.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert!(
            declared.attributes().iter().all(|name| borne.contains(name)) && declared.kind == "consumer",
            "{borne:?}"
        );
    }

    #[test]
    fn the_catalogue_holds_every_declaration_without_what_is_meant_for_the_layer() {
        let declared = catalogue().into_iter().find(|span| span.name == "test.{letter}").unwrap();
        assert_eq!((declared.help, declared.made), ("Below what is current.", Made::Child));
        assert_eq!(declared.attributes(), ["letter", "test.count"]);
    }
}

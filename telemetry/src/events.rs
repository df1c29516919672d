//! Named events: log records with a name, and events on the span in which they happen, declared once beside what they tell.
//!
//! ```
//! telemetry::declare_events! {
//!     /// A door was left open.
//!     pub struct DoorOpen<'a> = ("door.open", warn, "telemetry::doors") {
//!         #[name = "door.id"]
//!         id: &'a str,
//!         minutes: Option<i64>,
//!     }
//! }
//! DoorOpen { id: "front", minutes: None }.log(format_args!("the door has been open for long"));
//! ```
//!
//! `log` writes the record, at the level and under the target of the declaration; a WARN or an ERROR becomes an event of the
//! current span by itself. `attributes` are for an event that is put on another span by hand. An attribute of type `Option`
//! may be missing.

use jiff::Timestamp;
use linkme::distributed_slice;
use opentelemetry::Value;

/// Every declaration linked into this binary. Filled by the linker; read it with [`catalogue`].
#[distributed_slice]
pub static EVENTS: [Declaration];

/// All declared events, by name.
pub fn catalogue() -> Vec<&'static Declaration> {
    let mut all: Vec<_> = EVENTS.iter().collect();
    all.sort_by_key(|declaration| declaration.name);
    all
}

/// What an event is, as it was declared.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// Its name.
    pub name: &'static str,
    /// The level of its log record.
    pub level: &'static str,
    /// The target of its log record.
    pub target: &'static str,
    /// The doc comment.
    pub help: &'static str,
    /// Names of its attributes.
    pub attributes: &'static [&'static str],
    /// The module that declares it.
    pub module: &'static str,
}

/// In a context: what is logged in it happened then, though it is written only now. A record then bears that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappenedAt(pub Timestamp);

/// The value of an attribute.
pub trait Attribute {
    /// As OpenTelemetry wants it, if there is one.
    fn value(&self) -> Option<Value>;
}

impl Attribute for &str {
    fn value(&self) -> Option<Value> {
        Some((*self).to_owned().into())
    }
}

impl Attribute for i64 {
    fn value(&self) -> Option<Value> {
        Some((*self).into())
    }
}

impl<T: Attribute> Attribute for Option<T> {
    fn value(&self) -> Option<Value> {
        self.as_ref().and_then(Attribute::value)
    }
}

/// Declares events as structs; see [`events`](crate::events).
#[macro_export]
macro_rules! declare_events {
    ($($(#[doc = $help:literal])+ $visibility:vis struct $name:ident $(<$lifetime:lifetime>)? =
        ($event:literal, $level:ident, $target:literal) {
            $($(#[name = $key:literal])? $field:ident: $type:ty),+ $(,)?
        }
    )*) => {$(
        $(#[doc = $help])+
        #[derive(Debug, Clone)]
        $visibility struct $name $(<$lifetime>)? {
            $(
                #[doc = concat!("The attribute `", $crate::labels!(@key $field $($key)?), "`.")]
                $visibility $field: $type,
            )+
        }

        const _: () = {
            #[$crate::__private::linkme::distributed_slice($crate::events::EVENTS)]
            #[linkme(crate = $crate::__private::linkme)]
            #[allow(unsafe_code, reason = "linkme puts the declaration into a section of the binary")]
            static DECLARATION: $crate::events::Declaration = $crate::events::Declaration {
                name: $event,
                level: stringify!($level),
                target: $target,
                help: $crate::metrics::Declaration::help(concat!($($help),+)),
                attributes: &[$($crate::labels!(@key $field $($key)?)),+],
                module: module_path!(),
            };
        };

        #[allow(dead_code, reason = "not every event is put on a span by hand")]
        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            /// What it is called.
            $visibility const NAME: &'static str = $event;

            /// Its attributes, for an event on a span.
            $visibility fn attributes(&self) -> Vec<$crate::__private::KeyValue> {
                let all = [$(($crate::labels!(@key $field $($key)?), $crate::events::Attribute::value(&self.$field))),+];
                all.into_iter().filter_map(|(name, value)| Some($crate::__private::KeyValue::new(name, value?))).collect()
            }

            /// Writes its log record.
            $visibility fn log(&self, message: std::fmt::Arguments<'_>) {
                $crate::__private::tracing::$level!(name: $event, target: $target, message,
                    $({ $crate::labels!(@key $field $($key)?) } = self.$field,)+);
            }
        }
    )*};
}

#[cfg(all(test, feature = "export"))]
mod tests {
    use super::*;
    use crate::testing::{Recording, attribute};

    crate::declare_events! {
        /// Something happened.
        struct Happened<'a> = ("test.happened", warn, "telemetry::events") {
            #[name = "test.what"]
            what: &'a str,
            times: i64,
            why: Option<&'a str>,
        }
    }

    #[test]
    fn an_event_is_a_log_record_with_its_name_and_what_is_not_there_is_left_out() {
        let recording = Recording::new();
        let happened = Happened { what: "it", times: 2, why: None };
        recording.run(|| happened.log(format_args!("it happened")));
        assert_eq!(recording.logs(), [(Some("test.happened"), None)]);
        assert_eq!(recording.log_field("test.what").as_deref(), Some("it"));
        assert_eq!(recording.log_field("why"), None);
        let attributes = happened.attributes();
        assert_eq!((attributes.len(), attribute(&attributes, "times").as_deref()), (2, Some("2")));
        let declared = catalogue().into_iter().find(|event| event.name == Happened::NAME).unwrap();
        assert_eq!((declared.level, declared.attributes), ("warn", ["test.what", "times", "why"].as_slice()));
    }
}

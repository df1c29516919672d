//! The labels of a metric, as a type: who measures can neither forget one nor misspell it.

use opentelemetry::{KeyValue, StringValue};

/// The labels of one metric. Made by [`labels!`](crate::labels); `()` are none.
pub trait LabelSet {
    /// The same labels with values that live as long as `'a`.
    type With<'a>: Labels;
}

/// Of a declaration: its labels.
#[doc(hidden)]
pub fn declared<L: LabelSet>() -> Vec<Label> {
    L::With::declared()
}

/// Labels with their values.
pub trait Labels {
    /// What they are, for the catalogue.
    fn declared() -> Vec<Label>;

    /// As OpenTelemetry wants them. A label without a value is left out.
    fn attributes(&self) -> Vec<KeyValue>;
}

/// One label, as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// All values it can have, if that is a closed set; else nothing.
    pub values: Vec<&'static str>,
}

/// The value of a label: one of few, and a name, never an id or free text.
pub trait LabelValue {
    /// All that there are, if the set is closed; else nothing.
    fn all() -> Vec<&'static str>;

    /// This one.
    fn value(&self) -> Option<StringValue>;
}

/// A name from the code or the configuration: how many there are depends on it.
impl LabelValue for str {
    fn all() -> Vec<&'static str> {
        Vec::new()
    }

    fn value(&self) -> Option<StringValue> {
        Some(self.to_owned().into())
    }
}

impl<T: LabelValue + ?Sized> LabelValue for &T {
    fn all() -> Vec<&'static str> {
        T::all()
    }

    fn value(&self) -> Option<StringValue> {
        (**self).value()
    }
}

/// A label that is not always there.
impl<T: LabelValue> LabelValue for Option<T> {
    fn all() -> Vec<&'static str> {
        T::all()
    }

    fn value(&self) -> Option<StringValue> {
        self.as_ref().and_then(LabelValue::value)
    }
}

impl LabelSet for () {
    type With<'a> = ();
}

impl Labels for () {
    fn declared() -> Vec<Label> {
        Vec::new()
    }

    fn attributes(&self) -> Vec<KeyValue> {
        Vec::new()
    }
}

/// Declares the labels of a metric as a struct: each field is a label, of the field's name or of another that is given.
///
/// ```
/// telemetry::labels! {
///     /// A request that was answered.
///     pub struct Answered<'a> {
///         #[name = "http.route"]
///         route: &'a str,
///         outcome: Outcome,
///     }
/// }
/// telemetry::label_values! {
///     /// How it ended.
///     pub enum Outcome { Done = "done", Refused = "refused" }
/// }
/// ```
#[macro_export]
macro_rules! labels {
    ($($(#[doc = $help:literal])+ $visibility:vis struct $name:ident $(<$lifetime:lifetime>)? {
        $($(#[name = $key:literal])? $field:ident: $value:ty),+ $(,)?
    })*) => {$(
        $(#[doc = $help])+
        #[derive(Debug, Clone, Copy)]
        $visibility struct $name $(<$lifetime>)? {
            $(
                #[doc = concat!("The label `", $crate::labels!(@key $field $($key)?), "`.")]
                $visibility $field: $value,
            )+
        }

        $crate::labels!(@set $name $($lifetime)?);

        impl $(<$lifetime>)? $crate::metrics::Labels for $name $(<$lifetime>)? {
            fn declared() -> Vec<$crate::metrics::Label> {
                vec![$($crate::metrics::Label {
                    name: $crate::labels!(@key $field $($key)?),
                    values: <$value as $crate::metrics::LabelValue>::all(),
                }),+]
            }

            fn attributes(&self) -> Vec<$crate::__private::KeyValue> {
                let labels = [$(($crate::labels!(@key $field $($key)?), $crate::metrics::LabelValue::value(&self.$field))),+];
                labels.into_iter().filter_map(|(name, value)| Some($crate::__private::KeyValue::new(name, value?))).collect()
            }
        }
    )*};
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@set $name:ident) => {
        impl $crate::metrics::LabelSet for $name {
            type With<'a> = $name;
        }
    };
    (@set $name:ident $lifetime:lifetime) => {
        impl $crate::metrics::LabelSet for $name<'static> {
            type With<$lifetime> = $name<$lifetime>;
        }
    };
}

/// Declares a closed set of values of a label: as an enum of its own, or for a type that has a name for each of its values.
///
/// ```
/// telemetry::label_values! {
///     /// How it ended.
///     pub enum Outcome { Done = "done", Refused = "refused" }
/// }
/// assert_eq!(Outcome::ALL.map(Outcome::as_str), ["done", "refused"]);
///
/// struct Failure(u16);
/// impl Failure {
///     fn name(&self) -> &'static str {
///         if self.0 < 500 { "theirs" } else { "ours" }
///     }
/// }
/// telemetry::label_values! { Failure, Failure::name, ["theirs", "ours"] }
/// ```
#[macro_export]
macro_rules! label_values {
    ($(#[doc = $help:literal])+ $visibility:vis enum $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $help])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
        }

        #[allow(dead_code, reason = "not every set is walked through")]
        impl $name {
            /// All that there are.
            $visibility const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The value of the label.
            $visibility const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        $crate::label_values! { $name, |value: &$name| value.as_str(), [$($text),+] }
    };
    ($type:ty, $text:expr, $all:expr $(,)?) => {
        impl $crate::metrics::LabelValue for $type {
            fn all() -> Vec<&'static str> {
                $all.to_vec()
            }

            fn value(&self) -> Option<$crate::__private::StringValue> {
                let text: &'static str = ($text)(self);
                Some(text.into())
            }
        }
    };
}

//! The name of what one can listen to.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name of a topic, in bytes.
pub const TOPIC_MAX: usize = 128;

/// A topic: 1 to 128 of `a-z`, `A-Z`, `0-9`, `_`, `.`, `:`, `/` and `-`. Cheap to clone.
///
/// It is compared as it stands: there is no case folding, no pattern, and `/` means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(Arc<str>);

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a topic: expected 1 to 128 of a-z, A-Z, 0-9, _ . : / and -, got {given:?}")]
pub struct InvalidTopic {
    /// The start of what was given, at most [`TOPIC_MAX`] characters.
    pub given: String,
}

impl Topic {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidTopic`] when it is empty, too long or has another character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidTopic> {
        let name = name.as_ref();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
        if !name.is_empty() && name.len() <= TOPIC_MAX && name.bytes().all(allowed) {
            return Ok(Self(name.into()));
        }
        Err(InvalidTopic { given: name.chars().take(TOPIC_MAX).collect() })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that the index can be asked with the plain text that an event carries.
impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(name: &str) -> Result<Self, InvalidTopic> {
        Self::new(name)
    }
}

impl TryFrom<String> for Topic {
    type Error = InvalidTopic;

    fn try_from(name: String) -> Result<Self, InvalidTopic> {
        Self::new(name)
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_made_of_plain_characters() {
        for good in ["a", "orders/eu.west:7_x-Y", &"x".repeat(TOPIC_MAX)] {
            assert_eq!(Topic::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a*", "a\n", "\u{e4}", "a#", &"x".repeat(TOPIC_MAX + 1)] {
            assert!(Topic::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_refusal_quotes_a_bounded_part_of_what_was_given() {
        let refused = Topic::new("ä".repeat(10_000)).unwrap_err();
        assert_eq!(refused.given.chars().count(), TOPIC_MAX);
    }

    #[test]
    fn a_bad_topic_is_refused_by_serde_too() {
        let refused = serde_json::from_str::<Topic>("\"no such\"").unwrap_err().to_string();
        assert!(refused.starts_with("not a topic"), "{refused}");
    }
}

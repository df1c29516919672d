//! The id of a request: accepted from the client if it is sane, made otherwise, and carried to everything that follows.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// The name under which spans and log records bear the id.
pub const REQUEST_ID_FIELD: &str = "request.id";

/// The longest id that is accepted, in characters.
const LENGTH_MAX: usize = 128;

/// The id of a request: 1 to 128 ASCII letters, digits and `-_.:`, so that it can stand in any header, log line and row.
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Reads an id that somebody else made. `None` if it is not sane.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        ((1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// A new one: a UUID of version 7.
    pub fn make() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept() {
        for sane in ["abc-1.2:3_4", &"x".repeat(LENGTH_MAX)] {
            assert_eq!(RequestId::parse(sane).unwrap().as_str(), sane);
        }
    }

    #[test]
    fn any_other_is_none() {
        for bad in ["", "a b", "<script>", "a,b", "\u{fc}", &"x".repeat(LENGTH_MAX + 1)] {
            assert_eq!(RequestId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_new_one_is_sane_and_another() {
        let made = RequestId::make();
        assert_eq!(RequestId::parse(made.as_str()), Some(made.clone()));
        assert_ne!(made, RequestId::make());
    }
}

//! The id of a request: accepted from the client if it is sane, made otherwise, returned in every answer, and the
//! `instance` of every problem.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from a client, in characters.
const REQUEST_ID_MAX: usize = 128;

/// The id of the request in hand.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Only ids of plain ASCII are accepted or made.
        self.0.to_str().unwrap_or_default()
    }

    /// As the value of a header.
    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }

    /// The client's id if it is sane, a new one otherwise.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let sane =
            |value: &&HeaderValue| (1..=REQUEST_ID_MAX).contains(&value.len()) && value.as_bytes().iter().all(plain);
        let given = headers.get(REQUEST_ID).filter(sane).cloned();
        // A UUID is always a header's value.
        let made = || HeaderValue::try_from(uuid::Uuid::now_v7().to_string());
        Self(given.or_else(|| made().ok()).unwrap_or_else(|| HeaderValue::from_static("none")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: &str) -> RequestId {
        RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(given).unwrap())]))
    }

    #[test]
    fn a_sane_id_is_kept() {
        assert_eq!(id_for("abc-1.2:3_4").as_str(), "abc-1.2:3_4");
        assert_eq!(id_for(&"x".repeat(REQUEST_ID_MAX)).as_str().len(), REQUEST_ID_MAX);
    }

    #[test]
    fn any_other_is_replaced_by_a_new_one() {
        for bad in ["", "a b", "<script>", "a,b", &"x".repeat(REQUEST_ID_MAX + 1)] {
            assert!(uuid::Uuid::parse_str(id_for(bad).as_str()).is_ok(), "{bad}");
        }
        let none = HeaderMap::new();
        assert_ne!(RequestId::of(&none).as_str(), RequestId::of(&none).as_str());
    }
}

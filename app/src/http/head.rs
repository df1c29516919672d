//! What a head must not leave open: two values where one decides, or a body whose end two readers would see in two
//! places. A proxy before us may read such a request in another way than we do, and let through what it should not.
//!
//! Most of it never comes here: hyper refuses two different lengths, a length beside `chunked` ends the connection after
//! the request, a header with a line break or a control character cannot be read at all. This is what it lets pass.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Request, StatusCode, Version};

use super::problem::Problem;

/// Headers that decide something: the first of two is not better than the second.
const ONCE: [HeaderName; 4] = [HOST, AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("idempotency-key")];

/// What is ambiguous about a head, if anything is: a 400.
pub fn ambiguity<B>(request: &Request<B>) -> Option<Problem> {
    let headers = request.headers();
    let detail = if let Some(name) = ONCE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        format!("the header {name} must come once")
    } else if request.version() == Version::HTTP_11 && !headers.contains_key(HOST) {
        // RFC 9112, section 3.2.
        "the header host is missing".to_owned()
    } else if is_coded(headers) {
        "the header transfer-encoding must be chunked, and nothing else".to_owned()
    } else {
        return None;
    };
    Some(Problem::new(StatusCode::BAD_REQUEST, detail))
}

/// Whether the body comes in another coding than `chunked`, or in several: nobody here would decode them.
fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_some_and(|only| !only.as_bytes().eq_ignore_ascii_case(b"chunked")) || codings.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(version: Version, headers: &[(&str, &str)]) -> Option<String> {
        let builder = Request::builder().version(version);
        let request = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        ambiguity(&request.body(()).unwrap()).map(|problem| problem.detail().to_owned())
    }

    #[test]
    fn a_head_that_says_each_thing_once_is_fine() {
        assert_eq!(fault(Version::HTTP_11, &[("host", "a"), ("authorization", "b"), ("accept", "x")]), None);
        assert_eq!(fault(Version::HTTP_11, &[("host", "a"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(fault(Version::HTTP_11, &[("host", "a"), ("accept", "x"), ("accept", "y")]), None);
    }

    #[test]
    fn a_header_that_decides_must_come_once_even_if_both_are_the_same() {
        for name in ["host", "authorization", "content-type", "idempotency-key"] {
            let twice = [("host", "a"), (name, "b"), (name, "b")];
            assert_eq!(
                fault(Version::HTTP_11, &twice[usize::from(name == "host")..]).unwrap(),
                format!("the header {name} must come once")
            );
        }
    }

    #[test]
    fn a_host_is_needed_where_the_protocol_asks_for_it() {
        assert_eq!(fault(Version::HTTP_11, &[]).unwrap(), "the header host is missing");
        assert_eq!(fault(Version::HTTP_10, &[]), None);
        assert_eq!(fault(Version::HTTP_2, &[]), None, "it has :authority");
    }

    #[test]
    fn a_body_in_codings_that_nobody_decodes_is_refused() {
        for coding in ["gzip, chunked", "chunked, chunked", "identity"] {
            let said = fault(Version::HTTP_11, &[("host", "a"), ("transfer-encoding", coding)]).unwrap();
            assert_eq!(said, "the header transfer-encoding must be chunked, and nothing else");
        }
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(fault(Version::HTTP_11, &twice).is_some());
    }
}

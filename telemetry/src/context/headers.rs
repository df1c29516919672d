//! Trace, request id and deadline in HTTP headers.

use super::{RequestId, TraceContext, deadline};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the caller still waits for the answer, in whole milliseconds from 1.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Without `export::start` there is no global propagator, and W3C `traceparent` is the rule.
static GLOBAL: AtomicBool = AtomicBool::new(false);

/// From now on the global propagator decides which headers are read and written.
#[cfg(feature = "export")]
pub(crate) fn use_global_propagator() {
    GLOBAL.store(true, Ordering::Release);
}

/// The header [`REQUEST_TIMEOUT`] is there and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header {REQUEST_TIMEOUT} must be one whole number of milliseconds, 1 at least")]
pub struct BadTimeout;

/// Writes `context` into the headers of a request to somewhere else; what it is without is not written. The other side is
/// given less time than is left here.
pub fn inject(context: &TraceContext, headers: &mut HeaderMap) {
    inject_trace(context, headers);
    if let Some(id) = context.request_id().and_then(|id| HeaderValue::try_from(id.as_str()).ok()) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(deadline) = context.deadline {
        let left = deadline::less_reserve(deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(REQUEST_TIMEOUT, HeaderValue::from(left_ms.max(1)));
    }
}

fn inject_trace(context: &TraceContext, headers: &mut HeaderMap) {
    if GLOBAL.load(Ordering::Acquire) {
        let context = context.parent_context();
        global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Out(headers)));
    } else if let Some(value) = context.traceparent().and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Reads the trace and the request id that the caller sent. What is bad or absent is left out. The time that it gives is
/// read by [`requested_timeout`], for a bad one must be refused.
pub fn extract(headers: &HeaderMap) -> TraceContext {
    let id = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(RequestId::parse);
    extract_trace(headers).with_request_id(id)
}

fn extract_trace(headers: &HeaderMap) -> TraceContext {
    if GLOBAL.load(Ordering::Acquire) {
        let new = Context::new();
        TraceContext::of(&global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&new, &In(headers))
        }))
    } else {
        TraceContext::from_parts(headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()), None)
    }
}

/// How long the caller waits from now, if it says so.
///
/// # Errors
/// [`BadTimeout`] for anything but one whole number from 1: a caller that gives a deadline relies on it.
pub fn requested_timeout(headers: &HeaderMap) -> Result<Option<Duration>, BadTimeout> {
    let mut given = headers.get_all(REQUEST_TIMEOUT).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let ms = digits.and_then(|text| text.parse::<u64>().ok()).filter(|ms| *ms > 0);
    match (ms, given.next()) {
        (Some(ms), None) => Ok(Some(Duration::from_millis(ms))),
        _ => Err(BadTimeout),
    }
}

struct Out<'a>(&'a mut HeaderMap);

impl Injector for Out<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct In<'a>(&'a HeaderMap);

impl Extractor for In<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_the_headers() {
        let context = TraceContext::from_parts(Some(VALUE), None);
        let mut headers = HeaderMap::new();
        inject(&context, &mut headers);
        assert_eq!(headers.get("traceparent").map(HeaderValue::as_bytes), Some(VALUE.as_bytes()));
        assert_eq!(extract(&headers), context);
    }

    #[test]
    fn an_empty_context_writes_no_header() {
        let mut headers = HeaderMap::new();
        inject(&TraceContext::default(), &mut headers);
        assert!(headers.is_empty());
        assert!(extract(&headers).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_id_travels_and_a_deadline_travels_as_less_than_is_left() {
        let context = TraceContext::default().with_request_id(RequestId::parse("order-7"));
        let context = TraceContext { deadline: Some(Instant::now() + Duration::from_secs(2)), ..context };
        let mut headers = HeaderMap::new();
        inject(&context, &mut headers);
        assert_eq!((&headers[REQUEST_ID], &headers[REQUEST_TIMEOUT]), (&"order-7".parse().unwrap(), &1_950.into()));
        assert_eq!(extract(&headers), context);
        assert_eq!(requested_timeout(&headers), Ok(Some(Duration::from_millis(1_950))));
        tokio::time::advance(Duration::from_secs(3)).await;
        inject(&context, &mut headers);
        assert_eq!(headers[REQUEST_TIMEOUT], "1", "no header would be no limit");
    }

    #[test]
    fn a_timeout_is_one_whole_number_of_milliseconds_or_refused() {
        let with = |values: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(REQUEST_TIMEOUT, HeaderValue::from_bytes(value).unwrap());
            }
            requested_timeout(&headers)
        };
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[b"1"]), Ok(Some(Duration::from_millis(1))));
        for bad in [b"0".as_slice(), b"", b"-1", b"+1", b"1.5", b"1s", b" 1", b"99999999999999999999", b"\xff"] {
            assert_eq!(with(&[bad]), Err(BadTimeout), "{bad:?}");
        }
        assert_eq!(with(&[b"5", b"6"]), Err(BadTimeout), "which of them would it be?");
    }

    #[test]
    fn a_request_id_that_is_not_sane_is_none() {
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("a b"))]);
        assert_eq!(extract(&headers).request_id(), None);
    }

    #[test]
    fn a_bad_header_is_an_empty_context() {
        let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static("00-nonsense"))]);
        assert!(extract(&headers).is_empty());
    }
}

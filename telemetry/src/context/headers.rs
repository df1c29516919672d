//! A trace in HTTP headers.

use super::TraceContext;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use std::sync::atomic::{AtomicBool, Ordering};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Without `export::start` there is no global propagator, and W3C `traceparent` is the rule.
static GLOBAL: AtomicBool = AtomicBool::new(false);

/// From now on the global propagator decides which headers are read and written.
#[cfg(feature = "export")]
pub(crate) fn use_global_propagator() {
    GLOBAL.store(true, Ordering::Release);
}

/// Writes `context` into the headers of a request to somewhere else. An empty context writes nothing.
pub fn inject(context: &TraceContext, headers: &mut HeaderMap) {
    if GLOBAL.load(Ordering::Acquire) {
        let context = context.parent_context();
        global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut Out(headers)));
    } else if let Some(value) = context.traceparent().and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Reads what the caller sent. Bad or absent headers are an empty context.
pub fn extract(headers: &HeaderMap) -> TraceContext {
    if GLOBAL.load(Ordering::Acquire) {
        let new = Context::new();
        TraceContext::of(&global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&new, &In(headers))
        }))
    } else {
        TraceContext::from_parts(headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()), None)
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

    #[test]
    fn a_bad_header_is_an_empty_context() {
        let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static("00-nonsense"))]);
        assert!(extract(&headers).is_empty());
    }
}

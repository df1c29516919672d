//! One call: built, counted, sent within its time, and told in a span and in metrics.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use telemetry::context::{TraceContext, budget, inject, with_deadline};
use telemetry::metrics::Method as MethodLabel;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};
use url::Url;

use super::answer::{Answer, End};
use super::client::Outbound;
use super::error::OutboundError;
use super::lines::{Limits, Ticket};

telemetry::declare_spans! {
    /// One call over HTTP, to the head of its answer.
    struct CallSpan<'a> = ("{http.request.method}" as "http.client", client, child) {
        #[name = "otel.name"]
        name: &'a str,
        #[name = "http.request.method"]
        method: &'a str,
        #[name = "server.address"]
        address: Option<&'a str>,
        #[name = "server.port"]
        port: Option<i64>,
    } later {
        #[name = "http.response.status_code"]
        status: i64,
        #[name = "error.type"]
        error: &str,
        #[name = "otel.status_code"]
        end: &str,
    }
}

telemetry::labels! {
    /// Calls of one method.
    pub struct OfMethod {
        #[name = "http.request.method"]
        method: MethodLabel,
    }
    /// A call that was sent: with the status of its answer, or with what failed.
    pub struct Call<'a> {
        #[name = "http.request.method"]
        method: MethodLabel,
        #[name = "http.response.status_code"]
        status: Option<&'a str>,
        #[name = "error.type"]
        error: Option<&'a OutboundError>,
    }
    /// A call that was not sent, and why.
    pub struct NotSent<'a> {
        #[name = "error.type"]
        error: &'a OutboundError,
    }
}

telemetry::declare_metrics! {
    /// Time from the start of a call to the head of its answer, by method and status, or by what failed. Not by host:
    /// tenants choose hosts, and there is no end of them.
    pub static DURATION: Histogram<Call> = ("http.client.request.duration", "s",
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]);
    /// Calls that were not sent, by reason.
    pub static NOT_SENT: Counter<NotSent> = ("http.client.not_sent", "{request}");
    /// Calls that wait for a place or for the head of an answer.
    pub static ACTIVE: UpDownCounter<OfMethod> = ("http.client.active_requests", "{request}");
}

/// A call that is not sent yet. What is wrong with it is told by [`Request::send`].
#[must_use = "nothing is sent without `send`"]
pub struct Request {
    outbound: Outbound,
    method: Method,
    url: Result<Url, OutboundError>,
    headers: HeaderMap,
    body: Option<Bytes>,
    fault: Option<String>,
    limits: Limits,
    total: Duration,
    head: Duration,
    until: Option<Instant>,
    answer_max_bytes: usize,
}

impl Request {
    pub(super) fn new(outbound: Outbound, method: Method, url: &str) -> Self {
        let settings = outbound.settings();
        Self {
            url: settings.rules.check(url).map_err(OutboundError::from),
            method,
            headers: HeaderMap::new(),
            body: None,
            fault: None,
            limits: Limits::OfHost,
            total: settings.total_timeout,
            head: settings.head_timeout,
            until: None,
            answer_max_bytes: settings.answer_max_bytes,
            outbound,
        }
    }

    /// One more header.
    pub fn header(mut self, name: HeaderName, value: impl AsRef<[u8]>) -> Self {
        match HeaderValue::from_bytes(value.as_ref()) {
            Ok(value) => drop(self.headers.append(name, value)),
            Err(error) => self.fault = Some(format!("header {name}: {error}")),
        }
        self
    }

    /// More headers, instead of those of the same names.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    /// The body as it is.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The body as JSON, with its content type.
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match serde_json::to_vec(body) {
            Ok(body) => self.body = Some(body.into()),
            Err(error) => self.fault = Some(format!("body: {error}")),
        }
        self
    }

    /// What the whole call may take instead of the usual, never more than the caller has left.
    pub fn within(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// What the head of the answer may take instead of the usual, within the whole.
    pub fn head_within(mut self, head: Duration) -> Self {
        self.head = head;
        self
    }

    /// The call ends by then, whatever else it may take.
    pub fn until(mut self, deadline: Instant) -> Self {
        self.until = Some(deadline);
        self
    }

    /// Bytes of the answer that may be read, instead of the usual.
    pub fn answer_max_bytes(mut self, max_bytes: usize) -> Self {
        self.answer_max_bytes = max_bytes;
        self
    }

    /// Counted, and let through or not, by `key` instead of by host: for an interface that fails by customer, or by
    /// endpoint, and not as a whole.
    pub fn keyed(mut self, key: impl Into<String>) -> Self {
        self.limits = Limits::OfKey(key.into());
        self
    }

    /// Only the cap on all calls holds: the caller counts and breaks by itself, as channels do on their board.
    pub fn without_host_limits(mut self) -> Self {
        self.limits = Limits::None;
        self
    }

    /// Sends it, and waits for the head of the answer. Any status is an answer.
    ///
    /// # Errors
    /// [`OutboundError`]; [`OutboundError::repeat`] says whether it helps to try again.
    pub async fn send(self) -> Result<Answer, OutboundError> {
        let span = self.span();
        let method = MethodLabel::from(&self.method);
        async {
            let active = Active::start(method);
            let result = self.exchange().await;
            tell(&Span::current(), &active, &result);
            result
        }
        .instrument(span)
        .await
    }

    /// A client span by the conventions of OpenTelemetry, but for `url.full`: a path or a query may be a secret.
    fn span(&self) -> Span {
        let method = MethodLabel::from(&self.method);
        let (address, port) = match &self.url {
            Ok(url) => (url.host_str(), url.port_or_known_default()),
            Err(_) => (None, None),
        };
        let span = CallSpan { name: method.in_name(), method: method.as_str(), address, port: port.map(i64::from) };
        span.open()
    }

    async fn exchange(self) -> Result<Answer, OutboundError> {
        let began = Instant::now();
        let url = match (self.url, self.fault) {
            (Ok(url), None) => url,
            (Err(error), _) => return Err(error),
            (Ok(_), Some(fault)) => return Err(OutboundError::Invalid(fault)),
        };
        let host = url.origin().ascii_serialization();
        let end = end_of_call(began, self.total, self.until)
            .map_err(|source| OutboundError::NotBegun { host: host.clone(), source })?;
        let ticket = self.outbound.lines().enter(&host, &self.limits, end.at()).await?;

        let mut request = self.outbound.client().request(self.method, url);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let mut headers = self.headers;
        let sending = async {
            inject(&TraceContext::current(), &mut headers);
            request.headers(headers).send().await
        };
        let head_end = match Instant::now() + self.head {
            own if own < end.at() => End::Own(own),
            _ => end,
        };
        let sent = tokio::time::timeout_at(head_end.at(), with_deadline(end.at(), sending)).await;
        let result = match sent {
            Ok(sent) => sent.map_err(|error| OutboundError::of(&host, error)),
            Err(_) => Err(head_end.error(&host, began)),
        };
        judge(&ticket, &result);
        let answer_max_bytes = self.answer_max_bytes;
        result.map(|response| Answer { response, host, began, end, max_bytes: answer_max_bytes, _ticket: ticket })
    }
}

/// When the call ends: after its own time, or earlier because its caller says so.
fn end_of_call(began: Instant, total: Duration, until: Option<Instant>) -> Result<End, telemetry::context::OutOfTime> {
    let own = began + total;
    let callers = began + budget(total)?;
    let callers = until.map_or(callers, |until| until.min(callers));
    match callers {
        at if at <= began => Err(telemetry::context::OutOfTime),
        at if at < own => Ok(End::Callers(at)),
        _ => Ok(End::Own(own)),
    }
}

/// What the breaker learns: an answer is one of a host that is well unless it says 5xx; what is our fault, or our
/// caller's impatience, says nothing.
fn judge(ticket: &Ticket, result: &Result<reqwest::Response, OutboundError>) {
    match result {
        Ok(response) if response.status().is_server_error() => ticket.failed(),
        Ok(_) => ticket.succeeded(),
        Err(error) if error.is_the_hosts() => ticket.failed(),
        Err(_) => (),
    }
}

fn tell(span: &Span, active: &Active, result: &Result<Answer, OutboundError>) {
    let seconds = active.began.elapsed().as_secs_f64();
    match result {
        Ok(answer) => {
            let status = answer.status();
            CallSpan::status(span, status.as_u16().into());
            if status.is_client_error() || status.is_server_error() {
                CallSpan::end(span, "ERROR");
                CallSpan::error(span, status.as_str());
            }
            DURATION.record(seconds, Call { method: active.method, status: Some(known(&status)), error: None });
        }
        Err(error) => {
            CallSpan::end(span, "ERROR");
            CallSpan::error(span, error.class());
            match error.was_sent() {
                true => DURATION.record(seconds, Call { method: active.method, status: None, error: Some(error) }),
                false => NOT_SENT.add(1, NotSent { error }),
            }
        }
    }
}

/// The receiver chooses it, and there are 900: those that nobody has given a meaning are one.
fn known(status: &StatusCode) -> &str {
    if status.canonical_reason().is_some() { status.as_str() } else { "other" }
}

/// One call in the metrics, also when its future is dropped.
struct Active {
    method: MethodLabel,
    began: Instant,
}

impl Active {
    fn start(method: MethodLabel) -> Self {
        ACTIVE.add(1, OfMethod { method });
        Self { method, began: Instant::now() }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.add(-1, OfMethod { method: self.method });
    }
}

#[cfg(test)]
mod tests;

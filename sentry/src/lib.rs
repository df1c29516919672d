//! Incidents as events in Sentry, or in whatever else takes its envelopes.
//!
//! Of the crate `sentry` only the formats and the rules of its limits are used, not its client: that one would catch panics
//! beside ours, keep a queue and a thread beside ours, and wait for a receiver that hangs until the process is killed. Here
//! a report is one request on the thread that [`telemetry::reporters`] has for it, and its outcome is known.

mod event;

use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use sentry::protocol::Envelope;
use sentry::transports::{RateLimiter, RateLimitingCategory};
use sentry::types::{Dsn, Scheme};
use telemetry::incidents::Incident;
use telemetry::reporters::{ErrorReporter, Failed};

/// What one event may take. Nobody waits for it but those behind it.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How we name ourselves to the receiver.
const AGENT: &str = concat!("perennial/", env!("CARGO_PKG_VERSION"));

/// What is reported, and where to.
#[derive(Debug)]
pub struct SentrySettings<'a> {
    /// The DSN of a project: its address, with a key.
    pub dsn: &'a str,
    /// What was released: `perennial@0.1.0`.
    pub release: String,
    /// Where it runs: `production`.
    pub environment: String,
}

/// Tells Sentry of each incident, as one event whose id is the incident's.
pub struct SentryReporter {
    client: Client,
    url: Url,
    auth: HeaderValue,
    release: String,
    environment: String,
    limits: RateLimiter,
}

/// Where a DSN leads: the address to which events are sent, without the key.
///
/// # Errors
/// It is no DSN; why.
pub fn address_of(dsn: &str) -> Result<String, String> {
    dsn.parse::<Dsn>().map(|dsn| dsn.envelope_api_url().into()).map_err(|error| error.to_string())
}

impl SentryReporter {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// The DSN is none, or the client cannot be made.
    pub fn new(settings: SentrySettings<'_>) -> Result<Self, Failed> {
        let dsn: Dsn = settings.dsn.parse()?;
        let mut auth = HeaderValue::try_from(dsn.to_auth(Some(AGENT)).to_string())?;
        auth.set_sensitive(true);
        Ok(Self {
            client: telemetry::export::blocking_client(TIMEOUT, dsn.scheme() == Scheme::Https)?,
            url: dsn.envelope_api_url(),
            auth,
            release: settings.release,
            environment: settings.environment,
            limits: RateLimiter::new(),
        })
    }

    /// Heeds what the receiver says of its limits.
    fn heed(&mut self, status: StatusCode, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(limits) = text("x-sentry-rate-limits") {
            self.limits.update_from_sentry_header(limits);
        } else if let Some(wait) = text(RETRY_AFTER.as_str()) {
            self.limits.update_from_retry_after(wait);
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            self.limits.update_from_429();
        }
    }
}

impl ErrorReporter for SentryReporter {
    fn name(&self) -> &'static str {
        "sentry"
    }

    fn report(&mut self, incident: &Incident) -> Result<(), Failed> {
        if let Some(left) = self.limits.is_disabled(RateLimitingCategory::Error) {
            return Err(format!("the receiver wants to be left alone for {} s", left.as_secs()).into());
        }
        let mut body = Vec::new();
        Envelope::from(event::of(incident, &self.release, &self.environment)).to_writer(&mut body)?;
        let request = self.client.post(self.url.clone()).header("x-sentry-auth", self.auth.clone());
        let request = request.header(CONTENT_TYPE, "application/x-sentry-envelope").body(body);
        let answer = request.send().map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        self.heed(status, answer.headers());
        if status.is_success() { Ok(()) } else { Err(format!("the receiver answered {status}").into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_leads_to_an_address_without_its_key() {
        let address = address_of("https://s3cret@o1.ingest.sentry.io/42").unwrap();
        assert_eq!(address, "https://o1.ingest.sentry.io/api/42/envelope/");
        for bad in ["", "x", "https://o1.ingest.sentry.io/42", "https://key@o1.ingest.sentry.io/", "ftp://key@host/1"] {
            assert!(address_of(bad).is_err(), "{bad}");
        }
    }
}

//! HTTP as a stranger speaks it: a base address, perhaps a key, and the whole answer.

use std::sync::Once;
use std::time::Duration;

use http::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// The key of the tenant `demo`, which exists in the development profile only.
pub const DEMO_KEY: &str = "pk_demo_development_only";

/// No request of a test may take longer: a hang must fail the test, not stop it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one listener.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; fails the test with the body if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the {} answer: {}", self.status, self.body))
    }

    /// A header's value, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }

    /// The answer itself if it has this status; else the test fails with the body.
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

impl Client {
    /// A client of `http://host:port`, without a key.
    pub fn new(base: &str) -> Client {
        install_tls();
        #[allow(clippy::disallowed_methods, reason = "this plays somebody else")]
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().unwrap();
        Client { http, base: base.trim_end_matches('/').to_owned(), key: None }
    }

    /// The same client speaking with `key`.
    pub fn with_key(&self, key: &str) -> Client {
        Client { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same client without a key.
    pub fn without_key(&self) -> Client {
        Client { key: None, ..self.clone() }
    }

    /// `http://host:port`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The key it speaks with.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// A request to be completed and sent by [`send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// GET; fails the test if there is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    /// GET, or `None` if nobody answers.
    pub async fn try_get(&self, path: &str) -> Option<Answer> {
        try_send(self.request(Method::GET, path)).await.ok()
    }

    /// POST of JSON; fails the test if there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }
}

/// Sends and reads the whole answer; fails the test if there is none.
pub async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

/// Sends and reads the whole answer.
///
/// # Errors
///
/// Any failure to connect, send or read.
pub async fn try_send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}

/// Installs the one TLS provider of the project, without which no client can be built.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

//! How the service calls others over HTTP: one client for all, channels and a fork's own code alike.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`client`] | the client: no redirects, no proxy, no repetition, checked addresses only |
//! | [`addresses`], [`target`] | which addresses and which URLs may be called (SSRF) |
//! | [`request`], [`answer`] | one call and its answer, each within its time and its cap |
//! | `lines`, [`breaker`] | how many calls are in flight, in all and to each host, and which host is given a rest |
//! | [`error`] | why a call failed, and whether it helps to repeat it |
//!
//! Every call carries on what it is part of: `traceparent`, `X-Request-ID`, and as `X-Request-Timeout-Ms` what the
//! other side has left, which is always less than we have ([`telemetry::context`]). Every wait has an end: for a place, for
//! a connection (3 s), for the head of the answer (5 s), for the whole (10 s), and never beyond the caller's deadline. A
//! call that its caller has no time for is not begun.
//!
//! ```
//! use actors::outbound::{Outbound, OutboundError, OutboundSettings, TargetRules};
//! # use actors::outbound::Repeat;
//! # let _ = rustls::crypto::ring::default_provider().install_default();
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! # let url = format!("http://{}/invoices", listener.local_addr().unwrap());
//! # let answer = || async { axum::Json(serde_json::json!({ "number": 7 })) };
//! # let app = axum::Router::new().route("/invoices", axum::routing::post(answer));
//! # let server = supervision::TaskGroup::new("invoices");
//! # server.spawn("serve", async move { axum::serve(listener, app).await.unwrap() });
//! #[derive(serde::Deserialize)]
//! struct Invoice {
//!     number: u64,
//! }
//!
//! async fn invoice(outbound: &Outbound, url: &str) -> Result<Invoice, OutboundError> {
//!     let answer = outbound.post(url).json(&serde_json::json!({ "amount": 12 })).send().await?;
//!     answer.error_for_status()?.json().await
//! }
//!
//! // Without a word only https to public addresses is allowed; this is a service of one's own.
//! let settings = OutboundSettings { rules: TargetRules::own_network(), ..OutboundSettings::default() };
//! let outbound = Outbound::new(settings)?;
//! assert_eq!(invoice(&outbound, &url).await?.number, 7);
//!
//! let refused = invoice(&outbound, "http://169.254.169.254/").await;
//! assert_eq!(refused.err().map(|error| error.repeat()), Some(Repeat::Useless));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! In a handler of jobs `?` is enough: an error becomes a retry, or the end of the job where a retry is useless
//! ([`crate::jobs::JobError`]).

pub mod addresses;
pub mod answer;
pub mod breaker;
pub mod client;
pub mod error;
mod lines;
pub mod request;
mod settings;
pub mod target;

#[cfg(test)]
pub(crate) mod testing;

pub use answer::Answer;
pub use client::{BuildError, Outbound};
pub use error::{OutboundError, Repeat};
pub use request::Request;
pub use settings::OutboundSettings;
pub use target::TargetRules;

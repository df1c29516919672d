//! The HTTP client of the exporters: one for all signals that share a timeout, rather than one for each.
//!
//! It is the blocking client, for it works on the SDK's plain threads; the async one would kill them.

use super::plan::Route;
use reqwest::blocking::Client;
use std::collections::HashMap;
use std::time::Duration;

/// Clients by timeout and by whether they speak TLS.
#[derive(Debug, Default)]
pub(super) struct Clients {
    built: HashMap<(Duration, bool), Client>,
}

impl Clients {
    /// A client for `route`. Built on a thread of its own if need be: the caller may be inside a runtime, where the blocking
    /// client refuses to be born.
    pub(super) fn client(&mut self, route: &Route) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
        let key = (route.timeout, route.is_tls());
        if let Some(client) = self.built.get(&key) {
            return Ok(client.clone());
        }
        let client = build(key.0, key.1)?;
        self.built.insert(key, client.clone());
        Ok(client)
    }
}

/// A client for whoever tells of telemetry on a thread of its own, and must not go by the service's own way out. `tls` says
/// whether it is to speak TLS.
///
/// # Errors
/// The operating system refuses a thread, or TLS cannot be set up.
pub fn build(timeout: Duration, tls: bool) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let (done, built) = std::sync::mpsc::sync_channel(1);
    crate::door::thread("telemetry-client", move || {
        // Fails only if another provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        #[allow(clippy::disallowed_methods, reason = "telemetry must not wait for what it tells of")]
        let builder = Client::builder().timeout(timeout);
        // Without TLS no root certificates are read: it is quicker, and a bare container has none.
        let builder = if tls { builder } else { builder.tls_certs_only([]) };
        drop(done.send(builder.build()));
    })?;
    Ok(built.recv()??)
}

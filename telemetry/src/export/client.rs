//! The HTTP client of the exporters: one for all signals that share a timeout, rather than one for each.
//!
//! It is the blocking client, for it works on the SDK's plain threads; the async one would kill them.

use super::plan::{Certificates, Route};
use reqwest::blocking::{Client, ClientBuilder};
use reqwest::{Certificate, Identity};
use std::collections::HashMap;
use std::time::Duration;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Clients by timeout, by whether they speak TLS, and by whom they trust then.
#[derive(Debug, Default)]
pub(super) struct Clients {
    built: HashMap<(Duration, Option<Certificates>), Client>,
}

impl Clients {
    /// A client for `route`. Built on a thread of its own if need be: the caller may be inside a runtime, where the blocking
    /// client refuses to be born.
    pub(super) fn client(&mut self, route: &Route) -> Result<Client, BoxError> {
        let key = (route.timeout, route.is_tls().then(|| route.certificates.clone()));
        if let Some(client) = self.built.get(&key) {
            return Ok(client.clone());
        }
        let client = build_with(key.0, key.1.clone())?;
        self.built.insert(key, client.clone());
        Ok(client)
    }
}

/// A client for whoever tells of telemetry on a thread of its own, and must not go by the service's own way out. `tls` says
/// whether it is to speak TLS.
///
/// # Errors
/// The operating system refuses a thread, or TLS cannot be set up.
pub fn build(timeout: Duration, tls: bool) -> Result<Client, BoxError> {
    build_with(timeout, tls.then(Certificates::default))
}

/// Without certificates it speaks no TLS.
fn build_with(timeout: Duration, tls: Option<Certificates>) -> Result<Client, BoxError> {
    let (done, built) = std::sync::mpsc::sync_channel(1);
    crate::door::thread("telemetry-client", move || {
        // Fails only if another provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        #[allow(clippy::disallowed_methods, reason = "telemetry must not wait for what it tells of")]
        let builder = Client::builder().timeout(timeout);
        // Without TLS no root certificates are read: it is quicker, and a bare container has none.
        let built = match tls {
            Some(certificates) => trusting(builder, certificates).and_then(ClientBuilder::build),
            None => builder.tls_certs_only([]).build(),
        };
        drop(done.send(built));
    })?;
    Ok(built.recv()??)
}

fn trusting(builder: ClientBuilder, Certificates { authority, own }: Certificates) -> reqwest::Result<ClientBuilder> {
    let builder = match authority {
        Some(pem) => builder.tls_certs_only(Certificate::from_pem_bundle(&pem)?),
        None => builder,
    };
    match own {
        Some((certificate, key)) => Ok(builder.identity(Identity::from_pem(&[key, certificate].concat())?)),
        None => Ok(builder),
    }
}

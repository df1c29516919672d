//! The one HTTP client that all channels share, with the address guard built into its name resolution.
//!
//! What it never does: follow a redirect (a checked URL could point inwards with its second hop), use a proxy from the
//! environment (the proxy would connect to addresses that nobody checked), or read an answer without a cap.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::addresses::{DeniedAddress, Reach};
use super::target::TargetRules;

/// The limits of the shared client.
#[derive(Debug, Clone)]
pub struct OutboundSettings {
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// The whole request, from the first lookup to the last byte of the answer.
    pub request_timeout: Duration,
    /// Idle connections kept for one host.
    pub idle_per_host_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Bytes of an answer that are read and kept; the rest is left on the wire and the connection closed.
    pub answer_max_bytes: usize,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// Which URLs may be called.
    pub rules: TargetRules,
}

/// The client could not be built, for example because the machine has no CA certificates.
#[derive(Debug, thiserror::Error)]
#[error("build the outbound HTTP client")]
pub struct BuildError(#[from] reqwest::Error);

/// A name resolved to nothing we may connect to.
#[derive(Debug, thiserror::Error)]
#[error("host {host} has no address that is allowed: {last}")]
pub struct DeniedHost {
    host: String,
    last: DeniedAddress,
}

/// A future of the addresses of a name.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Where addresses of names come from; a test puts a name server here that changes its mind.
pub trait NameService: Send + Sync + 'static {
    /// All addresses of `host`, unchecked.
    fn lookup(&self, host: String) -> Lookup;
}

/// The name service of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl NameService for SystemNames {
    fn lookup(&self, host: String) -> Lookup {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The shared client and the rules it keeps. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    client: reqwest::Client,
    settings: Arc<OutboundSettings>,
}

impl Outbound {
    /// A client that asks the machine's name service.
    ///
    /// # Errors
    /// [`BuildError`] when TLS cannot be set up. A rustls provider must have been installed before.
    pub fn new(settings: OutboundSettings) -> Result<Self, BuildError> {
        Self::with_names(settings, SystemNames)
    }

    /// A client that asks `names`.
    ///
    /// # Errors
    /// As [`Outbound::new`].
    pub fn with_names(settings: OutboundSettings, names: impl NameService) -> Result<Self, BuildError> {
        let client = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .pool_max_idle_per_host(settings.idle_per_host_max)
            .pool_idle_timeout(settings.idle_timeout)
            .user_agent(&settings.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // reqwest repeats a request on some protocol errors by itself; attempts are counted by us alone.
            .retry(reqwest::retry::never())
            .dns_resolver(CheckedNames { names: Arc::new(names), reach: settings.rules.reach })
            .build()?;
        Ok(Self { client, settings: Arc::new(settings) })
    }

    /// The limits this client was built with.
    #[must_use]
    pub fn settings(&self) -> &OutboundSettings {
        &self.settings
    }

    /// Begins a POST to a URL that [`TargetRules::check`] has accepted.
    pub fn post(&self, url: url::Url) -> reqwest::RequestBuilder {
        self.client.post(url)
    }

    /// The start of an answer's body as text, at most `answer_max_bytes`; what cannot be read is left out, because the
    /// status has said all that counts.
    pub async fn read_start(&self, mut answer: reqwest::Response) -> String {
        let limit = self.settings.answer_max_bytes;
        let mut start = Vec::new();
        while start.len() < limit {
            match answer.chunk().await {
                Ok(Some(chunk)) => start.extend_from_slice(&chunk[..chunk.len().min(limit - start.len())]),
                Ok(None) | Err(_) => break,
            }
        }
        String::from_utf8_lossy(&start).into_owned()
    }
}

/// True if the request failed because every address of its host is denied.
#[must_use]
pub fn denied_host(error: &reqwest::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(denied) = cause.downcast_ref::<DeniedHost>() {
            return Some(denied.to_string());
        }
        source = cause.source();
    }
    None
}

/// Hands on checked addresses only, and they are the ones connected to: a name that changes its address between a check
/// and the connection gains nothing, since there is one lookup.
struct CheckedNames {
    names: Arc<dyn NameService>,
    reach: Reach,
}

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let lookup = self.names.lookup(host.clone());
        let reach = self.reach;
        Box::pin(async move {
            let found = lookup.await?;
            let allowed = keep_allowed(reach, host, found)?;
            Ok(Box::new(allowed.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

fn keep_allowed(reach: Reach, host: String, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, DeniedHost> {
    let mut allowed = Vec::with_capacity(found.len());
    let mut last = None;
    for address in found {
        match reach.check(address) {
            Ok(()) => allowed.push(address),
            Err(denied) => last = Some(denied),
        }
    }
    match last {
        Some(last) if allowed.is_empty() => Err(DeniedHost { host, last }),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::test_support::{Receiver, install_tls, outbound_settings};
    use super::*;

    /// Answers with an allowed address first and with the metadata service ever after.
    struct Rebinding(AtomicUsize);

    impl NameService for Rebinding {
        fn lookup(&self, _host: String) -> Lookup {
            let turn = self.0.fetch_add(1, Ordering::SeqCst);
            let address: IpAddr = if turn == 0 { [127, 0, 0, 1] } else { [169, 254, 169, 254] }.into();
            Box::pin(async move { Ok(vec![address]) })
        }
    }

    #[tokio::test]
    async fn a_name_that_rebinds_to_a_denied_address_is_never_connected_to() {
        install_tls();
        let receiver = Receiver::answering(|_| http::StatusCode::OK).await;
        let url: url::Url = receiver.url.replace("127.0.0.1", "rebind.example").parse().unwrap();
        let outbound = Outbound::with_names(outbound_settings(), Rebinding(AtomicUsize::new(0))).unwrap();

        assert!(outbound.post(url.clone()).send().await.unwrap().status().is_success());
        let error = outbound.post(url).send().await.unwrap_err();
        assert_eq!(
            denied_host(&error).as_deref(),
            Some(
                "host rebind.example has no address that is allowed: address 169.254.169.254 is not allowed: link-local"
            )
        );
    }

    #[test]
    fn of_several_addresses_only_the_allowed_ones_are_handed_on() {
        let found: Vec<IpAddr> =
            ["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1111"].iter().map(|text| text.parse().unwrap()).collect();
        let allowed = keep_allowed(Reach::Public, "mixed.example".to_owned(), found).unwrap();
        assert_eq!(allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.1.1.1", "2606:4700::1111"]);
    }

    #[tokio::test]
    async fn the_machines_name_for_itself_is_refused_in_production() {
        install_tls();
        let mut settings = outbound_settings();
        settings.rules.reach = Reach::Public;
        let outbound = Outbound::new(settings).unwrap();
        let error = outbound.post("http://localhost:9/".parse().unwrap()).send().await.unwrap_err();
        assert!(denied_host(&error).unwrap().contains("loopback"));
    }
}

//! The one HTTP client of the service, with the address guard built into its name resolution.
//!
//! What it never does: follow a redirect (a checked URL could point inwards with its second hop), use a proxy from the
//! environment (the proxy would connect to addresses that nobody checked), repeat a request by itself, or read an answer
//! without a cap.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::addresses::{DeniedAddress, Reach};
use super::lines::Lines;
use super::request::Request;
use super::settings::OutboundSettings;

/// The client could not be built, for example because the machine has no CA certificates.
#[derive(Debug, thiserror::Error)]
#[error("build the outbound HTTP client")]
pub struct BuildError(#[from] reqwest::Error);

/// A name resolved to nothing we may connect to. The address is not told: a tenant that chose the name could ask so for
/// every name of our own network.
#[derive(Debug, Clone, thiserror::Error)]
#[error("host {host} has no address that is allowed: {}", .last.block)]
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
pub struct Outbound(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    settings: OutboundSettings,
    names: Arc<dyn NameService>,
    lines: Arc<Lines>,
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
        let lines = Arc::new(Lines::new(&settings));
        Self::build(settings, Arc::new(names), lines)
    }

    /// The same client under other settings, such as the rules for one's own network. Requests in flight are counted
    /// together with those of this one and the breakers are the same, so the settings of both count only in the first.
    ///
    /// # Errors
    /// As [`Outbound::new`].
    pub fn with(&self, change: impl FnOnce(&mut OutboundSettings)) -> Result<Self, BuildError> {
        let mut settings = self.0.settings.clone();
        change(&mut settings);
        Self::build(settings, Arc::clone(&self.0.names), Arc::clone(&self.0.lines))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one client")]
    fn build(settings: OutboundSettings, names: Arc<dyn NameService>, lines: Arc<Lines>) -> Result<Self, BuildError> {
        let client = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(settings.idle_per_host_max)
            .pool_idle_timeout(settings.idle_timeout)
            .user_agent(&settings.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // reqwest repeats a request on some protocol errors by itself; attempts are counted by us alone.
            .retry(reqwest::retry::never())
            .dns_resolver(CheckedNames { names: Arc::clone(&names), reach: settings.rules.reach })
            .build()?;
        Ok(Self(Arc::new(Inner { client, settings, names, lines })))
    }

    /// The settings this client was built with.
    #[must_use]
    pub fn settings(&self) -> &OutboundSettings {
        &self.0.settings
    }

    /// Begins a GET.
    pub fn get(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::GET, url)
    }

    /// Begins a POST.
    pub fn post(&self, url: impl AsRef<str>) -> Request {
        self.request(Method::POST, url)
    }

    /// Begins a request. The URL is checked by the rules of this client; what is wrong with it is told by
    /// [`Request::send`].
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> Request {
        Request::new(self.clone(), method, url.as_ref())
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.0.client
    }

    pub(super) fn lines(&self) -> &Lines {
        &self.0.lines
    }
}

/// Why every address of the host is denied, if that is why the request failed.
pub(super) fn denied_host(error: &reqwest::Error) -> Option<&DeniedHost> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(denied) = cause.downcast_ref::<DeniedHost>() {
            return Some(denied);
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

    use super::super::OutboundError;
    use super::super::testing::{Receiver, install_tls, outbound_settings};
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
        let url = receiver.url.replace("127.0.0.1", "rebind.example");
        let outbound = Outbound::with_names(outbound_settings(), Rebinding(AtomicUsize::new(0))).unwrap();

        assert!(outbound.post(&url).send().await.unwrap().status().is_success());
        assert_eq!(
            outbound.post(&url).send().await.unwrap_err().to_string(),
            "host rebind.example has no address that is allowed: link-local",
            "who is told of it must not learn the addresses behind our own names"
        );
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_an_instruction() {
        install_tls();
        let receiver = Receiver::answering(|_| (http::StatusCode::FOUND, [("location", "/elsewhere")])).await;
        let outbound = Outbound::new(outbound_settings()).unwrap();
        assert_eq!(outbound.get(&receiver.url).send().await.unwrap().status(), 302);
        assert_eq!(receiver.requests().len(), 1);
    }

    #[tokio::test]
    async fn rules_of_ones_own_network_are_given_in_so_many_words() {
        install_tls();
        let receiver = Receiver::answering(|_| http::StatusCode::OK).await;
        let public = Outbound::new(OutboundSettings::default()).unwrap();
        let refused = public.get(&receiver.url).send().await.unwrap_err();
        assert_eq!(refused.to_string(), "the URL is refused: scheme http is not allowed, use https");
        let own = public.with(|settings| settings.rules = super::super::TargetRules::own_network()).unwrap();
        assert!(own.get(&receiver.url).send().await.is_ok());
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
        let error = outbound.post("http://localhost:9/").send().await.unwrap_err();
        assert!(matches!(&error, OutboundError::Denied(denied) if denied.to_string().contains("loopback")), "{error}");
    }
}

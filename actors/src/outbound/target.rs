//! The check of a URL, before it is stored and again before each request.
//!
//! The WHATWG parser of the `url` crate (the one reqwest uses as well, so that there are no two opinions) turns every
//! spelling of an address into one: `127.1`, `0x7f000001` and `2130706433` all become `127.0.0.1`. Names are checked
//! later, when they are resolved: see [`super::client`].

use std::net::IpAddr;

use url::{Host, Url};

use super::addresses::{DeniedAddress, Reach};

/// The longest URL we store and call, in bytes.
pub const URL_MAX_BYTES: usize = 2_048;

/// What a tenant's URL may look like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetRules {
    /// Which addresses may be connected to.
    pub reach: Reach,
    /// Which schemes may be used.
    pub schemes: Schemes,
    /// Ports that may be used; empty means any.
    pub ports: Vec<u16>,
}

/// The schemes of a webhook's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schemes {
    /// Only `https`.
    #[default]
    HttpsOnly,
    /// Also plain `http`, for development: what is sent can be read on the way.
    HttpAndHttps,
}

/// Why a URL is refused. The texts are shown to the tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL at all.
    #[error("not a valid URL: {0}")]
    Invalid(#[from] url::ParseError),
    /// Longer than [`URL_MAX_BYTES`].
    #[error("URL is longer than {URL_MAX_BYTES} bytes")]
    TooLong,
    /// A scheme that is not allowed.
    #[error("scheme {0} is not allowed, use https")]
    Scheme(String),
    /// A user name or a password before the host.
    #[error("user name and password are not allowed in the URL")]
    UserInfo,
    /// A URL without a host.
    #[error("URL has no host")]
    NoHost,
    /// A port outside the list.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// An address, written out in the URL, that is not allowed.
    #[error(transparent)]
    Address(#[from] DeniedAddress),
}

impl TargetRules {
    /// For services of one's own, whose URLs no tenant chooses: plain `http`, private addresses and any port are allowed.
    #[must_use]
    pub fn own_network() -> Self {
        Self { reach: Reach::PublicAndPrivate, schemes: Schemes::HttpAndHttps, ports: Vec::new() }
    }

    /// Parses and checks a URL; what comes back is the one that may be called.
    ///
    /// # Errors
    /// [`TargetError`] says which rule is broken.
    pub fn check(&self, text: &str) -> Result<Url, TargetError> {
        if text.len() > URL_MAX_BYTES {
            return Err(TargetError::TooLong);
        }
        let mut url = Url::parse(text)?;
        self.check_scheme(&url)?;
        // A user name is the oldest trick to make a host look like another; nothing needs it here.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        self.check_host(&url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            return Err(TargetError::Port(port));
        }
        url.set_fragment(None);
        Ok(url)
    }

    fn check_scheme(&self, url: &Url) -> Result<(), TargetError> {
        match (url.scheme(), self.schemes) {
            ("https", _) | ("http", Schemes::HttpAndHttps) => Ok(()),
            (other, _) => Err(TargetError::Scheme(other.to_owned())),
        }
    }

    /// Only for addresses written out: reqwest never asks its resolver about them.
    fn check_host(&self, url: &Url) -> Result<(), TargetError> {
        match url.host().ok_or(TargetError::NoHost)? {
            Host::Ipv4(address) => Ok(self.reach.check(IpAddr::V4(address))?),
            Host::Ipv6(address) => Ok(self.reach.check(IpAddr::V6(address))?),
            Host::Domain(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn production() -> TargetRules {
        TargetRules { ports: vec![443, 8443], ..TargetRules::default() }
    }

    fn reason(url: &str) -> String {
        production().check(url).unwrap_err().to_string()
    }

    #[test]
    fn every_spelling_of_a_denied_address_is_refused() {
        let table = [
            ("https://127.0.0.1/", "loopback"),
            ("https://127.1/", "loopback"),
            ("https://0x7f000001/", "loopback"),
            ("https://2130706433/", "loopback"),
            ("https://0177.0.0.1/", "loopback"),
            ("https://%31%32%37.0.0.1/", "loopback"),
            ("https://127。0。0。1/", "loopback"),
            ("https://[::1]/", "loopback"),
            ("https://169.254.169.254/latest/meta-data", "link-local"),
            ("https://[::ffff:169.254.169.254]/", "IPv4-mapped"),
            ("https://[::ffff:a9fe:a9fe]/", "IPv4-mapped"),
            ("https://[64:ff9b::a9fe:a9fe]/", "NAT64"),
            ("https://[2002:a9fe:a9fe::]/", "6to4"),
            ("https://0/", "this network"),
            ("https://10.0.0.1:8443/", "private"),
        ];
        for (url, block) in table {
            assert!(reason(url).ends_with(&format!("is not allowed: {block}")), "{url}: {}", reason(url));
        }
    }

    #[test]
    fn user_names_schemes_and_ports_that_are_not_allowed_are_refused() {
        assert_eq!(reason("https://example.com@127.0.0.1/"), "user name and password are not allowed in the URL");
        assert_eq!(reason("https://example.com:x@example.org/"), "user name and password are not allowed in the URL");
        // A backslash ends the host for the parser, as it does for every browser.
        assert!(reason(r"https://127.0.0.1\@example.com/").contains("loopback"));
        assert_eq!(reason("http://example.com/"), "scheme http is not allowed, use https");
        assert_eq!(reason("file:///etc/passwd"), "scheme file is not allowed, use https");
        assert_eq!(reason("https://example.com:22/"), "port 22 is not allowed");
        assert!(reason("not a url").starts_with("not a valid URL"));
        let long = format!("https://example.com/{}", "a".repeat(URL_MAX_BYTES));
        assert_eq!(reason(&long), "URL is longer than 2048 bytes");
    }

    #[test]
    fn a_public_https_url_is_accepted_and_loses_its_fragment() {
        let url = production().check("https://example.com/hook?a=1#part").unwrap();
        assert_eq!(url.as_str(), "https://example.com/hook?a=1");
        assert!(production().check("https://example.com:8443/").is_ok());
    }

    #[test]
    fn the_rules_of_ones_own_network_accept_a_plain_local_address() {
        let rules = TargetRules::own_network();
        assert!(rules.check("http://127.0.0.1:3000/hook").is_ok());
        assert!(rules.check("http://169.254.169.254/").is_err());
    }
}

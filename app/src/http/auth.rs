//! Who is asking: a tenant by its key on the API, the operator by the token on the admin listener.
//!
//! Keys are kept as SHA-256 and looked up by it. The hash of a guess tells nothing about the hash of a key, so a lookup
//! in an index leaks nothing that helps to guess; the operator's token is compared in constant time. What comes from an
//! address with too many guesses is answered 429, but for keys that were right before.

use std::net::IpAddr;
use std::sync::Arc;

use actors::model::TenantId;
use actors::store::{KeyHash, Store, StoreError, Tenant};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::edge::{self, RequestSpan};
use super::failures::{Failures, peer_of};
use super::problem::Problem;
use super::tenants::Tenants;

/// The tenant of the development profile.
pub const DEMO_TENANT: &str = "demo";

/// Its key, which every reader of this line knows.
pub const DEMO_KEY: &str = "pk_demo_development_only";

/// Whether [`DEMO_KEY`] opens anything. Outside development it does not, even over a store that was seeded with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoKey {
    /// It is looked up like any other key.
    Accepted,
    /// It is nobody's, whatever the store says.
    Refused,
}

const CHALLENGE: &str = r#"Bearer realm="api""#;
const FOREIGN: &str = r#"Bearer realm="api", error="invalid_token""#;
const ADMIN_CHALLENGE: &str = r#"Bearer realm="admin""#;

/// Who may come in as a tenant.
#[derive(Clone)]
pub struct Door {
    /// The tenants and their keys.
    pub tenants: Tenants,
    /// What wrong keys cost.
    pub failures: Failures,
}

/// Middleware of the API: lets tenants pass, with their [`TenantId`], their row and the hash of their key in the
/// extensions.
pub async fn tenant(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    match door.identify(request.headers(), peer_of(&request)).await {
        Ok((key, tenant)) => {
            let id = tenant.id.clone();
            RequestSpan::tenant(&tracing::Span::current(), id.as_str());
            let extensions = request.extensions_mut();
            extensions.insert(key);
            extensions.insert(id.clone());
            extensions.insert(tenant);
            edge::guarded_for(&id, request, next).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Door {
    async fn identify(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<(KeyHash, Arc<Tenant>), Problem> {
        let Some(key) = bearer(headers).map(KeyHash::of) else {
            let detail = "a key is needed, in the header authorization: Bearer KEY";
            return Err(Problem::unauthorized(detail, CHALLENGE));
        };
        if !self.tenants.has_met(&key) {
            self.failures.check(peer)?;
        }
        match self.tenants.find(&key).await? {
            Some(tenant) => enabled(tenant).map(|tenant| (key, tenant)),
            None => {
                self.failures.count(peer);
                Err(Problem::unauthorized("this key is nobody's", FOREIGN))
            }
        }
    }
}

/// Whether a key that was right when the request came is right still: for whoever has just made something that lasts, such
/// as a socket, which a change of the tenant meanwhile has not found.
///
/// # Errors
/// 401, 403, or 503 if the store is away.
pub async fn confirm(tenants: &Tenants, key: &KeyHash) -> Result<(), Problem> {
    let found = tenants.find(key).await?;
    enabled(found.ok_or_else(|| Problem::unauthorized("this key is nobody's", FOREIGN))?).map(drop)
}

fn enabled(tenant: Arc<Tenant>) -> Result<Arc<Tenant>, Problem> {
    if tenant.disabled_at_ms.is_none() {
        return Ok(tenant);
    }
    let detail = format!("the tenant {} is disabled, the operator of this service knows why", tenant.id);
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Who may come in as the operator.
#[derive(Clone)]
pub struct Gatekeeper {
    /// The token; without one everyone who reaches the listener may pass, but for pages in a browser.
    pub token: Option<SecretString>,
    /// What wrong tokens cost.
    pub failures: Failures,
}

/// Middleware of the admin listener.
pub async fn operator(State(keeper): State<Gatekeeper>, request: Request, next: Next) -> Response {
    match keeper.check(request.headers(), peer_of(&request)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Gatekeeper {
    fn check(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<(), Problem> {
        let Some(token) = &self.token else { return not_of_a_page(headers) };
        let detail = "the operator's token is needed, in the header authorization: Bearer TOKEN";
        let refused = Problem::unauthorized(detail, ADMIN_CHALLENGE);
        let given = bearer(headers).ok_or_else(|| refused.clone())?;
        self.failures.check(peer)?;
        if same(given, token) {
            return Ok(());
        }
        self.failures.count(peer);
        Err(refused)
    }
}

/// Whoever lets a browser run on this machine lets every page that it shows send requests to loopback; none of them must
/// stop a child, change a tenant or read what is shown here. A browser says so
/// (<https://fetch.spec.whatwg.org/#origin-header>), but for a look at the page's own site. A page has loopback for its site
/// if it lets its name lead there (DNS rebinding), so a host that is a name is none of ours. No host has no browser. The
/// console is a page too, but one of this listener: it comes from the very host and port that it asks.
fn not_of_a_page(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(HOST);
    let is_ours = headers.get(ORIGIN).is_none_or(|origin| host.is_some_and(|host| is_of(origin, host)));
    if is_ours && host.is_none_or(is_no_name) {
        return Ok(());
    }
    let detail = "a page in a browser may not ask here, unless admin.token is set and it has it";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Whether a page of this origin came from this host. A browser writes both in the same way.
fn is_of(origin: &HeaderValue, host: &HeaderValue) -> bool {
    let origin = origin.as_bytes();
    [&b"http://"[..], b"https://"].iter().any(|scheme| origin.strip_prefix(*scheme) == Some(host.as_bytes()))
}

/// Whether a host, with or without a port, is an address or `localhost`, which no page can be served from elsewhere as.
fn is_no_name(host: &HeaderValue) -> bool {
    let authority = Authority::try_from(host.as_bytes());
    authority.is_ok_and(|authority| {
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        !authority.as_str().contains('@') && (bare.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost"))
    })
}

/// Hashes first, so that not even the length is told.
fn same(given: &str, token: &SecretString) -> bool {
    let (given, token) = (KeyHash::of(given), KeyHash::of(token.expose_secret()));
    given.as_str().as_bytes().ct_eq(token.as_str().as_bytes()).into()
}

/// The scheme's name has no case (RFC 9110), the key has.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// Makes sure that the tenant of the development profile is there. Doing it again changes nothing, also if its key was
/// rotated.
///
/// # Errors
/// What the store says.
pub async fn seed_demo_tenant(store: &dyn Store) -> Result<(), StoreError> {
    let Ok(demo) = TenantId::new(DEMO_TENANT) else {
        return Ok(());
    };
    match store.create_tenant(&demo, &KeyHash::of(DEMO_KEY)).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(authorization))])
    }

    #[test]
    fn a_key_is_read_from_a_bearer_header_and_from_nothing_else() {
        assert_eq!(bearer(&headers("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers("bearer  abc")), Some("abc"));
        for bad in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(bearer(&headers(bad)), None);
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn the_token_must_be_the_same_to_the_last_character() {
        let token = SecretString::from("a-token-of-our-own");
        assert!(same("a-token-of-our-own", &token));
        assert!(!same("a-token-of-our-owN", &token) && !same("", &token) && !same("a-token-of-our-own ", &token));
    }
}

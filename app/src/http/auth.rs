//! Who is asking: a tenant by its key on the API, the operator by the token on the admin listener.
//!
//! Keys are kept as SHA-256 and looked up by it. The hash of a guess tells nothing about the hash of a key, so a lookup
//! in an index leaks nothing that helps to guess; the operator's token is compared in constant time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::model::TenantId;
use actors::store::{KeyHash, SharedStore, Store, StoreError};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::edge;
use super::problem::Problem;

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

/// How long a key that was found is believed without asking the store again: what revoking it may take.
const CACHE_FOR: Duration = Duration::from_secs(10);

/// How many keys are remembered; when full, all are forgotten at once, which costs one lookup each.
const CACHE_MAX: usize = 4_096;

const CHALLENGE: &str = r#"Bearer realm="api""#;
const FOREIGN: &str = r#"Bearer realm="api", error="invalid_token""#;
const ADMIN_CHALLENGE: &str = r#"Bearer realm="admin""#;

/// Finds tenants by their keys. Cheap to clone.
#[derive(Clone)]
pub struct Tenants {
    store: SharedStore,
    demo_key: DemoKey,
    cache: Arc<Mutex<HashMap<KeyHash, (TenantId, Instant)>>>,
}

impl Tenants {
    /// Over the tenants of `store`.
    pub fn new(store: SharedStore, demo_key: DemoKey) -> Self {
        Self { store, demo_key, cache: Arc::default() }
    }

    /// The tenant that `key` belongs to. Only what was found is remembered, so a new key works at once.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, key: &str) -> Result<Option<TenantId>, StoreError> {
        if self.demo_key == DemoKey::Refused && key == DEMO_KEY {
            return Ok(None);
        }
        let hash = KeyHash::of(key);
        if let Some(tenant) = self.remembered(&hash) {
            return Ok(Some(tenant));
        }
        let found = self.store.tenant_by_key_hash(&hash).await?.map(|tenant| tenant.id);
        if let Some(tenant) = &found {
            self.remember(hash, tenant.clone());
        }
        Ok(found)
    }

    fn remembered(&self, hash: &KeyHash) -> Option<TenantId> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(hash).filter(|(_, until)| Instant::now() < *until).map(|(tenant, _)| tenant.clone())
    }

    fn remember(&self, hash: KeyHash, tenant: TenantId) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(hash, (tenant, Instant::now() + CACHE_FOR));
    }
}

/// Middleware of the API: lets tenants pass, with their [`TenantId`] in the extensions.
pub async fn tenant(State(tenants): State<Tenants>, mut request: Request, next: Next) -> Response {
    match identify(&tenants, request.headers()).await {
        Ok(tenant) => {
            tracing::Span::current().record("tenant", tenant.as_str());
            request.extensions_mut().insert(tenant.clone());
            edge::guarded_for(&tenant, request, next).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn identify(tenants: &Tenants, headers: &HeaderMap) -> Result<TenantId, Problem> {
    let Some(key) = bearer(headers) else {
        let detail = "a key is needed, in the header authorization: Bearer KEY";
        return Err(Problem::unauthorized(detail, CHALLENGE));
    };
    tenants.find(key).await?.ok_or_else(|| Problem::unauthorized("this key is nobody's", FOREIGN))
}

/// Middleware of the admin listener; without a token everyone who reaches the listener may pass.
pub async fn operator(State(token): State<Option<SecretString>>, request: Request, next: Next) -> Response {
    let right = token.as_ref().is_none_or(|token| bearer(request.headers()).is_some_and(|given| same(given, token)));
    if right {
        return next.run(request).await;
    }
    let detail = "the operator's token is needed, in the header authorization: Bearer TOKEN";
    Problem::unauthorized(detail, ADMIN_CHALLENGE).into_response()
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

/// Makes sure that the tenant of the development profile is there. Doing it again changes nothing.
///
/// # Errors
/// What the store says.
pub async fn seed_demo_tenant(store: &dyn Store) -> Result<(), StoreError> {
    let Ok(demo) = TenantId::new(DEMO_TENANT) else {
        return Ok(());
    };
    store.create_tenant(&demo, &KeyHash::of(DEMO_KEY)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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

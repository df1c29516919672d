//! What one tenant may take: so many requests a second, so many at once. It is looked at before the places that all share,
//! so that the flood of one tenant is answered 429 and takes no place of another.
//!
//! A tenant's rate is a GCRA of `governor`, one for each tenant, because each may have a quota of its own. Idle ones are
//! forgotten, and there are never more than tenants, which only operators make.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::broadcast::Limits as SocketLimits;
use actors::model::TenantId;
use actors::store::{Quotas, Tenant};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::limits::{LIMITED, Limit, Limited};
use super::problem::Problem;

/// How many requests are left now, in the words of the IETF's draft `draft-ietf-httpapi-ratelimit-headers`, version 10.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Of how many in which time, by the same draft.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A tenant whose requests are all under way comes again after this long: some of them are answered by then.
const AT_ONCE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Idle allowances are looked for when there are so many; then when there are twice as many as were kept.
const SWEEP_ABOVE: usize = 1_024;

/// What one tenant may have in this process, all of it decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests in a second, on average.
    pub requests_per_s: u32,
    /// Requests that may come at once after a rest.
    pub requests_burst: u32,
    /// Requests worked on at once.
    pub requests_at_once: u32,
    /// Sockets and subscriptions.
    pub sockets: SocketLimits,
    /// Jobs that run at a time, in all processes together.
    pub jobs_running: u32,
    /// Jobs that are not finished and do not run.
    pub jobs_queued: u32,
}

impl Bounds {
    /// These, but for what a tenant has of its own.
    pub fn of(self, quotas: &Quotas) -> Self {
        let number = |own: Option<u32>, default: usize| own.map_or(default, |own| own as usize);
        Self {
            requests_per_s: quotas.requests_per_s.unwrap_or(self.requests_per_s),
            requests_burst: quotas.requests_burst.unwrap_or(self.requests_burst),
            requests_at_once: quotas.requests_at_once.unwrap_or(self.requests_at_once),
            sockets: SocketLimits {
                sockets_max: number(quotas.sockets, self.sockets.sockets_max),
                subscriptions_max: number(quotas.subscriptions, self.sockets.subscriptions_max),
                ..self.sockets
            },
            jobs_running: quotas.jobs_running.unwrap_or(self.jobs_running),
            jobs_queued: quotas.jobs_queued.unwrap_or(self.jobs_queued),
        }
    }
}

/// The allowances of all tenants that are at work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Allowances {
    defaults: Bounds,
    clock: SteadyClock,
    of: Arc<Mutex<HashMap<TenantId, Arc<Allowance>>>>,
    sweep_above: Arc<AtomicU64>,
}

impl Allowances {
    /// With what a tenant may have if its row does not say otherwise.
    pub fn new(defaults: Bounds) -> Self {
        let sweep_above = Arc::new(AtomicU64::new(SWEEP_ABOVE as u64));
        Self { defaults, clock: SteadyClock::new(), of: Arc::default(), sweep_above }
    }

    /// The tenant's allowance, with the quotas that its row has now.
    fn of(&self, tenant: &Tenant) -> Arc<Allowance> {
        let bounds = self.defaults.of(&tenant.quotas);
        let mut all = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(&tenant.id).filter(|found| found.bounds == bounds) {
            return Arc::clone(found);
        }
        if all.len() as u64 >= self.sweep_above.load(Ordering::Relaxed) {
            let now = self.clock.now();
            all.retain(|_, allowance| Arc::strong_count(allowance) > 1 || !allowance.is_full_again(now));
            self.sweep_above.store(SWEEP_ABOVE.max(2 * all.len()) as u64, Ordering::Relaxed);
        }
        let new = Arc::new(Allowance::new(bounds, self.clock));
        all.insert(tenant.id.clone(), Arc::clone(&new));
        new
    }
}

/// What one tenant has left.
#[derive(Debug)]
struct Allowance {
    bounds: Bounds,
    rate: RateLimiter<NotKeyed, InMemoryState, SteadyClock, StateInformationMiddleware>,
    places: Semaphore,
    clock: SteadyClock,
    policy: Option<HeaderValue>,
    /// When it was asked last, in milliseconds of the clock.
    asked_at_ms: AtomicU64,
}

impl Allowance {
    fn new(bounds: Bounds, clock: SteadyClock) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(bounds.requests_per_s));
        let rate = RateLimiter::direct_with_clock(quota.allow_burst(at_least_one(bounds.requests_burst)), clock);
        let window_s = bounds.requests_burst.div_ceil(bounds.requests_per_s.max(1));
        let policy = format!("\"tenant\";q={};w={window_s}", bounds.requests_burst);
        Self {
            bounds,
            rate: rate.with_middleware(),
            places: Semaphore::new(bounds.requests_at_once as usize),
            clock,
            policy: HeaderValue::try_from(policy).ok(),
            asked_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether one of its requests may be worked on: a place for it, and how many more may come at once.
    fn admit(&self) -> Result<(SemaphorePermit<'_>, u32), Problem> {
        let now = self.clock.now();
        self.asked_at_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let left = self.rate.check().map_err(|early| {
            LIMITED.add(1, Limited { reason: Limit::TenantRate });
            let Bounds { requests_per_s, requests_burst, .. } = self.bounds;
            let detail = format!("the tenant may send {requests_per_s} requests a second, {requests_burst} at once");
            Problem::too_many(detail, early.wait_time_from(now)).with_code("tenant_rate")
        })?;
        let place = self.places.try_acquire().map_err(|_| {
            LIMITED.add(1, Limited { reason: Limit::TenantConcurrency });
            let detail = format!("the tenant may have {} requests under way at once", self.bounds.requests_at_once);
            Problem::too_many(detail, AT_ONCE_RETRY_AFTER).with_code("tenant_concurrency")
        })?;
        Ok((place, left.remaining_burst_capacity()))
    }

    /// Whether a new one would be the same.
    fn is_full_again(&self, now: Duration) -> bool {
        let refill_s = u64::from(self.bounds.requests_burst.div_ceil(self.bounds.requests_per_s.max(1)));
        let asked = Duration::from_millis(self.asked_at_ms.load(Ordering::Relaxed));
        now.saturating_sub(asked) > Duration::from_secs(refill_s)
    }

    fn told(&self, mut answer: Response, left: u32) -> Response {
        let limit = HeaderValue::try_from(format!("\"tenant\";r={left}")).ok();
        for (name, value) in [(RATE_LIMIT, limit), (RATE_LIMIT_POLICY, self.policy.clone())] {
            if let Some(value) = value {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }
}

/// The middleware, behind the one that finds the tenant. A request holds a place until it is answered, or until its client
/// goes away.
pub async fn allow(State(allowances): State<Allowances>, mut request: Request, next: Next) -> Response {
    let Some(tenant) = request.extensions().get::<Arc<Tenant>>() else {
        return next.run(request).await;
    };
    let allowance = allowances.of(tenant);
    match allowance.admit() {
        Ok((_place, left)) => {
            request.extensions_mut().insert(SocketQuota(allowance.bounds.sockets));
            allowance.told(next.run(request).await, left)
        }
        Err(problem) => allowance.told(problem.into_response(), 0),
    }
}

/// What the tenant of a request may have of sockets and subscriptions.
#[derive(Debug, Clone, Copy)]
pub struct SocketQuota(pub SocketLimits);

impl<S: Send + Sync> FromRequestParts<S> for SocketQuota {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let quota = parts.extensions.get::<Self>().copied();
        quota.ok_or_else(|| Problem::unauthorized("a key is needed", "Bearer"))
    }
}

/// A clock for `governor` that stands still when a test pauses time.
#[derive(Debug, Clone, Copy)]
pub(super) struct SteadyClock(Instant);

impl SteadyClock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SteadyClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        requests_per_s: 10,
        requests_burst: 20,
        requests_at_once: 2,
        sockets: SocketLimits { sockets_max: 5, subscriptions_max: 6, topics_per_socket_max: 7 },
        jobs_running: 8,
        jobs_queued: 9,
    };

    fn tenant(name: &str, quotas: Quotas) -> Tenant {
        let id = TenantId::new(name).unwrap();
        Tenant { id, created_at_ms: 0, disabled_at_ms: None, quotas, version: 0, key_version: 0 }
    }

    /// How many of `count` requests, each answered at once, are let through.
    fn admitted(allowances: &Allowances, tenant: &Tenant, count: u32) -> usize {
        (0..count).filter(|_| allowances.of(tenant).admit().is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_over_its_rate_is_told_when_to_come_again_and_disturbs_no_other() {
        let allowances = Allowances::new(BOUNDS);
        let (noisy, quiet) = (tenant("noisy", Quotas::default()), tenant("quiet", Quotas::default()));
        assert_eq!(admitted(&allowances, &noisy, 1_000), 20);
        let response = allowances.of(&noisy).admit().err().unwrap().write("r");
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "1"));
        assert_eq!(admitted(&allowances, &quiet, 20), 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(&allowances, &noisy, 1_000), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_under_way_are_limited_for_each_tenant() {
        let allowances = Allowances::new(BOUNDS);
        let (noisy, quiet) = (tenant("noisy", Quotas::default()), tenant("quiet", Quotas::default()));
        let (allowance, other) = (allowances.of(&noisy), allowances.of(&quiet));
        let held = (allowance.admit().unwrap(), allowance.admit().unwrap());
        assert_eq!(allowance.admit().err().unwrap().detail(), "the tenant may have 2 requests under way at once");
        assert!(other.admit().is_ok());
        drop(held);
        assert!(allowance.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenants_own_quotas_win_and_hold_as_soon_as_its_row_says_so() {
        let allowances = Allowances::new(BOUNDS);
        let own = Quotas { requests_burst: Some(3), sockets: Some(0), ..Quotas::default() };
        assert_eq!(
            BOUNDS.of(&own),
            Bounds { requests_burst: 3, sockets: SocketLimits { sockets_max: 0, ..BOUNDS.sockets }, ..BOUNDS }
        );
        assert_eq!(admitted(&allowances, &tenant("a", own), 10), 3);
        assert_eq!(admitted(&allowances, &tenant("a", Quotas::default()), 100), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_allowances_are_forgotten_and_those_in_use_are_kept() {
        let allowances = Allowances::new(BOUNDS);
        let names: Vec<_> = (0..2 * SWEEP_ABOVE).map(|n| tenant(&format!("t{n}"), Quotas::default())).collect();
        let in_use = allowances.of(&names[0]);
        assert!(names[1..SWEEP_ABOVE].iter().all(|tenant| allowances.of(tenant).admit().is_ok()));
        tokio::time::advance(Duration::from_millis(2_001)).await;
        assert!(allowances.of(&names[1]).admit().is_ok());
        drop(allowances.of(&names[SWEEP_ABOVE]));
        assert_eq!(allowances.of.lock().unwrap().len(), 3);
        assert!(Arc::ptr_eq(&in_use, &allowances.of(&names[0])));
    }
}

//! Wrong keys and tokens cost their sender: so many of them from one address in a minute, and it is answered 429 for a
//! while, before anything is looked up. Nobody can guess a key of 244 bits; this spares the store, and makes noise.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::allowance::SteadyClock;
use super::limits::{LIMITED, Limit, Limited};
use super::problem::Problem;
use super::serve::Peer;

/// Addresses that are remembered. When there are more at once, all are forgiven: memory is bounded, and an attacker with
/// so many addresses is not held up by this.
const PEERS_MAX: usize = 10_000;

/// The failures of each address. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Failures {
    quota: Quota,
    clock: SteadyClock,
    peers: Arc<Mutex<Peers>>,
}

struct Peers {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, SteadyClock, NoOpMiddleware<Duration>>,
    /// Until when an address is refused.
    barred: HashMap<IpAddr, Duration>,
}

impl Peers {
    fn new(quota: Quota, clock: SteadyClock) -> Self {
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock), barred: HashMap::new() }
    }
}

impl Failures {
    /// At most `per_minute` of one address, and as many at once.
    pub fn new(per_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        let clock = SteadyClock::new();
        Self { quota, clock, peers: Arc::new(Mutex::new(Peers::new(quota, clock))) }
    }

    /// A problem if the sender is refused now.
    ///
    /// # Errors
    /// 429 with the time to come again.
    pub fn check(&self, peer: Option<IpAddr>) -> Result<(), Problem> {
        let Some(peer) = peer.map(network) else { return Ok(()) };
        let mut peers = self.lock();
        let (now, until) = (self.clock.now(), peers.barred.get(&peer).copied());
        match until.map(|until| until.saturating_sub(now)) {
            None => Ok(()),
            Some(Duration::ZERO) => {
                peers.barred.remove(&peer);
                Ok(())
            }
            Some(wait) => {
                LIMITED.add(1, Limited { reason: Limit::AuthFailures });
                Err(Problem::too_many("too many wrong keys came from this address", wait))
            }
        }
    }

    /// A wrong key or token came from there.
    pub fn count(&self, peer: Option<IpAddr>) {
        let Some(peer) = peer.map(network) else { return };
        let mut peers = self.lock();
        let now = self.clock.now();
        if peers.limiter.len() >= PEERS_MAX {
            peers.limiter.retain_recent();
            peers.barred.retain(|_, until| *until > now);
        }
        if peers.limiter.len() >= PEERS_MAX {
            *peers = Peers::new(self.quota, self.clock);
        }
        if let Err(early) = peers.limiter.check_key(&peer) {
            peers.barred.insert(peer, now + early.wait_time_from(now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who sends a request; none if no connection brought it.
pub fn peer_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0.ip())
}

/// One who has an address of IPv6 has 2^64 of them, so the first half counts.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").field("barred", &self.lock().barred.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test(start_paused = true)]
    async fn one_guess_too_many_bars_its_address_and_no_other_until_time_has_passed() {
        let failures = Failures::new(3);
        for _ in 0..3 {
            failures.count(peer(1));
            assert!(failures.check(peer(1)).is_ok());
        }
        failures.count(peer(1));
        let refused = failures.check(peer(1)).unwrap_err().write("r");
        assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "20"));
        assert!(failures.check(peer(2)).is_ok() && failures.check(None).is_ok());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(failures.check(peer(1)).is_ok());
        failures.count(peer(1));
        failures.count(peer(1));
        assert!(failures.check(peer(1)).is_err(), "one guess is given back, not all");
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_of_one_network_of_ipv6_count_as_one() {
        let failures = Failures::new(1);
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        failures.count(address("2001:db8::1"));
        failures.count(address("2001:db8::2"));
        assert!(failures.check(address("2001:db8::3")).is_err());
        assert!(failures.check(address("2001:db8:0:1::3")).is_ok());
        failures.count(address("::ffff:192.0.2.7"));
        failures.count(peer(7));
        assert!(failures.check(peer(7)).is_err(), "the same address in another spelling");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_however_many_addresses_there_are() {
        let failures = Failures::new(1);
        for n in 0..3 * PEERS_MAX as u32 {
            failures.count(Some(IpAddr::from(n.to_be_bytes())));
        }
        let peers = failures.lock();
        assert!(peers.limiter.len() <= PEERS_MAX && peers.barred.len() <= PEERS_MAX);
    }
}

//! How many messages a provider takes, kept on our side so that its 429 stays an exception.
//!
//! A channel of a chat sends one message at a time, spaced; all channels of one bot share its rate. What is kept here is
//! this process's own: with several replicas, or after a restart, the provider's answer has the last word.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota};

/// Telegram takes about 30 messages a second of one bot. Source:
/// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>.
const SENDER_PER_SECOND: NonZeroU32 = NonZeroU32::new(30).unwrap();

/// How fast one channel wants to be spoken to. The default is as fast as we can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    /// Time between two messages; zero for none, and then several may be under way at a time.
    pub every: Duration,
    /// The sender whose rate it shares with other channels. No secret.
    pub sender: Option<String>,
}

/// The rates of all senders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Senders(Arc<DefaultKeyedRateLimiter<String>>);

impl Default for Senders {
    fn default() -> Self {
        Self(Arc::new(DefaultKeyedRateLimiter::keyed(Quota::per_second(SENDER_PER_SECOND))))
    }
}

impl Senders {
    /// Takes a place for one message, or says how long to wait for one.
    ///
    /// # Errors
    /// The wait.
    pub fn admit(&self, pace: &Pace) -> Result<(), Duration> {
        let Some(sender) = &pace.sender else { return Ok(()) };
        self.0.check_key(sender).map_err(|early| early.wait_time_from(self.0.clock().now()))
    }

    /// Forgets senders that could send at full rate again.
    pub fn forget_idle(&self) {
        self.0.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channels_of_one_bot_share_its_rate_and_those_of_another_do_not() {
        let senders = Senders::default();
        let of = |bot: &str| Pace { every: Duration::ZERO, sender: Some(bot.to_owned()) };
        let admitted = (0..100).filter(|_| senders.admit(&of("a")).is_ok()).count();
        // A slow machine may earn a place or two between.
        assert!((30..40).contains(&admitted), "{admitted}");
        assert!(senders.admit(&of("a")).unwrap_err() <= Duration::from_secs(1));
        assert_eq!(senders.admit(&of("b")), Ok(()));
        assert_eq!(senders.admit(&Pace::default()), Ok(()));
    }
}

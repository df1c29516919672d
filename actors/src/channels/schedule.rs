//! When a failed delivery is tried again, and when it is given up.
//!
//! The schedule is a list: its length is the number of retries, so nothing is retried for ever. The default is the one
//! that receivers of signed webhooks know (5 s, 5 min, 30 min, 2 h, 5 h, 10 h): seven attempts within 18 hours.

use std::time::Duration;

use jiff::Timestamp;

/// The default delays before each retry, in milliseconds.
pub const RETRY_DELAYS_MS: [u64; 6] = [5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000];

/// Jitter adds at most this share of a delay, so that the retries of one outage do not come back as one wave. It only
/// ever adds: a receiver that said "not before" is believed.
const JITTER_SHARE: f64 = 0.1;

/// The delays of one channel's retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// The delay after the first failed attempt, after the second, and so on.
    pub delays: Vec<Duration>,
    /// The longest wait that a receiver's `Retry-After` can ask for.
    pub retry_after_max: Duration,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self {
            delays: RETRY_DELAYS_MS.map(Duration::from_millis).to_vec(),
            retry_after_max: Duration::from_secs(3_600),
        }
    }
}

impl RetrySchedule {
    /// How long to wait after `attempt` (the first is 1) has failed; `None` when it was the last one.
    ///
    /// `asked` is the receiver's `Retry-After`: it can lengthen the wait up to `retry_after_max`, and never shortens it,
    /// or a receiver that says "1 s" all through its outage would use up every attempt within seconds.
    #[must_use]
    pub fn delay_after(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let planned = *self.delays.get(index)?;
        let asked = asked.unwrap_or_default().min(self.retry_after_max);
        let delay = planned.max(asked);
        Some(delay + delay.mul_f64(fastrand::f64() * JITTER_SHARE))
    }

    /// The number of attempts, the first one included.
    #[must_use]
    pub fn attempts_max(&self) -> u32 {
        u32::try_from(self.delays.len()).unwrap_or(u32::MAX).saturating_add(1)
    }
}

/// Reads a `Retry-After` header: a number of seconds or an HTTP date. Anything else counts as absent.
#[must_use]
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(values: &[u64]) -> RetrySchedule {
        RetrySchedule {
            delays: values.iter().copied().map(Duration::from_secs).collect(),
            retry_after_max: Duration::from_secs(100),
        }
    }

    fn assert_about(delay: Option<Duration>, expected_s: f64) {
        let delay = delay.unwrap().as_secs_f64();
        assert!(
            (expected_s..=expected_s * 1.1).contains(&delay),
            "{delay} is not {expected_s} to {}",
            expected_s * 1.1
        );
    }

    #[test]
    fn delays_follow_the_list_and_end_with_it() {
        let schedule = RetrySchedule::default();
        for (attempt, expected_s) in [(1, 5.0), (2, 300.0), (3, 1_800.0), (6, 36_000.0)] {
            assert_about(schedule.delay_after(attempt, None), expected_s);
        }
        assert_eq!(schedule.delay_after(7, None), None);
        assert_eq!(schedule.attempts_max(), 7);
    }

    #[test]
    fn a_receiver_can_lengthen_the_wait_up_to_the_limit_and_never_shorten_it() {
        let schedule = seconds(&[10]);
        assert_about(schedule.delay_after(1, Some(Duration::from_secs(60))), 60.0);
        assert_about(schedule.delay_after(1, Some(Duration::from_secs(9_999))), 100.0);
        assert_about(schedule.delay_after(1, Some(Duration::from_secs(1))), 10.0);
    }

    #[test]
    fn an_empty_schedule_means_one_attempt() {
        assert_eq!(seconds(&[]).delay_after(1, None), None);
        assert_eq!(seconds(&[]).attempts_max(), 1);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        let parse = |value| parse_retry_after(value, now);
        assert_eq!(parse("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse(" 0 "), Some(Duration::ZERO));
        assert_eq!(parse("Wed, 21 Oct 2015 07:28:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(parse("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        for bad in ["", "soon", "-5", "1.5", "99999999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

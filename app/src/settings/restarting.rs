//! How a child comes back: the two tables that every subsystem has.

use std::time::Duration;

use serde::Deserialize;
use supervision::Intensity;

use super::types;

/// `[*.restart]`: how many restarts are still good.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// One more restart than this within `period`, and the child has given up.
    #[serde(deserialize_with = "types::int::<0, 1_000, _, _>")]
    pub intensity: u32,
    /// The window in which restarts are counted.
    #[serde(rename = "period_ms", deserialize_with = "types::ms::<1, 3_600_000, _>")]
    pub period: Duration,
}

impl Restart {
    /// As the supervisor takes it.
    pub fn intensity(&self) -> Intensity {
        Intensity::new(self.intensity, self.period)
    }
}

/// `[*.backoff]`: how long a child waits before it is started again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The first wait.
    #[serde(rename = "base_ms", deserialize_with = "types::ms::<0, 3_600_000, _>")]
    pub base: Duration,
    /// What each wait is multiplied with to get the next.
    #[serde(deserialize_with = "types::number::<1, 100, _>")]
    pub factor: f64,
    /// The longest wait.
    #[serde(rename = "cap_ms", deserialize_with = "types::ms::<0, 3_600_000, _>")]
    pub cap: Duration,
    /// The share of a wait that is left to chance, within the cap.
    #[serde(deserialize_with = "types::number::<0, 1, _>")]
    pub jitter: f64,
    /// After this long without a failure the next wait is the first again.
    #[serde(rename = "reset_after_ms", deserialize_with = "types::ms::<1, 86_400_000, _>")]
    pub reset_after: Duration,
    /// The wait between tries of a child that has given up and is not critical.
    #[serde(rename = "degraded_cap_ms", deserialize_with = "types::ms::<1, 86_400_000, _>")]
    pub degraded_cap: Duration,
}

impl Backoff {
    /// As the supervisor takes it.
    pub fn backoff(&self) -> supervision::Backoff {
        supervision::Backoff {
            base: self.base,
            factor: self.factor,
            cap: self.cap,
            jitter: self.jitter,
            reset_after: self.reset_after,
            first_immediate: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::{Sources, load};

    #[test]
    fn the_defaults_are_those_of_the_supervisor() {
        let scheduler = load(&Sources::default()).unwrap().settings.scheduler;
        assert_eq!(scheduler.backoff.backoff(), supervision::Backoff::default());
        assert_eq!((scheduler.restart.intensity().restarts, scheduler.restart.intensity().period.as_secs()), (5, 60));
    }
}

//! A storm of failures must not flood the log. Counters and events stay exact; the log says how much it left out.

use std::time::Duration;

use tokio::time::Instant;

/// Lines about failures of its children that a supervisor writes in each window.
const LINES_MAX: u32 = 100;

const WINDOW: Duration = Duration::from_secs(10);

/// Counts the lines of one supervisor about its failing children, in fixed windows.
#[derive(Debug)]
pub(super) struct LogLimit {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), lines: 0, suppressed: 0 }
    }

    /// Whether to write a line now: `Some` with how many were left out since the last one, or `None`.
    pub(super) fn admit(&mut self) -> Option<u64> {
        if self.began.elapsed() >= WINDOW {
            (self.began, self.lines) = (Instant::now(), 0);
        }
        if self.lines >= LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_cut_and_the_next_window_says_by_how_much() {
        let mut limit = LogLimit::new();
        assert_eq!((0..1000).filter_map(|_| limit.admit()).count(), 100);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(limit.admit(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((limit.admit(), limit.admit()), (Some(901), Some(0)));
    }
}

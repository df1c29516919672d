//! Waiting for a fact that another process makes true, with a deadline.

use std::time::{Duration, Instant};

/// How often a fact is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// Calls `look` until it returns `Some`, at most for `within`.
///
/// # Panics
///
/// Panics with `what` when the deadline passes: the test has failed.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Looks all through `span` and panics if `broken` ever returns what it saw: for facts that must *stay* true.
///
/// # Panics
///
/// Panics with `what` and the finding of `broken`.
pub async fn never<F, Fut>(what: &str, span: Duration, mut broken: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<String>>,
{
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Some(finding) = broken().await {
            panic!("{what}: {finding}");
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fact_that_comes_true_is_returned() {
        let mut looks = 0;
        let found = eventually("third look", Duration::from_secs(5), || {
            looks += 1;
            let found = (looks == 3).then_some(looks);
            async move { found }
        });
        assert_eq!(found.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: the moon is blue")]
    async fn a_fact_that_stays_false_fails_the_test_by_name() {
        eventually("the moon is blue", Duration::from_millis(30), || async { None::<()> }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the sky fell: piece 1")]
    async fn a_broken_promise_fails_the_test_with_what_was_seen() {
        never("the sky fell", Duration::from_secs(5), || async { Some("piece 1".into()) }).await;
    }
}

//! The places between two steps of a job where a test lets the process die.

/// Ends the process here, as suddenly as `kill -9` would, if the environment says so: with `KILL_AT=after_claim:3` the third
/// time that the seam `after_claim` is reached. In a release build there is nothing here.
macro_rules! seam {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::seam::reached($name);
    };
}
pub(crate) use seam;

#[cfg(debug_assertions)]
pub(crate) fn reached(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The name of a seam, and how often it is still to be passed.
    static DEADLY: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let told = std::env::var("KILL_AT").ok()?;
        let (name, times) = told.split_once(':')?;
        Some((name.to_owned(), AtomicU32::new(times.parse().ok()?)))
    });
    if let Some((deadly, times)) = &*DEADLY
        && deadly == name
        && times.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

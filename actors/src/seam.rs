//! The places between two steps of the work where a test lets the process die, or the code panic.

/// Ends the process here, as suddenly as `kill -9` would, if the environment says so: with `KILL_AT=after_claim:3` the third
/// time that the seam `after_claim` is reached. With `PANIC_AT=after_claim:3` it panics instead. In a release build there is
/// nothing here.
#[collapse_debuginfo(yes)]
macro_rules! seam {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::seam::reached($name);
    };
}
pub(crate) use seam;

/// What the environment wants at one of the seams.
#[cfg(debug_assertions)]
struct Fate {
    seam: String,
    /// How often it is still to be passed.
    times: std::sync::atomic::AtomicU32,
}

#[cfg(debug_assertions)]
impl Fate {
    fn told(variable: &str) -> Option<Self> {
        let told = std::env::var(variable).ok()?;
        let (seam, times) = told.split_once(':')?;
        Some(Self { seam: seam.to_owned(), times: times.parse::<u32>().ok()?.into() })
    }

    fn is_now(&self, seam: &str) -> bool {
        self.seam == seam && self.times.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
    }
}

#[cfg(debug_assertions)]
#[track_caller]
pub(crate) fn reached(seam: &str) {
    use std::sync::LazyLock;

    static DEATH: LazyLock<Option<Fate>> = LazyLock::new(|| Fate::told("KILL_AT"));
    static PANIC: LazyLock<Option<Fate>> = LazyLock::new(|| Fate::told("PANIC_AT"));
    if DEATH.as_ref().is_some_and(|fate| fate.is_now(seam)) {
        std::process::abort();
    }
    if PANIC.as_ref().is_some_and(|fate| fate.is_now(seam)) {
        panic!("injected panic: the seam `{seam}` was told to");
    }
}

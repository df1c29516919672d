//! The exit codes of the process: one number for each way to end, so that whoever restarts us can tell them apart.
//!
//! Not listed here, because no code of ours returns them: 2 (a command line that cannot be read, by clap), 134
//! (SIGABRT, the policy `crash_process`; seen as 139 when the process has the id 1).

/// Everything was stopped in order, within its budget.
pub const CLEAN: u8 = 0;

/// The answer is no: `app healthcheck` found the service not ready, `app tenant` found the name taken, or nobody of
/// that name.
pub const NO: u8 = 1;

/// Could not start: a dependency is away or an address is in use. The log names it.
pub const UNAVAILABLE: u8 = 69;

/// A critical part of the tree gave up. The log names it.
pub const GAVE_UP: u8 = 70;

/// Stopped, but a child leaked or was killed at its budget. The log names it.
pub const UNCLEAN_STOP: u8 = 71;

/// The configuration is wrong. Every fault is printed, with the place it came from.
pub const CONFIGURATION: u8 = 78;

/// A second signal ended the process at once: 128 and the number of the signal, 143 for SIGTERM.
pub fn second_signal(signal: u8) -> u8 {
    128_u8.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_sigterm_exits_with_143_and_a_second_interrupt_with_130() {
        assert_eq!((second_signal(15), second_signal(2)), (143, 130));
    }
}

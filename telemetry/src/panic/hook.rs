//! The panic hook. It runs inside the panicking code, so it captures and does nothing else.

use super::record::PANIC_UNCAUGHT;
use super::recorder::hand_over_uncaught;
use super::{Backtrace, CapturedPanic, ensure};
use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

thread_local! {
    static THREAD: Cell<Thread> = const { Cell::new(Thread { innermost: None, has_captured: false }) };
    /// The latest capture inside a scope, until the scope takes it.
    static CAPTURED: RefCell<Option<CapturedPanic>> = const { RefCell::new(None) };
}

/// What every scope looks at. Apart from the capture itself, because a thread-local without a destructor costs nothing.
#[derive(Clone, Copy)]
struct Thread {
    /// The innermost open scope on this thread. None: nobody of ours will catch what panics now.
    innermost: Option<StackAddress>,
    /// There may be a capture.
    has_captured: bool,
}

impl Thread {
    #[inline]
    fn change<T>(change: impl FnOnce(&mut Self) -> T) -> T {
        THREAD.with(|cell| {
            let mut thread = cell.get();
            let result = change(&mut thread);
            cell.set(thread);
            result
        })
    }
}

/// Where in the stack something lies.
pub(super) type StackAddress = NonZeroUsize;

/// Whether the log on stderr tells of panics that nobody caught.
static LOGGED: AtomicBool = AtomicBool::new(false);

/// Says that there is a log on stderr from now on.
#[cfg(feature = "export")]
pub(crate) fn log_is_live() {
    LOGGED.store(true, Ordering::Relaxed);
}

/// Installs the hook for the process. The standard message on stderr falls silent for panics that are caught here: they are
/// logged instead. For those that nobody catches it still appears in debug builds, on the main thread and before
/// `export::start`, where the log might come too late; and when a panic follows another while that is still unwinding, for
/// then the process is about to abort. Calling it again does nothing.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| on_panic(info, &previous)));
        PANIC_UNCAUGHT.born(());
    });
}

/// An open catch scope: a panic on this thread, until it is dropped, is somebody's.
#[derive(Debug)]
pub(super) struct Scope {
    around: Option<StackAddress>,
}

impl Scope {
    /// `local` is a variable of the function that catches, which says how far down a backtrace is of interest.
    #[inline]
    pub(super) fn enter(local: &u8) -> Self {
        let here = StackAddress::new(std::ptr::from_ref(local).addr());
        Self { around: Thread::change(|thread| std::mem::replace(&mut thread.innermost, here)) }
    }

    /// The capture of the panic that was just caught, if the hook saw this very one.
    pub(super) fn take(&self, message: &str) -> Option<CapturedPanic> {
        let captured = take_captured()?;
        if captured.message == message {
            return Some(captured);
        }
        hand_over_uncaught(captured, "caught by other code");
        None
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        let has_captured = Thread::change(|thread| {
            thread.innermost = self.around;
            thread.has_captured
        });
        if has_captured && self.around.is_none() {
            outermost_ends();
        }
    }
}

/// The scope ends well and yet there was a panic inside: a library caught it and said nothing.
#[cold]
fn outermost_ends() {
    if !std::thread::panicking()
        && let Some(swallowed) = take_captured()
    {
        hand_over_uncaught(swallowed, "caught by other code");
    }
}

fn take_captured() -> Option<CapturedPanic> {
    Thread::change(|thread| thread.has_captured = false);
    CAPTURED.with(RefCell::take)
}

fn keep_captured(captured: CapturedPanic) -> Option<CapturedPanic> {
    Thread::change(|thread| thread.has_captured = true);
    CAPTURED.with(|slot| slot.replace(Some(captured)))
}

fn on_panic(info: &PanicHookInfo<'_>, previous: &Hook) {
    let captured = capture(info);
    if THREAD.get().innermost.is_some() {
        if let Some(earlier) = keep_captured(captured) {
            // Either the earlier one was swallowed, or this one comes while it unwinds and the process is about to abort.
            let place = earlier.location.as_deref().unwrap_or("unknown");
            // Nobody may be there to read it, and that must not be a panic within the hook.
            let _ = writeln!(std::io::stderr(), "panicked again after: {} ({place})", earlier.message);
            previous(info);
            hand_over_uncaught(earlier, "followed by another panic");
        }
        return;
    }
    if cfg!(debug_assertions) || captured.thread == "main" || !LOGGED.load(Ordering::Relaxed) {
        previous(info);
    }
    hand_over_uncaught(captured, "caught by no one");
}

fn capture(info: &PanicHookInfo<'_>) -> CapturedPanic {
    let mut captured = CapturedPanic::here(message(info.payload()));
    captured.0.location = info.location().map(ToString::to_string);
    captured.0.assertion = ensure::take().unwrap_or_default();
    captured.0.backtrace = Backtrace::capture(THREAD.get().innermost);
    captured
}

/// The text of a panic's payload, as far as it is kept.
pub(super) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    ensure::cut(text.unwrap_or("a panic whose payload is not text").to_owned())
}

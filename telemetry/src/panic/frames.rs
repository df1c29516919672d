//! The stack of a panic: cheap to capture, resolved later by somebody who has the time.

use super::hook::StackAddress;
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::sync::Arc;

/// Frames captured at most; an endless recursion has more than anyone reads.
const FRAMES_MAX: usize = 128;

/// Addresses whose names are remembered at most, some 100 bytes each.
const NAMES_MAX: usize = 8192;

/// How deep the panic machinery on top of a stack can be. Further down it belongs to an earlier panic, still unwinding.
const MACHINERY_MAX: usize = 24;

/// A stack as return addresses, without names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Backtrace {
    addresses: Vec<usize>,
}

impl Backtrace {
    /// No frames.
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    /// Walks the stack of this thread, as far as the frame that `end` lies in, if given: some microseconds.
    pub(crate) fn capture(end: Option<StackAddress>) -> Self {
        let mut addresses = Vec::with_capacity(64);
        backtrace::trace(|frame| {
            addresses.push(frame.ip() as usize);
            // Stacks grow downwards, and a frame's own pointer is its upper end.
            let is_end = end.is_some_and(|end| frame.sp() as usize > end.get());
            addresses.len() < FRAMES_MAX && !is_end
        });
        Self { addresses }
    }

    /// How many frames were captured.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Nothing was captured: the hook did not see the panic.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The bare addresses, for a stack that could not be resolved.
    pub(super) fn unresolved(&self) -> String {
        let mut text = String::new();
        for (index, address) in self.addresses.iter().enumerate() {
            let _ = writeln!(text, "{index:4}: {address:#x}");
        }
        text
    }
}

/// Names of addresses, remembered: a storm of panics at one place is resolved once. Resolving takes a process-wide lock for
/// each frame, and the next panic waits for it while capturing, so it had better be rare.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<usize, Arc<[Name]>>,
}

/// One function at an address; inlined ones share it.
#[derive(Debug)]
struct Name {
    function: String,
    place: Option<String>,
}

impl Names {
    /// Names and places of a stack, from the panicking code down to where it was caught. The standard library's own
    /// frames are left out, unless there are no others.
    pub(super) fn resolve(&mut self, backtrace: &Backtrace) -> String {
        let frames: Vec<_> = backtrace.addresses.iter().map(|address| self.names_of(*address)).collect();
        let names: Vec<&Name> = frames.iter().flat_map(|frame| frame.iter()).collect();
        let machinery = names.iter().take(MACHINERY_MAX).rposition(|name| is_machinery(&name.function));
        let names = &names[machinery.map_or(0, |index| index + 1)..];
        let names = &names[..names.iter().position(|name| is_end(name)).unwrap_or(names.len())];
        let ours: Vec<&Name> = names.iter().copied().filter(|name| !name.is_of_the_standard_library()).collect();
        render(if ours.is_empty() { names } else { &ours })
    }

    fn names_of(&mut self, address: usize) -> Arc<[Name]> {
        if let Some(names) = self.known.get(&address) {
            return Arc::clone(names);
        }
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        let names: Arc<[Name]> = look_up(address).into();
        self.known.insert(address, Arc::clone(&names));
        names
    }
}

impl Name {
    fn is_of_the_standard_library(&self) -> bool {
        self.place.as_deref().is_some_and(|place| place.starts_with("/rustc/"))
    }
}

fn render(names: &[&Name]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let _ = writeln!(text, "{index:4}: {}", name.function);
        if let Some(place) = &name.place {
            let _ = writeln!(text, "             at {place}");
        }
    }
    text
}

/// One function of a stack, as an incident's backtrace tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its name, or its address if that is all that is known.
    pub function: &'a str,
    /// The file in which it is written.
    pub file: Option<&'a str>,
    /// The line that was being carried out.
    pub line: Option<u32>,
    /// The column in it.
    pub column: Option<u32>,
}

/// Reads a backtrace as it is written here, from the panicking code downwards.
pub fn frames(backtrace: &str) -> Vec<Frame<'_>> {
    let mut frames: Vec<Frame<'_>> = Vec::new();
    for line in backtrace.lines() {
        let line = line.trim_start();
        if let (Some(place), Some(frame)) = (line.strip_prefix("at "), frames.last_mut()) {
            let (file, line, column) = place_of(place);
            *frame = Frame { file: Some(file), line, column, ..*frame };
        } else if let Some((number, function)) = line.split_once(": ")
            && number.parse::<usize>().is_ok()
        {
            frames.push(Frame { function, file: None, line: None, column: None });
        }
    }
    frames
}

/// `file:line:column`, `file:line`, or a file.
fn place_of(place: &str) -> (&str, Option<u32>, Option<u32>) {
    let number = |text: &str| text.parse().ok();
    match place.rsplitn(3, ':').collect::<Vec<_>>()[..] {
        [column, line, file] if number(column).is_some() && number(line).is_some() => {
            (file, number(line), number(column))
        }
        [line, ..] if number(line).is_some() => (&place[..place.len() - line.len() - 1], number(line), None),
        _ => (place, None, None),
    }
}

fn look_up(address: usize) -> Vec<Name> {
    let mut names = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| {
        let function = symbol.name().map_or_else(|| format!("{address:#x}"), |name| format!("{name:#}"));
        let place = symbol.filename().map(|file| match (symbol.lineno(), symbol.colno()) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", file.display()),
            (Some(line), None) => format!("{}:{line}", file.display()),
            (None, _) => file.display().to_string(),
        });
        names.push(Name { function, place });
    });
    if names.is_empty() {
        names.push(Name { function: format!("{address:#x}"), place: None });
    }
    names
}

/// From the hook up to the panicking code. Only what lies above a panic has these names.
fn is_machinery(function: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "core::panicking::",
        "std::panicking::begin_panic",
        "std::panicking::panic_with_hook",
        "std::panicking::rust_panic_with_hook",
        "std::panicking::panic_handler",
        "telemetry::panic::hook::",
        "telemetry::panic::capture",
        "telemetry::panic::ensure::broken",
    ];
    function == "rust_begin_unwind"
        || function == "__rustc::rust_begin_unwind"
        || PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

/// Where it was caught, or where the thread begins: below, there are only polls and schedulers.
fn is_end(name: &Name) -> bool {
    name.function.contains("__rust_begin_short_backtrace")
        || name.place.as_deref().is_some_and(|place| place.contains("telemetry/src/panic/catch.rs:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_stack_can_be_read_again() {
        let name = |function: &str, place: Option<&str>| Name {
            function: function.to_owned(),
            place: place.map(str::to_owned),
        };
        let names = [
            name("app::a::{closure#0}", Some("/src/a.rs:7:13")),
            name("<T as b::C>::at here", Some("/src/b c.rs:8")),
            name("0x55d0", None),
            name("d", Some("C:\\d.rs")),
        ];
        let text = render(&names.iter().collect::<Vec<_>>());
        let frame = |function, file, line, column| Frame { function, file, line, column };
        let expected = [
            frame("app::a::{closure#0}", Some("/src/a.rs"), Some(7), Some(13)),
            frame("<T as b::C>::at here", Some("/src/b c.rs"), Some(8), None),
            frame("0x55d0", None, None, None),
            frame("d", Some("C:\\d.rs"), None, None),
        ];
        assert_eq!(frames(&text), expected);
    }

    #[test]
    fn a_stack_that_was_not_resolved_is_read_as_its_addresses() {
        let frames: Vec<_> =
            frames("not resolved: too late\n   0: 0x1\n   1: 0x2\n").iter().map(|it| it.function).collect();
        assert_eq!(frames, ["0x1", "0x2"]);
    }
}

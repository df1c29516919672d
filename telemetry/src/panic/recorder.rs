//! The thread that finishes the record of a panic, and the thread that resolves backtraces for it.
//!
//! Two threads, because resolving can be slow and the span waits only so long: the first asks the second, waits until the
//! time is up, and says what is known by then.

use super::CapturedPanic;
use super::frames::{Backtrace, Names};
use super::record::record_uncaught;
use super::report;
use crate::door;
use crate::incidents::{self, Incident};
use crate::pending::{Pending, Ticket};
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, SystemTime};

/// How long a span is held open for its backtrace. The first one takes half a second in a debug build, and several times
/// that on a machine that is busy.
pub(super) const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// What a process that is about to abort waits for it.
const SAY_WITHIN: Duration = Duration::from_secs(2);

/// Panics that may wait to be finished; each holds a span open.
const WAITING_MAX: usize = 256;

/// Backtraces that may wait to be resolved: the one at work, and one given up on before it.
const RESOLVING_MAX: usize = 2;

/// One panic, recorded but for its backtrace.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) name: &'static str,
    pub(super) incident: Incident,
    pub(super) panic: CapturedPanic,
    accepted_at: SystemTime,
}

impl Job {
    pub(super) fn new(name: &'static str, incident: Incident, panic: CapturedPanic) -> Self {
        Self { name, incident, panic, accepted_at: SystemTime::now() }
    }

    /// What is left of the time the span may be held.
    fn patience(&self) -> Duration {
        RESOLVE_WITHIN.saturating_sub(self.accepted_at.elapsed().unwrap_or_default())
    }

    /// Says all there is to say, with or without names in the backtrace.
    fn finish(mut self, stack: String) {
        incidents::change(self.incident.id, |incident| incident.backtrace = Some(stack.clone()));
        self.incident.backtrace = Some(stack);
        report::report(self);
    }
}

/// Hands a panic to the recorder thread. If that cannot take it, finishes here and now.
pub(super) fn hand_over(job: Job) {
    send(Message::Panic(Box::new(job), None));
}

/// Hands a panic over and waits until all is said, within the limit.
pub(super) fn hand_over_and_wait(job: Job) {
    let (done, finished) = mpsc::sync_channel(1);
    send(Message::Panic(Box::new(job), Some(done)));
    // An error means too late or already finished here; either way there is nothing left to wait for.
    let _ = finished.recv_timeout(SAY_WITHIN);
}

/// Blocks until every panic recorded so far is finished, at most `within`. Answers whether it was. Before telemetry is
/// flushed, and in tests.
pub fn settle(within: Duration) -> bool {
    WAITING.wait(within) == 0
}

/// Panics handed over and not finished yet.
static WAITING: Pending = Pending::new();

/// Hands over a panic that nobody caught. Everything about it happens on the recorder thread: inside the hook, with who
/// knows which locks held, nothing may wait.
pub(super) fn hand_over_uncaught(panic: CapturedPanic, why: &'static str) {
    send(Message::Uncaught(panic, why));
}

enum Message {
    Panic(Box<Job>, Option<SyncSender<()>>),
    Uncaught(CapturedPanic, &'static str),
}

fn send(message: Message) {
    static QUEUE: OnceLock<Option<SyncSender<(Message, Ticket)>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (queue, jobs) = mpsc::sync_channel(WAITING_MAX);
        door::thread("telemetry-panics", move || run(&jobs)).ok().map(|()| queue)
    });
    let refused = match queue {
        None => (message, "no thread to record it"),
        Some(queue) => match queue.try_send((message, WAITING.ticket())) {
            Ok(()) => return,
            Err(TrySendError::Full((message, _))) => (message, "too many panics at once"),
            Err(TrySendError::Disconnected((message, _))) => (message, "the recorder has ended"),
        },
    };
    match refused {
        (Message::Panic(job, _), why) => {
            let stack = unresolved(&job.panic.backtrace, why);
            job.finish(stack);
        }
        (Message::Uncaught(panic, cause), why) => say(format_args!("panic {cause}: {} ({why})", panic.message)),
    }
}

/// In a storm it is woken once for each breath: waking a thread costs the one that panicked more than all else here.
const BREATH: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "a thread of its own, whose pace is not that of a test's clock")]
fn run(jobs: &Receiver<(Message, Ticket)>) {
    let mut resolver = Resolver::default();
    for first in jobs {
        finish(&mut resolver, first);
        for next in jobs.try_iter() {
            finish(&mut resolver, next);
        }
        thread::sleep(BREATH);
    }
}

fn finish(resolver: &mut Resolver, (message, ticket): (Message, Ticket)) {
    match message {
        Message::Panic(job, done) => {
            let stack = resolver.resolve(&job.panic.backtrace, job.patience());
            survive(|| job.finish(stack));
            drop(done);
        }
        Message::Uncaught(panic, why) => survive(|| {
            record_uncaught(panic, why);
        }),
    }
    drop(ticket);
}

/// A subscriber that panics must not end this thread, nor be recorded by it.
fn survive(work: impl FnOnce()) {
    if let Err(panic) = super::catch_sync(work) {
        let place = panic.location.as_deref().unwrap_or_default();
        say(format_args!("panicked while recording a panic: {} ({place})", panic.message));
    }
}

/// The last resort. If nobody is there to read it, there is no one else to tell.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Stacks whose text is remembered; beyond that all are forgotten. At some 5 KiB each, less than 1 MiB.
const STACKS_MAX: usize = 128;

/// The thread that resolves, started with the first panic, and what it said of earlier stacks: in a storm they are the same.
#[derive(Default)]
struct Resolver {
    known: HashMap<Backtrace, String>,
    requests: Option<SyncSender<(u64, Backtrace)>>,
    answers: Option<Receiver<(u64, String)>>,
    asked: u64,
}

impl Resolver {
    fn resolve(&mut self, backtrace: &Backtrace, within: Duration) -> String {
        if backtrace.is_empty() {
            return "no backtrace: the panic hook did not see this panic".to_owned();
        }
        if let Some(stack) = self.known.get(backtrace) {
            return stack.clone();
        }
        self.start();
        match self.ask(backtrace, within) {
            Ok(stack) => {
                if self.known.len() >= STACKS_MAX {
                    self.known.clear();
                }
                self.known.insert(backtrace.clone(), stack.clone());
                stack
            }
            Err(why) => unresolved(backtrace, why),
        }
    }

    fn start(&mut self) {
        if self.requests.is_some() {
            return;
        }
        let (requests, work) = mpsc::sync_channel::<(u64, Backtrace)>(RESOLVING_MAX);
        let (done, answers) = mpsc::sync_channel(RESOLVING_MAX);
        let started = door::thread("telemetry-backtraces", move || {
            let mut names = Names::default();
            for (number, backtrace) in work {
                drop(done.try_send((number, names.resolve(&backtrace))));
            }
        });
        if started.is_ok() {
            self.requests = Some(requests);
            self.answers = Some(answers);
        }
    }

    fn ask(&mut self, backtrace: &Backtrace, within: Duration) -> Result<String, &'static str> {
        let (Some(requests), Some(answers)) = (&self.requests, &self.answers) else {
            return Err("no thread to resolve it");
        };
        self.asked += 1;
        requests.try_send((self.asked, backtrace.clone())).map_err(|_| "still resolving an earlier one")?;
        loop {
            match answers.recv_timeout(within) {
                Ok((number, stack)) if number == self.asked => return Ok(stack),
                Ok(_late) => {}
                Err(RecvTimeoutError::Timeout) => return Err("resolving took too long"),
                Err(RecvTimeoutError::Disconnected) => return Err("the resolver has ended"),
            }
        }
    }
}

fn unresolved(backtrace: &Backtrace, why: &str) -> String {
    format!("not resolved: {why}\n{}", backtrace.unresolved())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_that_takes_too_long_is_told_as_addresses_and_says_so() {
        let stack = Resolver::default().resolve(&Backtrace::capture(None), Duration::ZERO);
        assert!(stack.starts_with("not resolved: resolving took too long\n   0: 0x"), "{stack}");
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let mut resolver = Resolver::default();
        let _given_up = resolver.resolve(&Backtrace::capture(None), Duration::ZERO);
        let stack = resolver.resolve(&second_place(), Duration::from_secs(30));
        assert!(stack.contains("second_place"), "{stack}");
    }

    #[inline(never)]
    fn second_place() -> Backtrace {
        Backtrace::capture(None)
    }
}

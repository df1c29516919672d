//! Who else hears of incidents: told once, of each kind, apart from the place of the panic, and never to its cost.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use telemetry::incidents::{self, Incident, Noted};
use telemetry::panic::{PanicSite, Policy, catch_sync, record};
use telemetry::reporters::{ErrorReporter, Failed, set, settle};

const SOON: Duration = Duration::from_secs(30);

/// Reporters are of the process, so these tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    telemetry::panic::install_hook();
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Does as it is told, incident by incident.
struct Reporter<F>(&'static str, F);

impl<F: FnMut(&Incident) -> Result<(), Failed> + Send> ErrorReporter for Reporter<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn report(&mut self, incident: &Incident) -> Result<(), Failed> {
        (self.1)(incident)
    }
}

fn keeping(kept: Sender<Incident>) -> Box<dyn ErrorReporter> {
    Box::new(Reporter("keeps", move |incident: &Incident| Ok(kept.send(incident.clone())?)))
}

#[inline(never)]
fn break_something(message: &str) -> incidents::IncidentId {
    let site = PanicSite {
        component: "c",
        actor: "c.a",
        policy: Policy::Restart,
        phase: "handle",
        message_type: None,
        incarnation: 1,
        tenant: None,
        detail: Vec::new(),
    };
    record(site, catch_sync(|| panic!("{message}")).unwrap_err())
}

fn next(heard: &Receiver<Incident>) -> Incident {
    heard.recv_timeout(SOON).unwrap()
}

#[test]
fn a_panic_is_told_once_with_its_backtrace_though_another_reporter_panics_or_fails() {
    let _alone = alone();
    let (kept, heard) = mpsc::channel();
    let panics = Reporter("panics", |_: &Incident| panic!("a reporter panicked"));
    let fails = Reporter("fails", |_: &Incident| Err("away".into()));
    set(vec![Box::new(panics), Box::new(fails), keeping(kept)]).unwrap();
    for n in 0..2 {
        let id = break_something("wheel");
        let told = next(&heard);
        assert_eq!(told.id, id, "{n}");
        assert!(told.backtrace.as_deref().unwrap().contains("break_something"), "{told:?}");
    }
    assert_eq!(settle(SOON), 0);
    assert!(heard.try_recv().is_err(), "a reporter's own panic is told to nobody");
    let all = incidents::recent(incidents::KEPT_MAX);
    assert!(all.iter().all(|incident| incident.message != "a reporter panicked"), "and is no incident");
    set(Vec::new()).unwrap();
}

#[test]
fn who_is_stuck_or_gave_up_is_told_too() {
    let _alone = alone();
    let (kept, heard) = mpsc::channel();
    set(vec![keeping(kept)]).unwrap();
    for kind in ["stuck", "gave_up"] {
        let message = format!("is {kind}");
        let noted =
            Noted { kind, component: "c", actor: "c.a", policy: "none", incarnation: 1, message, detail: Vec::new() };
        let id = incidents::note(noted);
        let told = next(&heard);
        assert_eq!((told.id, told.kind), (id, kind));
    }
    set(Vec::new()).unwrap();
}

#[test]
fn one_that_hangs_holds_up_neither_a_storm_of_panics_nor_another_reporter_nor_the_end() {
    let _alone = alone();
    let (release, released) = mpsc::channel::<()>();
    let (kept, heard) = mpsc::channel();
    let hangs = Reporter("hangs", move |_: &Incident| Ok(released.recv()?));
    set(vec![Box::new(hangs), keeping(kept)]).unwrap();
    let began = SystemTime::now();
    for n in 0..400 {
        let noted = Noted {
            kind: "stuck",
            component: "c",
            actor: "c.a",
            policy: "none",
            incarnation: 1,
            message: n.to_string(),
            detail: Vec::new(),
        };
        incidents::note(noted);
        assert_eq!(next(&heard).message, n.to_string());
    }
    assert!(began.elapsed().unwrap() < SOON);
    let left = settle(Duration::from_millis(10));
    assert!((1..=200).contains(&left), "the queue is bounded, and what waits in it is known: {left}");
    drop(release);
    assert_eq!(settle(SOON), 0, "it fails now, one after the other");
    set(Vec::new()).unwrap();
}

//! OTP's test cases about what is logged, see `CONFORMANCE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of a test function")]

mod common;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
};

use common::*;
use supervision::{Backoff, ChildSpec, Exit, Intensity, Strategy, SupervisorSpec, Tree};
use tracing::{Event, Level, Subscriber, field::Field, subscriber::DefaultGuard};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt};

/// One line of the log.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Which lines are heard is a matter of the whole process, and tests that begin to listen at the same time miss some.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// All lines of this crate, while the guard lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
        (log, guard)
    }

    fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }

    fn only(&self, message: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.field("message") == message).collect()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("supervision") && !event.metadata().target().starts_with("telemetry")
        {
            return;
        }
        let mut fields = BTreeMap::new();
        event.record(&mut |field: &Field, value: &dyn Debug| drop(fields.insert(field.name(), format!("{value:?}"))));
        self.0.lock().unwrap().push(Line { level: *event.metadata().level(), fields });
    }
}

#[tokio::test(start_paused = true)]
async fn starts_by_hand_are_logged_at_a_lower_level_than_automatic_ones() {
    let _alone = ALONE.lock().await;
    let (log, _guard) = Log::listen();
    let (journal, a) = (Journal::default(), address("a"));
    let tree = start(root(Strategy::OneForOne).child(worker("a", &journal, &a))).await;
    tell(&a, Message::Panic).await;
    tree.restart("a").await.unwrap();
    tree.stop_child("a").await.unwrap();
    tree.start_child("a").await.unwrap();
    tree.add_child("", idle("b")).await.unwrap();
    let told: Vec<(Level, String)> = log
        .lines()
        .into_iter()
        .filter(|line| line.field("message").starts_with("child started"))
        .map(|line| (line.level, format!("{}#{}", line.field("path"), line.field("incarnation"))))
        .collect();
    let expected = [
        (Level::DEBUG, "a#1"),
        (Level::DEBUG, "a#2"),
        (Level::TRACE, "a#3"),
        (Level::TRACE, "a#4"),
        (Level::TRACE, "b#1"),
    ];
    assert_eq!(told, expected.map(|(level, who)| (level, who.to_owned())));
}

/// A supervisor at `inner` that allows one restart, over a task that always fails with this text.
fn fails_with(text: String, panics: bool) -> SupervisorSpec {
    let fails = ChildSpec::task("x", move |_| {
        let text = text.clone();
        async move {
            tokio::time::sleep(SECOND).await;
            if panics { std::panic::panic_any(text) } else { Err(text.into()) }
        }
    });
    let inner = SupervisorSpec::new("inner", Strategy::OneForOne).intensity(Intensity::new(1, 60 * SECOND));
    let inner = ChildSpec::supervisor(inner.child(fails.backoff(Backoff::NONE))).backoff(Backoff::NONE);
    root(Strategy::OneForOne).child(inner)
}

#[tokio::test(start_paused = true)]
async fn reports_carry_supervisor_context_reason_and_offender_and_large_values_are_cut() {
    let _alone = ALONE.lock().await;
    for panics in [false, true] {
        let (log, _guard) = Log::listen();
        let tree = start(fails_with("x".repeat(1_000_000), panics)).await;
        tokio::time::sleep(SECOND * 25 / 10).await;
        let restarted = log.only("child failed and is started again");
        let (x, inner) = (&restarted[0], &restarted[1]);
        assert_eq!((x.field("path"), x.field("incarnation")), ("inner.x", "1"));
        assert!(x.field("exit").starts_with(if panics { "panicked: xxx" } else { "failed: xxx" }));
        assert_eq!((inner.field("path"), inner.field("incarnation")), ("inner", "1"));
        let gave_up = &log.only("supervisor gives up")[0];
        assert_eq!(
            (gave_up.field("path"), gave_up.field("child"), gave_up.field("incarnation")),
            ("inner", "inner.x", "2")
        );
        let longest = log.lines().iter().flat_map(|line| line.fields.values().map(String::len)).max().unwrap();
        let limit = telemetry::panic::TEXT_MAX + 100;
        assert!(longest > 4000 && longest < limit, "{longest}");
        // In the history as well, which is kept.
        for node in [node(&tree, "inner"), node(&tree, "inner.x")] {
            let text = node.history[0].exit.to_string();
            assert!(text.len() < limit && text.ends_with("... (cut)"), "{}", text.len());
        }
        tree.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_orderly_reason_of_a_childs_own_is_cut_as_well() {
    let _alone = ALONE.lock().await;
    let (journal, a) = (Journal::default(), address("a"));
    let seen = Journal::default();
    let observed = seen.clone();
    let tree = Tree::options()
        .observer(move |event| observed.write(event.to_string()))
        .start(root(Strategy::OneForOne).child(worker("a", &journal, &a)))
        .await
        .unwrap();
    tell(&a, Message::End(supervision::Orderly::ShutdownWith("ä".repeat(1_000_000)))).await;
    assert!(seen.take().iter().all(|line| line.len() < telemetry::panic::TEXT_MAX + 100));
    assert!(matches!(&node(&tree, "a").history[0].exit, Exit::ShutdownWith(reason) if reason.ends_with("ä... (cut)")));
}

#[tokio::test(start_paused = true)]
async fn an_event_in_one_line_has_supervisor_context_reason_child_id_and_incarnation() {
    let _alone = ALONE.lock().await;
    let lines = Journal::default();
    let observed = lines.clone();
    let tree = Tree::options()
        .observer(move |event| observed.write(event.to_string()))
        .start(fails_with("first line\nand second".to_owned(), false))
        .await
        .unwrap();
    tokio::time::sleep(SECOND * 25 / 10).await;
    tree.stop().await;
    let expected = [
        "inner.x#1 started in 0ns",
        "inner#1 started in 0ns",
        "inner.x#1 failed: first line and second",
        "inner.x#1 is started again in 0ns",
        "inner.x#2 started in 0ns",
        "inner.x#2 failed: first line and second",
        "inner#1 gives up on inner.x, which failed: first line and second",
        "inner#1 gave up on inner.x, which failed: first line and second",
        "inner#1 is started again in 0ns",
        "inner.x#3 started in 0ns",
        "inner#2 started in 0ns",
        "inner.x#3 was asked to stop, and failed: first line and second after 500ms",
        "inner#2 stopped after 500ms",
    ];
    assert_eq!(lines.take(), expected);
}

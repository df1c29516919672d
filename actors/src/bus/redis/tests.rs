//! Against a real server; what only whole processes can show is in the tests outside.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;
use crate::{
    broadcast::testing::event,
    bus::{BusItem, contract},
};
use supervision::TaskGroup;
use tokio::net::TcpSocket;

const SOON: Duration = Duration::from_secs(10);

/// A server of the test's own, on a free port, that keeps nothing. Killed when it is dropped.
struct Server {
    program: PathBuf,
    port: u16,
    /// Nobody else's also while the server is away.
    _held: TcpSocket,
    folder: tempfile::TempDir,
    process: Child,
}

impl Server {
    /// None, said aloud, where there is no server.
    fn start() -> Option<Self> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        let program =
            std::env::split_paths(&search).map(|folder| folder.join("redis-server")).find(|path| path.is_file());
        let Some(program) = program else {
            println!("skipped: no redis-server on this machine (`cargo xtask test` installs it)");
            return None;
        };
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = held.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let process = run(&program, port, folder.path());
        Some(Self { program, port, _held: held, folder, process })
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = run(&self.program, self.port, self.folder.path());
    }

    fn settings(&self, prefix: &str) -> RedisBusSettings {
        let url = format!("redis://127.0.0.1:{}", self.port);
        RedisBusSettings { prefix: prefix.to_owned(), ..RedisBusSettings::new(url.into()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(program: &Path, port: u16, folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// A bus that is carried in the group, and up.
async fn connected(settings: RedisBusSettings, tasks: &TaskGroup) -> Arc<RedisBus> {
    let bus = RedisBus::new(settings).unwrap();
    carry(&bus, tasks);
    wait_until_up(&bus).await;
    bus
}

fn carry(bus: &Arc<RedisBus>, tasks: &TaskGroup) {
    let carried = Arc::clone(bus);
    tasks.spawn("carry", async move { carried.carry().await });
}

async fn wait_until_up(bus: &RedisBus) {
    let mut state = bus.state.subscribe();
    timeout(SOON, state.wait_for(|state| matches!(state, State::Up))).await.expect("connected in time").unwrap();
}

#[tokio::test]
async fn the_redis_bus_keeps_the_contract_of_every_bus() {
    let Some(server) = Server::start() else { return };
    let (tasks, count) = (TaskGroup::new("bus"), std::cell::Cell::new(0));
    contract::holds(async || {
        count.set(count.get() + 1);
        let mut settings = server.settings(&format!("contract-{}", count.get()));
        settings.limits.events_max = contract::HELD_MAX;
        connected(settings, &tasks).await
    })
    .await;
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_one_process_publishes_all_hear_in_one_order() {
    let Some(server) = Server::start() else { return };
    let tasks = TaskGroup::new("bus");
    let a = connected(server.settings("p"), &tasks).await;
    let b = connected(server.settings("p"), &tasks).await;
    let stranger = connected(server.settings("other"), &tasks).await;
    let mut receivers = [a.subscribe(), b.subscribe()];
    let mut deaf = stranger.subscribe();
    let publish = async |bus: &RedisBus| {
        for n in 0..300 {
            bus.publish(event("demo", "t", &n.to_string())).await.unwrap();
        }
    };
    tokio::join!(publish(&a), publish(&b));
    let mut seen = [Vec::new(), Vec::new()];
    for (receiver, seen) in receivers.iter_mut().zip(&mut seen) {
        while seen.len() < 600 {
            match timeout(SOON, receiver.recv()).await.unwrap() {
                BusItem::Event(event) => seen.push(event.id),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(deaf.try_recv(), None);
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn while_redis_is_away_events_are_refused_at_once_and_its_return_is_a_gap() {
    let Some(mut server) = Server::start() else { return };
    let tasks = TaskGroup::new("bus");
    let bus = connected(server.settings("p"), &tasks).await;
    let mut receiver = bus.subscribe();
    server.kill();
    let mut state = bus.state.subscribe();
    timeout(SOON, state.wait_for(|state| matches!(state, State::Away { .. }))).await.unwrap().unwrap();
    let refused = bus.publish(event("demo", "t", "lost")).await.unwrap_err();
    assert!(matches!(refused, BusError::Unavailable(_)) && refused.is_retryable(), "{refused}");
    server.restart();
    wait_until_up(&bus).await;
    let kept = event("demo", "t", "kept");
    bus.publish(kept.clone()).await.unwrap();
    assert_eq!(timeout(SOON, receiver.recv()).await.unwrap(), BusItem::Gap { missed: 1 });
    assert_eq!(timeout(SOON, receiver.recv()).await.unwrap(), BusItem::Event(Arc::new(kept)));
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_carrier_that_is_stopped_leaves_no_one_believing_and_the_next_one_goes_on() {
    let Some(server) = Server::start() else { return };
    let tasks = TaskGroup::new("bus");
    let bus = connected(server.settings("p"), &tasks).await;
    tasks.stop(Duration::ZERO).await;
    assert!(matches!(bus.publish(event("demo", "t", "x")).await, Err(BusError::Unavailable(_))));
    let tasks = TaskGroup::new("bus");
    carry(&bus, &tasks);
    wait_until_up(&bus).await;
    bus.publish(event("demo", "t", "x")).await.unwrap();
    tasks.stop(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_is_away_at_the_start_is_waited_for_three_times_and_not_for_ever() {
    let tasks = TaskGroup::new("bus");
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = held.local_addr().unwrap();
    let bus = RedisBus::new(RedisBusSettings::new(format!("redis://{nobody}").into())).unwrap();
    let began = tokio::time::Instant::now();
    assert!(matches!(bus.opened().await, Err(BusError::Unavailable(_))), "nobody carries it");
    assert_eq!(began.elapsed(), START_WITHIN);
    let bus = RedisBus::new(RedisBusSettings::new(format!("redis://{nobody}").into())).unwrap();
    carry(&bus, &tasks);
    let away = bus.opened().await.unwrap_err();
    assert!(away.to_string().contains("refused"), "{away}");
    assert!(began.elapsed() < START_WITHIN + Duration::from_secs(2), "{:?}", began.elapsed());
    tasks.stop(Duration::ZERO).await;
}

#[test]
fn an_address_is_one_of_redis_or_refused_without_being_repeated() {
    for good in ["redis://cache", "redis://:pw@cache:6379", "rediss://me:p%40w@cache:6380/0", "redis://[::1]:6379"] {
        assert_eq!(RedisBus::check(good), Ok(()), "{good}");
    }
    let bad = [
        "redis:",
        "redis://",
        "redis+unix:///s3cret",
        "rediss://h/#insecure",
        "redis://:s3cret#@h",
        "redis://h:s3cret",
    ];
    for bad in bad {
        let refused = RedisBus::check(bad).unwrap_err().to_string();
        assert!(!refused.contains("s3cret"), "{refused}");
    }
    let settings = RedisBusSettings::new("redis://:s3cret@cache".to_owned().into());
    assert!(!format!("{settings:?}").contains("s3cret"));
}

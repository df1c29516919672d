use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use supervision::{Heartbeats, Strategy, SupervisorSpec, Tree};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn view(heartbeats: &Heartbeats) -> LivenessView {
    LivenessView::new(heartbeats.clone(), Settings::default().wedged_after(), [ID, "broadcaster"])
}

/// A loop that ticks every second while `goes_on`, and then hangs in the middle of its work.
fn looping(id: &'static str, goes_on: Arc<AtomicBool>) -> ChildSpec {
    ChildSpec::task(id, move |context| {
        let goes_on = Arc::clone(&goes_on);
        async move {
            let heartbeat = context.heartbeat("loop", SECOND);
            let stopped = context.cancelled();
            while !stopped.is_cancelled() {
                if goes_on.load(Ordering::SeqCst) {
                    heartbeat.beat();
                }
                tokio::select! {
                    () = tokio::time::sleep(SECOND) => {}
                    () = stopped.cancelled() => {}
                }
            }
            Ok(())
        }
    })
}

async fn start(heartbeats: &Heartbeats, children: Vec<ChildSpec>) -> Tree {
    let root = SupervisorSpec::new("root", Strategy::OneForOne);
    let root = children.into_iter().fold(root, SupervisorSpec::child);
    Tree::start(root, heartbeats.clone()).await.unwrap()
}

fn state(liveness: &Liveness, name: &str) -> State {
    liveness.subsystems.iter().find(|part| part.name == name).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_hangs_is_stale_then_wedged_and_an_idle_one_is_neither() {
    let (heartbeats, goes_on) = (Heartbeats::new(), Arc::new(AtomicBool::new(true)));
    let idle = looping("idle", Arc::new(AtomicBool::new(true)));
    let tree = start(&heartbeats, vec![idle, looping("hangs", Arc::clone(&goes_on))]).await;
    let view = view(&heartbeats);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(state(&view.snapshot(), "hangs"), State::Beating);

    goes_on.store(false, Ordering::SeqCst);
    tokio::time::sleep(3 * SECOND).await;
    let liveness = view.snapshot();
    assert_eq!((state(&liveness, "hangs"), state(&liveness, "idle")), (State::Stale, State::Beating));
    assert_eq!(liveness.state, State::Stale);
    assert!(liveness.wedged(&["hangs", "idle"]).is_empty(), "stale alone fails no probe");

    tokio::time::sleep(60 * SECOND).await;
    let liveness = view.snapshot();
    assert_eq!(liveness.wedged(&["hangs", "idle"]), ["hangs/loop"]);
    assert!(liveness.wedged(&["idle"]).is_empty());
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_without_a_loop_is_shown_as_waiting() {
    let liveness = view(&Heartbeats::new()).snapshot();
    let names: Vec<_> = liveness.subsystems.iter().map(|part| (part.name.as_str(), part.state)).collect();
    assert_eq!(names, [("broadcaster", State::Waiting), (ID, State::Waiting)]);
    assert_eq!(liveness.subsystems[0].seconds_ago, None);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_ticks_rarely_is_not_wedged_before_it_is_stale() {
    let heartbeats = Heartbeats::new();
    let rare = ChildSpec::task("rare", |context| async move {
        let heartbeat = context.heartbeat("loop", 300 * SECOND);
        heartbeat.beat();
        context.cancelled().cancelled().await;
        Ok(())
    });
    let tree = start(&heartbeats, vec![rare]).await;
    let view = view(&heartbeats);
    tokio::time::sleep(500 * SECOND).await;
    assert_eq!(state(&view.snapshot(), "rare"), State::Beating);
    tokio::time::sleep(200 * SECOND).await;
    assert_eq!(state(&view.snapshot(), "rare"), State::Wedged);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_picture_is_json_with_times_a_person_can_read() {
    let heartbeats = Heartbeats::new();
    let tree = start(&heartbeats, vec![looping("idle", Arc::new(AtomicBool::new(true)))]).await;
    tokio::time::sleep(SECOND / 2).await;
    let json = serde_json::to_value(view(&heartbeats).snapshot()).unwrap();
    let idle = &json["subsystems"][1];
    assert_eq!((idle["name"].as_str(), idle["state"].as_str()), (Some("idle"), Some("beating")));
    let at: jiff::Timestamp = idle["last_tick_at"].as_str().unwrap().parse().unwrap();
    assert!(at.duration_since(jiff::Timestamp::now()).abs() < jiff::SignedDuration::from_secs(60));
    assert_eq!(idle["seconds_ago"].as_f64(), Some(0.5));
    assert_eq!(idle["loops"][0]["interval_ms"].as_u64(), Some(1_000));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_monitor_itself_beats() {
    let heartbeats = Heartbeats::new();
    let view = view(&heartbeats);
    let tree = start(&heartbeats, vec![liveness_monitor(&view, &Settings::default())]).await;
    tokio::time::sleep(100 * SECOND).await;
    let liveness = view.snapshot();
    let own = liveness.subsystems.iter().find(|part| part.name == ID).unwrap();
    assert_eq!(own.state, State::Beating);
    assert!(own.seconds_ago.unwrap() <= 1.0);
    assert!(tree.stop().await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_once_and_so_is_its_end() {
    let (heartbeats, goes_on) = (Heartbeats::new(), Arc::new(AtomicBool::new(true)));
    let tree = start(&heartbeats, vec![looping("hangs", Arc::clone(&goes_on))]).await;
    let (view, mut watch) = (view(&heartbeats), Watch::default());
    let mut told = Vec::new();
    for second in 0..80 {
        tokio::time::sleep(SECOND).await;
        goes_on.store(!(10..75).contains(&second), Ordering::SeqCst);
        told.extend(watch.changes(&view.snapshot()).into_iter().map(|change| change.state));
    }
    assert_eq!(told, [State::Stale, State::Wedged, State::Beating]);
    assert_eq!(watch.0.len(), 0);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_monitor_passes_the_battery() {
    let view = view(&Heartbeats::new());
    let report = supervision::battery::run(|| liveness_monitor(&view, &Settings::default())).await;
    assert_eq!(report.skipped().count(), 2, "all but the flood and what is for tasks: {report}");
}

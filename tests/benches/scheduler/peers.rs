//! The job queues of others on the same kind of store: the same jobs through ours and through theirs, by turns.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tests::bench::{self, Cost, median};

use super::{Ground, ROUNDS, Run, run_all, us_each};

/// A job queue of others: a program that keeps jobs, and one that runs them and prints the milliseconds that took, and
/// behind them its own microseconds of CPU meanwhile: its start does not count.
pub struct Peer {
    pub name: &'static str,
    pub jobs: usize,
    pub fill: Command,
    pub run: Command,
    /// What must live as long.
    pub keep: Option<TempDir>,
}

/// The same number of jobs through the queues of others, each run a process of its own; CPU is that of
/// the process but for its start.
pub async fn peers(ground: &dyn Ground) {
    let mut runs: BTreeMap<&str, (Vec<Run>, Vec<Run>, usize)> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let peers = ground.peers().await;
        if peers.is_empty() {
            return;
        }
        for peer in peers {
            let (ours, theirs, jobs) = runs.entry(peer.name).or_default();
            *jobs = peer.jobs;
            theirs.push(run_peer(ground, peer).await);
            ours.push(run_all(ground, *jobs).await);
        }
    }
    for (name, (ours, theirs, jobs)) in runs {
        let name = format!("scheduler.{}.peers.{name}", ground.name());
        let each = |runs: &[Run], of: fn(&Run) -> Duration| {
            let us = median(runs.iter().map(|run| us_each(of(run), jobs)).collect());
            (us, format!("{us:.0} us"))
        };
        let of: fn(&Run) -> Duration = |run| run.cost.cpu;
        let ((ours_us, ours_shown), (theirs_us, theirs_shown)) = (each(&ours, of), each(&theirs, of));
        bench::ratio_row(&format!("{name}.cpu_per_job"), &ours_shown, &theirs_shown, ours_us / theirs_us, 1.0);
        if ours.iter().chain(&theirs).all(|run| run.server.is_some()) {
            let of: fn(&Run) -> Duration = |run| run.server.unwrap_or_default();
            let ((ours_us, ours_shown), (theirs_us, theirs_shown)) = (each(&ours, of), each(&theirs, of));
            bench::figure_row(&format!("{name}.server_cpu_per_job"), &ours_shown, &theirs_shown, ours_us / theirs_us);
        }
        let ((ours_us, _), (theirs_us, _)) = (each(&ours, |run| run.cost.wall), each(&theirs, |run| run.cost.wall));
        let shown = |us: f64| format!("{:.0} jobs/s", 1e6 / us);
        bench::figure_row(&format!("{name}.rate"), &shown(ours_us), &shown(theirs_us), theirs_us / ours_us);
    }
}

/// All jobs of a queue of others, from the first one on.
async fn run_peer(ground: &dyn Ground, peer: Peer) -> Run {
    let Peer { mut fill, mut run, keep, .. } = peer;
    assert!(fill.status().unwrap().success(), "{fill:?}");
    let server = ground.watch().await;
    let used = async || if let Some(server) = &server { server.server_cpu().await } else { None };
    let before = used().await;
    let output = run.output().unwrap();
    let server = used().await.zip(before).map(|(after, before)| after.saturating_sub(before));
    drop(keep);
    assert!(output.status.success(), "{run:?}: {}", String::from_utf8_lossy(&output.stderr));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut told = output.split_whitespace().map(|number| number.parse::<f64>().unwrap());
    let [ms, us] = [told.next().unwrap(), told.next().unwrap()];
    let (wall, cpu) = (Duration::from_secs_f64(ms / 1e3), Duration::from_secs_f64(us / 1e6));
    Run { cost: Cost { wall, cpu }, server }
}

//! The released binary from outside: how fast it is ready, how much memory it takes when idle, how large it is.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::bench::{self, median};
use tests::{Service, binary};

const STARTS: usize = 15;
/// After which a service that does nothing has settled.
const IDLE: Duration = Duration::from_secs(5);

fn main() {
    let app = binary::released_app();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        bench::head();
        bench::aim_row("service.cold_start", cold_start_ms(app).await, 300.0, "ms");
        bench::aim_row("service.idle_memory", idle_memory_mib(app).await, 40.0, "MiB");
        bench::aim_row("service.binary", binary_mib(app), 40.0, "MiB");
    });
}

/// From the start of the process in an empty directory to the line that says that it is ready.
async fn cold_start_ms(app: &Path) -> f64 {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let setup = Service::setup().executable(app);
        let began = Instant::now();
        let service = setup.start().await;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        drop(service);
    }
    median(times)
}

/// Resident memory after a while without work.
async fn idle_memory_mib(app: &Path) -> f64 {
    let service = Service::setup().executable(app).start().await;
    tokio::time::sleep(IDLE).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process().pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024.0
}

/// Without debug sections: `strip` belongs to the C compiler that the build needs anyway.
fn binary_mib(app: &Path) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("app");
    let status = Command::new("strip").arg("--strip-debug").arg("-o").arg(&copy).arg(app).status().unwrap();
    assert!(status.success());
    std::fs::metadata(&copy).unwrap().len() as f64 / 1024.0 / 1024.0
}

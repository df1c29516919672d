//! A hundred thousand schedules of the same minute: how long until the last one has fired, and how long the claims of
//! another tenant's jobs take meanwhile.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use actors::jobs::Cadence;
use actors::model::TenantId;
use actors::store::{FireDue, NewSchedule, SharedStore};
use serde_json::json;
use tests::bench;

use super::{BATCH, DONE, Ground, Settlement, job, quantile, request};

/// As many as the jobs that a tenant may have queued by default: with one more, or one job beside, a fire would be
/// missed. The stores here let it have more.
const SCHEDULES: usize = 100_000;

/// Of one tenant, and of so many.
pub async fn fires(ground: &dyn Ground) {
    for (row, tenants) in [("of_one_tenant", 1), ("of_1k_tenants", 1_000)] {
        let site = ground.open().await;
        let store = &site.store;
        let daily = Cadence::cron("0 0 * * *", "UTC", store.now_ms().await.unwrap()).unwrap();
        let first = NewSchedule::new(TenantId::new("first").unwrap(), daily, "note", json!({"n": 1}));
        let first = store.create_schedule(first).await.unwrap().id;
        // The first one waits for its own midnight; these missed the last one.
        site.own.schedules(first, tenants, SCHEDULES).await;
        let (is_over, began) = (AtomicBool::new(false), Instant::now());
        let ((), (asked, mut times)) = tokio::join!(fire_all(store, &is_over), claims_of_another(store, &is_over));
        let took = began.elapsed().as_secs_f64();
        let name = format!("scheduler.{}.fires.{row}", ground.name());
        let rate = format!("{:.0} fires/s", SCHEDULES as f64 / took);
        bench::figure_row(&format!("{name}.last_after"), &format!("{took:.1} s"), "-", f64::NAN);
        bench::figure_row(&format!("{name}.rate"), &rate, "-", f64::NAN);
        bench::aim_row(&format!("{name}.claim_p99"), quantile(&mut times, 0.99), 100.0, "ms");
        let counts = store.job_counts().await.unwrap();
        let made = counts.ready + counts.running + counts.done;
        assert_eq!(made as usize, SCHEDULES + asked, "each fire is one job, and so is each that was asked for");
    }
}

async fn fire_all(store: &SharedStore, is_over: &AtomicBool) {
    let mut fired = HashSet::with_capacity(SCHEDULES);
    while fired.len() < SCHEDULES {
        let look = FireDue { limit: BATCH, catch_up_window_ms: 2 * 86_400_000 };
        for one in store.fire_due(look).await.unwrap().fired {
            assert!(fired.insert(one.schedule), "a schedule fires twice");
        }
    }
    is_over.store(true, Ordering::Relaxed);
}

/// One job after the other, each when the one before was claimed. Among a thousand tenants who wait too, its turn comes once
/// in a hundred claims, so what is measured is a claim, in milliseconds. Answers also how many jobs there were.
async fn claims_of_another(store: &SharedStore, is_over: &AtomicBool) -> (usize, Vec<f64>) {
    let (mut asked, mut times) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let id = store.enqueue(vec![job("another")]).await.unwrap()[0].id;
        asked += 1;
        let mut is_claimed = false;
        while !is_claimed {
            let began = Instant::now();
            let jobs = store.claim(request(10, 1_000)).await.unwrap().jobs;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            is_claimed = jobs.iter().any(|job| job.id == id);
            store.settle(jobs.iter().map(|job| Settlement::new(job.fence(), DONE)).collect()).await.unwrap();
        }
    }
    (asked, times)
}

//! How the verbs of the port reach a backend's own code, the same way in each: every verb is a function in one of its
//! modules, which have the same names everywhere, and is called within the deadline. What only one backend
//! does, it adds.

/// Makes `$store` a store, by the modules of where this stands.
macro_rules! port {
    ($store:ty, $($own:tt)*) => {
        const _: () = {
            use async_trait::async_trait;
            use uuid::Uuid;
            use $crate::jobs::Progress;
            use $crate::model::{Millis, TenantId};
            use $crate::store::{
                Backfilled, Before, BeginRequest, BegunRequest, Cancelled, Channel, ClaimDeliveries, ClaimJobs,
                ClaimedDeliveries, ClaimedJobs, Delivery, DeliverySettled, DeliverySettlement, DeliveryState,
                DueChannels, Fence, FireDue, FireReport, Job, JobCounts, JobFilter, KeyHash, LoggedAttempt, NewChannel,
                NewDelivery, NewJob, NewSchedule, Overlap, Overview, Place, Prune, PruneJobs, Pruned, Quotas, Redriven,
                RequestEnd, RequestTicket, Result, Schedule, Settled, Settlement, Standing, Store, SweepReport, Tenant,
                Triggered,
            };

            #[async_trait]
            impl Store for $store {
                async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Job>> {
                    self.within("enqueue", jobs::enqueue(self, jobs)).await
                }

                async fn claim(&self, claim: ClaimJobs<'_>) -> Result<ClaimedJobs> {
                    self.within("claim", claim::claim(self, claim)).await
                }

                async fn settle(&self, batch: Vec<Settlement>) -> Result<Vec<Settled>> {
                    self.within("settle", settle::settle(self, batch)).await
                }

                async fn heartbeat(&self, owner: Uuid, lease_ms: u64, held: &[Fence]) -> Result<Vec<Fence>> {
                    self.within("heartbeat", jobs::heartbeat(self, owner, lease_ms, held)).await
                }

                async fn sweep(&self, crashes_max: u32, limit: u32) -> Result<SweepReport> {
                    self.within("sweep", settle::sweep(self, crashes_max, limit)).await
                }

                async fn report_progress(&self, reports: &[(Fence, Progress)]) -> Result<Vec<Settled>> {
                    self.within("report_progress", jobs::report_progress(self, reports)).await
                }

                async fn redrive_job(&self, tenant: &TenantId, id: Uuid) -> Result<Job> {
                    self.within("redrive_job", redrive::one(self, tenant, id)).await
                }

                async fn redrive_jobs(
                    &self,
                    tenant: &TenantId,
                    filter: &JobFilter,
                    after: Option<Place>,
                    limit: u32,
                ) -> Result<Redriven> {
                    self.within("redrive_jobs", redrive::many(self, tenant, filter, after, limit)).await
                }

                async fn job_standing(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Standing>> {
                    self.within("job_standing", standing::standing(self, tenant, id)).await
                }

                async fn prune(&self, prune: PruneJobs) -> Result<Pruned> {
                    self.within("prune", prune::jobs(self, prune)).await
                }

                async fn get_job(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Job>> {
                    self.within("get_job", jobs::get(self, tenant, id)).await
                }

                async fn list_jobs(
                    &self,
                    tenant: &TenantId,
                    filter: &JobFilter,
                    after: Option<Place>,
                    limit: u32,
                ) -> Result<Vec<Job>> {
                    self.within("list_jobs", list::jobs(self, tenant, filter, after, limit)).await
                }

                async fn cancel_job(&self, tenant: &TenantId, id: Uuid, reason: &str) -> Result<Option<Cancelled>> {
                    self.within("cancel_job", settle::cancel(self, tenant, id, reason)).await
                }

                async fn job_counts(&self) -> Result<JobCounts> {
                    self.within("job_counts", jobs::counts(self)).await
                }

                async fn overview(&self, limit: u32) -> Result<Overview> {
                    self.within("overview", overview::overview(self, limit)).await
                }

                async fn create_schedule(&self, schedule: NewSchedule) -> Result<Schedule> {
                    self.within("create_schedule", schedules::create(self, schedule)).await
                }

                async fn get_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
                    self.within("get_schedule", schedules::get(self, tenant, id)).await
                }

                async fn list_schedules(
                    &self,
                    tenant: &TenantId,
                    after: Option<Place>,
                    limit: u32,
                ) -> Result<Vec<Schedule>> {
                    self.within("list_schedules", list::schedules(self, tenant, after, limit)).await
                }

                async fn delete_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<bool> {
                    self.within("delete_schedule", schedules::delete(self, tenant, id)).await
                }

                async fn pause_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
                    self.within("pause_schedule", schedules::pause(self, tenant, id)).await
                }

                async fn resume_schedule(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Schedule>> {
                    self.within("resume_schedule", schedules::resume(self, tenant, id)).await
                }

                async fn fire_due(&self, fire: FireDue) -> Result<FireReport> {
                    self.within("fire_due", fires::fire_due(self, fire)).await
                }

                async fn update_schedule(&self, schedule: NewSchedule) -> Result<Option<Schedule>> {
                    self.within("update_schedule", schedules::update(self, schedule)).await
                }

                async fn trigger_schedule(
                    &self,
                    tenant: &TenantId,
                    id: Uuid,
                    job: Uuid,
                    overlap: Option<Overlap>,
                ) -> Result<Option<Triggered>> {
                    self.within("trigger_schedule", fires::trigger(self, tenant, id, job, overlap)).await
                }

                async fn backfill_schedule(
                    &self,
                    tenant: &TenantId,
                    id: Uuid,
                    fires: &[Millis],
                    overlap: Overlap,
                ) -> Result<Option<Backfilled>> {
                    self.within("backfill_schedule", fires::backfill(self, tenant, id, fires, overlap)).await
                }

                async fn create_channel(&self, channel: NewChannel) -> Result<Channel> {
                    self.within("create_channel", channels::create(self, channel)).await
                }

                async fn get_channel(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Channel>> {
                    self.within("get_channel", channels::get(self, tenant, id)).await
                }

                async fn list_channels(&self, tenant: &TenantId, page: Before) -> Result<Vec<Channel>> {
                    self.within("list_channels", channels::list(self, tenant, page)).await
                }

                async fn disable_channel(&self, id: Uuid, reason: &str) -> Result<bool> {
                    self.within("disable_channel", channels::disable(self, id, reason)).await
                }

                async fn enable_channel(&self, tenant: &TenantId, id: Uuid) -> Result<bool> {
                    self.within("enable_channel", channels::enable(self, tenant, id)).await
                }

                async fn delete_channel(&self, tenant: &TenantId, id: Uuid) -> Result<bool> {
                    self.within("delete_channel", channels::delete(self, tenant, id)).await
                }

                async fn due_channels(&self, limit: u32, per_tenant: u32) -> Result<DueChannels> {
                    self.within("due_channels", channels::due(self, limit, per_tenant)).await
                }

                async fn create_deliveries(&self, deliveries: Vec<NewDelivery>) -> Result<Vec<Delivery>> {
                    self.within("create_deliveries", deliveries::create(self, deliveries)).await
                }

                async fn claim_deliveries(&self, claim: ClaimDeliveries) -> Result<ClaimedDeliveries> {
                    self.within("claim_deliveries", deliveries::claim(self, claim)).await
                }

                async fn settle_delivery(&self, settlement: DeliverySettlement) -> Result<DeliverySettled> {
                    self.within("settle_delivery", attempts::settle(self, settlement)).await
                }

                async fn redeliver(&self, tenant: &TenantId, channel: Uuid, id: Uuid) -> Result<Delivery> {
                    self.within("redeliver", deliveries::redeliver(self, tenant, channel, id)).await
                }

                async fn get_delivery(&self, tenant: &TenantId, id: Uuid) -> Result<Option<Delivery>> {
                    self.within("get_delivery", deliveries::get(self, tenant, id)).await
                }

                async fn list_attempts(&self, delivery: Uuid) -> Result<Vec<LoggedAttempt>> {
                    self.within("list_attempts", attempts::list(self, delivery)).await
                }

                async fn list_deliveries(
                    &self,
                    tenant: &TenantId,
                    channel: Uuid,
                    state: Option<DeliveryState>,
                    page: Before,
                ) -> Result<Vec<Delivery>> {
                    self.within("list_deliveries", deliveries::list(self, tenant, channel, state, page)).await
                }

                async fn bury_deliveries(&self, limit: u32) -> Result<u64> {
                    self.within("bury_deliveries", channels::bury(self, limit)).await
                }

                async fn prune_deliveries(&self, prune: Prune) -> Result<u64> {
                    self.within("prune_deliveries", deliveries::prune(self, prune)).await
                }

                async fn create_tenant(&self, id: &TenantId, key: &KeyHash) -> Result<Tenant> {
                    self.within("create_tenant", tenants::create(self, id, key)).await
                }

                async fn tenant_by_key_hash(&self, key: &KeyHash) -> Result<Option<Tenant>> {
                    self.within("tenant_by_key_hash", tenants::by_key_hash(self, key)).await
                }

                async fn get_tenant(&self, id: &TenantId) -> Result<Option<Tenant>> {
                    self.within("get_tenant", tenants::get(self, id)).await
                }

                async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>> {
                    self.within("list_tenants", tenants::list(self, after, limit)).await
                }

                async fn rotate_tenant_key(&self, id: &TenantId, key: &KeyHash) -> Result<Tenant> {
                    self.within("rotate_tenant_key", tenants::rotate_key(self, id, key)).await
                }

                async fn disable_tenant(&self, id: &TenantId) -> Result<Tenant> {
                    self.within("disable_tenant", tenants::disable(self, id)).await
                }

                async fn enable_tenant(&self, id: &TenantId) -> Result<Tenant> {
                    self.within("enable_tenant", tenants::enable(self, id)).await
                }

                async fn set_tenant_quotas(&self, id: &TenantId, quotas: Quotas) -> Result<Tenant> {
                    self.within("set_tenant_quotas", tenants::set_quotas(self, id, quotas)).await
                }

                async fn changed_tenants(&self, version: i64, limit: u32) -> Result<Vec<Tenant>> {
                    self.within("changed_tenants", tenants::changed(self, version, limit)).await
                }

                async fn begin_request(&self, begin: BeginRequest) -> Result<BegunRequest> {
                    self.within("begin_request", requests::begin(self, begin)).await
                }

                async fn end_request(&self, ticket: &RequestTicket, end: RequestEnd) -> Result<Settled> {
                    self.within("end_request", requests::end(self, ticket, end)).await
                }

                async fn forget_requests(&self, limit: u32) -> Result<u64> {
                    self.within("forget_requests", requests::forget(self, limit)).await
                }

                async fn prepare(&self) -> Result<()> {
                    open::prepare(self).await
                }

                async fn ping(&self) -> Result<()> {
                    self.within("ping", self.touch()).await
                }

                $($own)*
            }
        };
    };
}
pub(super) use port;

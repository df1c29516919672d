//! From the sections to what each part takes. Each default here is also the part's own default, held by a test, so that
//! a part behaves the same whether it is used through this binary or not.

use std::time::Duration;

use actors::broadcast::{HubSettings, Limits as SocketLimits, OutboxLimits};
use actors::broadcaster::BroadcasterSettings;
use actors::bus::{BusSettings, RedisBusSettings};
use actors::outbound::OutboundSettings;
use actors::outbound::breaker::BreakerSettings;
use actors::store::{PostgresOptions, SqliteOptions};
use actors::{channel_manager, health_sweep, liveness_monitor, scheduler};
use secrecy::SecretString;
use telemetry::export::check::{Destination, destinations};
use telemetry::export::{Endpoint, LogFormat as ExportLogFormat, StartError, Variables};
use telemetry::recorder::RecorderSettings;
use uuid::Uuid;

use super::{LogFormat, Otlp, Settings};
use crate::http::allowance::Bounds;

impl Settings {
    /// For telemetry. `instance` names this process and no other.
    pub fn for_telemetry(&self, service: &str, instance: Uuid) -> telemetry::export::Settings {
        telemetry::export::Settings {
            service_name: service.to_owned(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: instance.to_string(),
            environment: self.profile.name().to_owned(),
            endpoint: match &self.otel.endpoint {
                Otlp::Unsaid => Endpoint::Environment,
                Otlp::Off => Endpoint::Off,
                Otlp::Endpoint(address) => Endpoint::Url(address.clone()),
            },
            log_filter: self.log.filter.clone(),
            log_format: match self.log.format {
                LogFormat::Text => ExportLogFormat::Text,
                LogFormat::Json => ExportLogFormat::Json,
            },
            sample_ratio: None,
            recorder: self.for_recorder(),
        }
    }

    /// For the flight recorder.
    pub fn for_recorder(&self) -> RecorderSettings {
        let section = &self.telemetry.recorder;
        RecorderSettings {
            enabled: section.enabled,
            recent_max_bytes: section.recent_max_bytes,
            kept_max_bytes: section.kept_max_bytes,
            log_max_bytes: section.log_max_bytes,
            open_max: section.open_max,
            slow: section.slow,
        }
    }

    /// Where each signal goes with these `OTEL_*` variables: the one answer for the checks and for the banner.
    ///
    /// # Errors
    /// Everything that would end the start of telemetry.
    pub fn otlp(&self, variables: &Variables) -> Result<Vec<Destination>, Vec<StartError>> {
        destinations(&self.for_telemetry("", Uuid::nil()), variables)
    }

    /// For the store in PostgreSQL.
    pub fn for_postgres(&self) -> PostgresOptions {
        PostgresOptions {
            deadline_ms: ms(self.store.deadline),
            connections: self.store.connections,
            channel_pending_max: self.channel_manager.pending_max,
            tenant_queued_max: self.tenants.jobs_queued,
        }
    }

    /// For the store in SQLite.
    pub fn for_sqlite(&self) -> SqliteOptions {
        SqliteOptions {
            deadline_ms: ms(self.store.deadline),
            readers: self.store.readers,
            channel_pending_max: self.channel_manager.pending_max,
            tenant_queued_max: self.tenants.jobs_queued,
            ..SqliteOptions::default()
        }
    }

    /// For the child `bus`.
    pub fn for_bus(&self) -> BusSettings {
        BusSettings { interval: self.bus.interval, ping_within: self.bus.ping_timeout }
    }

    /// For the bus over the Redis at `url`.
    pub fn for_redis_bus(&self, url: &SecretString) -> RedisBusSettings {
        let section = &self.bus;
        RedisBusSettings {
            prefix: section.prefix.clone(),
            connect_within: section.connect_timeout,
            publish_within: section.publish_timeout,
            silent_after: section.silent_after,
            ..RedisBusSettings::new(url.clone())
        }
    }

    /// For the hub of the broadcaster.
    pub fn for_hub(&self) -> HubSettings {
        let section = &self.broadcaster;
        let outbox = OutboxLimits {
            bytes_max: section.queue_bytes_max,
            frames_max: section.queue_frames_max,
            behind_max: section.behind_max,
            ping_after: section.ping_after,
            pong_within: section.pong_within,
        };
        HubSettings { sockets_max: section.sockets_max, outbox }
    }

    /// What one tenant may have of the broadcaster.
    pub fn for_sockets(&self) -> SocketLimits {
        SocketLimits {
            sockets_max: self.broadcaster.tenant_sockets_max,
            subscriptions_max: self.broadcaster.tenant_subscriptions_max,
            topics_per_socket_max: self.broadcaster.topics_per_socket_max,
        }
    }

    /// What one tenant may have, if its own row does not say otherwise.
    pub fn for_tenants(&self) -> Bounds {
        Bounds {
            requests_per_s: self.tenants.requests_per_s,
            requests_burst: self.tenants.requests_burst,
            requests_at_once: self.tenants.requests_at_once,
            sockets: self.for_sockets(),
            jobs_running: self.scheduler.tenant_concurrency,
            jobs_queued: self.tenants.jobs_queued,
        }
    }

    /// For the actors of the broadcaster.
    pub fn for_broadcaster(&self) -> BroadcasterSettings {
        BroadcasterSettings {
            interval: self.broadcaster.interval,
            sweep_interval: self.broadcaster.sweep_interval,
            restart: self.broadcaster.restart.intensity(),
            backoff: self.broadcaster.backoff.backoff(),
        }
    }

    /// For the scheduler.
    pub fn for_scheduler(&self) -> scheduler::Settings {
        let section = &self.scheduler;
        scheduler::Settings {
            queues: section.queues.clone(),
            queues_elsewhere: section.queues_elsewhere.clone(),
            poll_interval_ms: ms(section.interval),
            lease_ms: ms(section.lease),
            heartbeat_ms: ms(section.heartbeat),
            batch: section.batch,
            concurrency: section.concurrency,
            tenant_concurrency: section.tenant_concurrency,
            job_timeout_ms: ms(section.job_timeout),
            cancel_grace_ms: ms(section.cancel_grace),
            settle_wait_ms: ms(section.settle_wait),
            fire_interval_ms: ms(section.fire_interval),
            catch_up_window_ms: ms(section.misfire_window),
            sweep_interval_ms: ms(section.sweep_interval),
            retry_base_ms: ms(section.retry_base),
            retry_cap_ms: ms(section.retry_cap),
            crashes_max: section.crashes_max,
            keep_done_ms: ms(section.keep_done),
            keep_dead_ms: ms(section.keep_dead),
            keep_cancelled_ms: ms(section.keep_cancelled),
            tenant_finished_max: section.tenant_finished_max,
            park_max_ms: ms(section.park_max),
            stop_within_ms: ms(section.stop_budget),
        }
    }

    /// For the one HTTP client.
    pub fn for_outbound(&self) -> OutboundSettings {
        let section = &self.outbound;
        OutboundSettings {
            connect_timeout: section.connect_timeout,
            head_timeout: section.head_timeout,
            total_timeout: section.total_timeout,
            idle_per_host_max: section.idle_per_host_max,
            idle_timeout: section.idle_timeout,
            in_flight_max: section.in_flight_max,
            host_in_flight_max: section.host_in_flight_max,
            place_wait: section.place_wait,
            answer_max_bytes: section.answer_max_bytes,
            breaker: BreakerSettings { failures_max: section.breaker_failures_max, open_for: section.breaker_open },
            ..OutboundSettings::default()
        }
    }

    /// For the channel manager.
    pub fn for_channel_manager(&self) -> channel_manager::Settings {
        let section = &self.channel_manager;
        channel_manager::Settings {
            interval_ms: ms(section.interval),
            idle_after_ms: ms(section.idle_after),
            channels_max: section.channels_max,
            tenant_channels_max: section.tenant_channels_max,
            in_flight_max: section.in_flight_max,
            lease_ms: ms(section.lease),
            request_timeout_ms: ms(section.request_timeout),
            answer_max_bytes: section.answer_max_bytes,
            retry_delays_ms: section.retry_delays.iter().copied().map(ms).collect(),
            retry_after_max_ms: ms(section.retry_after_max),
            breaker_failures_max: section.breaker_failures_max,
            breaker_open_ms: ms(section.breaker_open),
            refusals_max: section.refusals_max,
            refused_for_ms: ms(section.refused_for),
            failing_for_ms: ms(section.failing_for),
            keep_finished_ms: ms(section.keep_finished),
            keep_finished_max: section.keep_finished_max,
            stop_within_ms: ms(section.stop_budget),
            allow_http: section.allow_http,
            allow_private_addresses: section.allow_private_addresses,
            ports: section.ports.clone(),
            slack_base_url: section.slack_base_url.clone(),
            telegram_base_url: section.telegram_base_url.clone(),
            ..channel_manager::Settings::default()
        }
    }

    /// For the health sweep.
    pub fn for_health_sweep(&self) -> health_sweep::Settings {
        health_sweep::Settings {
            interval_ms: ms(self.health_sweep.interval),
            probe_timeout_ms: ms(self.health_sweep.probe_timeout),
            bad_sweeps: self.health_sweep.bad_sweeps,
            good_sweeps: self.health_sweep.good_sweeps,
            required: self.health.required.clone(),
        }
    }

    /// For the liveness monitor.
    pub fn for_liveness_monitor(&self) -> liveness_monitor::Settings {
        liveness_monitor::Settings {
            interval_ms: ms(self.liveness_monitor.interval),
            wedged_after_ms: ms(self.liveness_monitor.wedged_after),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load};

    /// The defaults alone, without the development profile over them.
    fn production() -> Settings {
        let environment = [("APP__PROFILE", "production"), ("APP__OTEL__ENDPOINT", "off")];
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        load(&Sources { environment, ..Sources::default() }).unwrap().settings
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let settings = production();
        assert_eq!(settings.for_recorder(), RecorderSettings::default());
        assert_eq!(settings.for_scheduler(), scheduler::Settings::default());
        assert_eq!(settings.for_outbound(), OutboundSettings::default());
        assert_eq!(settings.for_channel_manager(), channel_manager::Settings::default());
        assert_eq!(settings.for_health_sweep(), health_sweep::Settings::default());
        assert_eq!(settings.for_liveness_monitor(), liveness_monitor::Settings::default());
        assert_eq!(format!("{:?}", settings.for_hub()), format!("{:?}", HubSettings::default()));
        assert_eq!(format!("{:?}", settings.for_sockets()), format!("{:?}", SocketLimits::default()));
        assert_eq!(format!("{:?}", settings.for_broadcaster()), format!("{:?}", BroadcasterSettings::default()));
        assert_eq!(format!("{:?}", settings.for_bus()), format!("{:?}", BusSettings::default()));
        let redis = SecretString::from("redis://cache");
        let defaults = RedisBusSettings::new(redis.clone());
        assert_eq!(format!("{:?}", settings.for_redis_bus(&redis)), format!("{defaults:?}"));
        assert_eq!(format!("{:?}", settings.for_sqlite()), format!("{:?}", SqliteOptions::default()));
        assert_eq!(format!("{:?}", settings.for_postgres()), format!("{:?}", PostgresOptions::default()));
    }

    #[test]
    fn otlp_is_the_same_three_ways_for_telemetry() {
        let telemetry = production().for_telemetry("perennial", Uuid::nil());
        assert_eq!((telemetry.endpoint, telemetry.log_format), (Endpoint::Off, ExportLogFormat::Json));
        assert_eq!(telemetry.environment, "production");
    }
}

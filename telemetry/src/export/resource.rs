//! Who is reporting: the resource attributes of every span, metric and log record.

use super::{Settings, Variables};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};

/// Ours first, then `OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME`: the later wins.
pub(super) fn resource(settings: &Settings, variables: &Variables) -> Resource {
    let builder = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(service(settings))
        .with_attributes(host())
        .with_attributes(process())
        .with_detector(Box::new(EnvResourceDetector::new()));
    match variables.get("OTEL_SERVICE_NAME") {
        Some(name) => builder.with_attribute(KeyValue::new("service.name", name)).build(),
        None => builder.build(),
    }
}

fn service(settings: &Settings) -> [KeyValue; 4] {
    [
        KeyValue::new("service.name", settings.service_name.clone()),
        KeyValue::new("service.version", settings.service_version.clone()),
        KeyValue::new("service.instance.id", settings.instance_id.clone()),
        KeyValue::new("deployment.environment.name", settings.environment.clone()),
    ]
}

fn host() -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("os.type", std::env::consts::OS), KeyValue::new("host.arch", arch())];
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_owned());
    attributes.extend(name.filter(|name| !name.is_empty()).map(|name| KeyValue::new("host.name", name)));
    attributes
}

fn process() -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("process.pid", i64::from(std::process::id()))];
    let executable = std::env::current_exe().ok();
    let name = executable.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    attributes.extend(name.map(|name| KeyValue::new("process.executable.name", name)));
    attributes
}

/// The semantic conventions' words for the processors people run.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Endpoint, LogFormat};

    fn settings() -> Settings {
        Settings {
            service_name: "ours".into(),
            service_version: "1.2.3".into(),
            instance_id: "instance".into(),
            environment: "production".into(),
            endpoint: Endpoint::Off,
            log_filter: String::new(),
            log_format: LogFormat::Text,
            sample_ratio: None,
            recorder: crate::recorder::RecorderSettings::default(),
        }
    }

    fn value(resource: &Resource, key: &'static str) -> Option<String> {
        resource.get(&key.into()).map(|value| value.to_string())
    }

    #[test]
    fn a_resource_says_who_where_and_which_process() {
        let resource = resource(&settings(), &Variables::of_pairs([]));
        assert_eq!(value(&resource, "service.name").as_deref(), Some("ours"));
        assert_eq!(value(&resource, "service.version").as_deref(), Some("1.2.3"));
        assert_eq!(value(&resource, "service.instance.id").as_deref(), Some("instance"));
        assert_eq!(value(&resource, "deployment.environment.name").as_deref(), Some("production"));
        assert_eq!(value(&resource, "process.pid"), Some(std::process::id().to_string()));
        assert_eq!(value(&resource, "telemetry.sdk.language").as_deref(), Some("rust"));
    }

    #[test]
    fn the_service_name_of_the_environment_wins() {
        let resource = resource(&settings(), &Variables::of_pairs([("OTEL_SERVICE_NAME", "theirs")]));
        assert_eq!(value(&resource, "service.name").as_deref(), Some("theirs"));
    }
}

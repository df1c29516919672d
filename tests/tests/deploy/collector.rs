//! The collector's configuration. Its own binary is in no registry that the tests use, so it is read as YAML, and its
//! pipelines are followed from end to end.

use serde_json::Value;

use super::{environment_file, yaml};

fn config() -> Value {
    yaml("otel-collector.yaml")
}

/// The names of a section's components.
fn defined(section: &str) -> Vec<String> {
    config()[section].as_object().unwrap_or_else(|| panic!("no {section}")).keys().cloned().collect()
}

/// The components of that section that the pipelines use, each once.
fn used(section: &str) -> Vec<String> {
    let config = config();
    let pipelines = config["service"]["pipelines"].as_object().unwrap();
    let names = pipelines.values().flat_map(|pipeline| pipeline[section].as_array().unwrap());
    let mut names: Vec<String> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_signal_has_a_pipeline_and_each_of_its_components_is_defined_and_used() {
    let config = config();
    let mut signals: Vec<&String> = config["service"]["pipelines"].as_object().unwrap().keys().collect();
    signals.sort();
    assert_eq!(signals, ["logs", "metrics", "traces"]);
    for section in ["receivers", "processors", "exporters"] {
        let mut defined = defined(section);
        defined.sort();
        assert_eq!(defined, used(section), "{section}");
    }
}

#[test]
fn memory_is_limited_before_anything_else_is_done() {
    let config = config();
    for (signal, pipeline) in config["service"]["pipelines"].as_object().unwrap() {
        assert_eq!(pipeline["processors"][0], "memory_limiter", "{signal}");
    }
}

#[test]
fn the_service_sends_to_the_port_that_the_collector_listens_on() {
    let endpoint = environment_file("observe.env").remove("APP__OTEL__ENDPOINT").unwrap();
    let (host, port) = endpoint.strip_prefix("http://").unwrap().split_once(':').unwrap();
    assert!(yaml("compose.yaml")["services"][host].is_object(), "{host}");
    let listens = &config()["receivers"]["otlp"]["protocols"]["http"]["endpoint"];
    assert_eq!(listens, &format!("0.0.0.0:{port}"));
}

#[test]
fn traces_go_to_the_jaeger_of_the_same_profile() {
    let endpoint = config()["exporters"]["otlp_grpc/jaeger"]["endpoint"].as_str().unwrap().to_owned();
    let host = endpoint.split(':').next().unwrap();
    let compose = yaml("compose.yaml");
    assert_eq!(compose["services"][host]["profiles"], compose["services"]["collector"]["profiles"]);
}

//! The compose file, read by its schema, and held against the binary: what the service `api` would be given is given to
//! the binary directly.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::binary::app;
use tests::process::Process;
use tests::{Home, Port};

use super::{Environment, checked_by, descriptors, environment_file, image, number, path, run, settings, yaml};

const SOON: Duration = Duration::from_secs(60);

fn service(name: &str) -> Value {
    yaml("compose.yaml")["services"][name].clone()
}

/// What the container of the service gets: the image's variables, and over them those of the file with `chosen` (an
/// environment file) in place of `${NAME:-default}`.
fn environment(chosen: &Environment) -> Environment {
    let api = service("api");
    let written = api["environment"].as_object().unwrap();
    let resolved = written.iter().map(|(name, value)| (name.clone(), resolve(value.as_str().unwrap(), chosen)));
    image::environment().into_iter().chain(resolved).collect()
}

fn resolve(value: &str, chosen: &Environment) -> String {
    match value.strip_prefix("${").and_then(|inner| inner.strip_suffix('}')?.split_once(":-")) {
        Some((name, default)) => chosen.get(name).map_or(default, String::as_str).to_owned(),
        None => value.to_owned(),
    }
}

fn alone() -> Environment {
    environment(&Environment::new())
}

#[test]
fn it_is_right_by_the_schema_of_compose() {
    checked_by("check-jsonschema", &["--builtin-schema", "vendor.compose-spec"], &path("compose.yaml"));
}

#[test]
fn the_service_stands_alone_and_each_profile_adds_its_own() {
    let compose = yaml("compose.yaml");
    let of_profile = |profile: &[&str]| -> Vec<String> {
        let services = compose["services"].as_object().unwrap();
        let profiles = |service: &Value| service["profiles"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            services.iter().filter(|(_, each)| profiles(each) == profile).map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(of_profile(&[]), ["api"]);
    assert_eq!(of_profile(&["scale"]), ["postgres", "redis"]);
    assert_eq!(of_profile(&["observe"]), ["collector", "jaeger"]);
    for (name, service) in compose["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        assert!(name == "api" || image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{image}");
    }
}

#[test]
fn each_variable_of_the_service_is_a_setting_that_takes_force() {
    let environment = alone();
    let settings = settings(&environment);
    for name in environment.keys() {
        let key = name.trim_start_matches("APP__").to_lowercase().replace("__", ".");
        let (_, origin) = settings.get(&key).unwrap_or_else(|| panic!("{name} is no setting"));
        assert_eq!(*origin, format!("environment variable {name}"));
    }
}

#[test]
fn what_a_profile_sets_is_a_variable_of_the_service_and_names_one_that_the_profile_adds() {
    for (profile, file) in [("scale", "scale.env"), ("observe", "observe.env")] {
        for (name, value) in environment_file(file) {
            assert_ne!(environment(&environment_file(file))[&name], alone()[&name], "{name} of {file} changes nothing");
            let authority = value.split_once("://").unwrap().1.split('/').next().unwrap();
            let host = authority.rsplit('@').next().unwrap().split(':').next().unwrap();
            assert_eq!(service(host)["profiles"], serde_json::json!([profile]), "{name} of {file}");
        }
    }
}

#[test]
fn with_what_each_profile_sets_the_configuration_is_right_too() {
    for file in ["scale.env", "observe.env"] {
        let checked = run(&["config", "check"], &environment(&environment_file(file)));
        assert!(checked.status.success(), "{file}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn the_published_port_is_the_one_that_the_service_listens_on() {
    let api = service("api");
    let [published] = api["ports"].as_array().unwrap().as_slice() else { panic!("one port") };
    let port = published.as_str().unwrap().rsplit(':').next().unwrap();
    assert_eq!(settings(&alone())["api.listen"].0, format!("0.0.0.0:{port}"));
}

#[test]
fn stopping_gets_more_than_the_grace_period() {
    let period = service("api")["stop_grace_period"].as_str().unwrap().to_owned();
    let seconds: u64 = period.trim_end_matches('s').parse().unwrap();
    assert!(seconds * 1000 > number(&alone(), "shutdown.grace_period_ms"));
}

#[test]
fn a_descriptor_is_there_for_each_connection_and_socket_that_the_limits_allow() {
    assert!(service("api")["ulimits"]["nofile"].as_u64().unwrap() > descriptors(&alone()));
}

#[test]
fn all_that_is_kept_lies_on_the_volume_of_a_container_that_is_read_only() {
    let api = service("api");
    assert_eq!(api["read_only"], true);
    let [volume] = api["volumes"].as_array().unwrap().as_slice() else { panic!("one volume") };
    let (name, target) = volume.as_str().unwrap().split_once(':').unwrap();
    assert!(yaml("compose.yaml")["volumes"].as_object().unwrap().contains_key(name));
    let store = settings(&alone())["store.url"].0.trim_start_matches("sqlite://").to_owned();
    assert!(Path::new(&image::directory()).join(store).starts_with(target));
}

/// A port that is free now.
/// The files outside `directory` that the process has opened to write to.
fn written_elsewhere(pid: u32, directory: &Path) -> Vec<String> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let writes = |fd: &Path| {
        let info = format!("/proc/{pid}/fdinfo/{}", fd.file_name().unwrap().to_str().unwrap());
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0");
        u32::from_str_radix(flags.trim(), 8).unwrap() & 0o3 != 0
    };
    let paths = open.filter(|fd| writes(fd)).filter_map(|fd| std::fs::read_link(fd).ok());
    let elsewhere =
        paths.filter(|path| path.is_absolute() && !path.starts_with(directory) && !path.starts_with("/dev"));
    elsewhere.map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn in_the_environment_of_the_container_the_service_boots_is_healthy_and_stops_cleanly() {
    let home = Home::empty();
    let settings = settings(&alone());
    // The ports belong to the machine that runs the test; everything else is as it is in the container.
    let mut environment = alone();
    let ports = [("api", Port::take()), ("admin", Port::take())];
    for (key, port) in &ports {
        let (host, _) = settings[&format!("{key}.listen")].0.rsplit_once(':').unwrap();
        let name = format!("APP__{}__LISTEN", key.to_uppercase());
        environment.insert(name, format!("{host}:{}", port.number()));
    }
    let asked = |words: &[&str]| {
        let mut command = Command::new(app());
        command.args(words).current_dir(home.path()).env_clear().envs(&environment);
        command
    };
    let process = Process::spawn(asked(&["run"]));
    process.line("ready in ", SOON).await;
    assert!(process.stdout()[0].ends_with("profile production"), "{:?}", process.stdout());

    let check = image::healthcheck();
    let healthy = asked(&check[1..].iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert_eq!(healthy.status.code(), Some(0), "{}", String::from_utf8_lossy(&healthy.stderr));
    let made = asked(&["tenant", "create", "acme"]).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(written_elsewhere(process.pid(), home.path()), Vec::<String>::new());

    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait(SOON).await.code, 0);
}

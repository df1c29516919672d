use super::*;

fn settings(environment: &str, endpoint: Endpoint) -> Settings {
    Settings {
        service_name: "s".into(),
        service_version: "1".into(),
        instance_id: "i".into(),
        environment: environment.into(),
        endpoint,
        log_filter: String::new(),
        log_format: super::super::LogFormat::Text,
        sample_ratio: None,
        recorder: crate::recorder::RecorderSettings::default(),
    }
}

fn plan(environment: &str, endpoint: Endpoint, variables: &[(&str, &str)]) -> Result<Plan, StartError> {
    Plan::new(&settings(environment, endpoint), &Variables::of_pairs(variables.iter().copied()))
}

fn urls(plan: &Plan) -> [Option<&str>; 3] {
    [&plan.traces, &plan.metrics, &plan.logs].map(|route| route.as_ref().map(|route| route.url.as_str()))
}

#[test]
fn development_without_an_endpoint_exports_nothing() {
    let plan = plan("development", Endpoint::Environment, &[]).unwrap();
    assert_eq!(urls(&plan), [None, None, None]);
    assert_eq!(plan.to_string(), "off");
}

#[test]
fn production_without_an_endpoint_exports_to_the_standards_default() {
    let plan = plan("production", Endpoint::Environment, &[]).unwrap();
    assert_eq!(urls(&plan)[0], Some("http://localhost:4318/v1/traces"));
    let route = plan.traces.unwrap();
    assert_eq!((route.transport, route.timeout), (Transport::Http, Duration::from_secs(3)));
}

#[test]
fn a_base_url_gets_the_path_of_each_signal() {
    let plan = plan("development", Endpoint::Url("http://collector:1/otlp/".into()), &[]).unwrap();
    let expected = ["traces", "metrics", "logs"].map(|signal| format!("http://collector:1/otlp/v1/{signal}"));
    assert_eq!(urls(&plan).map(Option::unwrap), expected.each_ref().map(String::as_str));
}

#[test]
fn a_signals_own_endpoint_is_taken_as_it_is_and_wins() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://shared:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://own:2/here"),
    ];
    let plan = plan("development", Endpoint::Environment, &variables).unwrap();
    assert_eq!(urls(&plan)[..2], [Some("https://own:2/here"), Some("http://shared:1/v1/metrics")]);
    assert!(plan.traces.unwrap().is_tls());
}

#[test]
fn the_scheme_says_whether_it_is_tls_and_the_variable_where_there_is_none() {
    let routed = |protocol: &str, endpoint: &str, insecure: &str| {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
        ];
        let route = plan("production", Endpoint::Environment, &variables).unwrap().traces.unwrap();
        (route.is_tls(), route.url)
    };
    assert_eq!(routed("grpc", "collector:4317", ""), (true, "https://collector:4317".to_owned()));
    assert_eq!(routed("grpc", "collector:4317", "true"), (false, "http://collector:4317".to_owned()));
    assert_eq!(routed("grpc", "HTTPS://collector:4317", "true"), (true, "https://collector:4317".to_owned()));
    assert_eq!(routed("http/protobuf", "Https://c:1", ""), (true, "https://c:1/v1/traces".to_owned()));
    assert_eq!(routed("http/protobuf", "HTTP://c:1", ""), (false, "http://c:1/v1/traces".to_owned()));
}

#[test]
fn an_endpoint_in_the_settings_wins_over_the_variables() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://shared:1")];
    let url = plan("production", Endpoint::Url("http://set:2".into()), &variables).unwrap();
    assert_eq!(urls(&url)[2], Some("http://set:2/v1/logs"));
    let off = plan("production", Endpoint::Off, &variables).unwrap();
    assert_eq!(urls(&off), [None, None, None]);
}

#[test]
fn the_protocol_may_differ_for_each_signal() {
    let variables = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf")];
    let plan = plan("production", Endpoint::Environment, &variables).unwrap();
    assert_eq!(urls(&plan)[1..], [Some("http://localhost:4317"), Some("http://localhost:4318/v1/logs")]);
    assert_eq!(plan.traces.unwrap().transport, Transport::Grpc);
}

#[test]
fn a_disabled_sdk_and_an_exporter_named_none_send_nothing() {
    let all = plan("production", Endpoint::Environment, &[("OTEL_SDK_DISABLED", "True")]).unwrap();
    assert_eq!(urls(&all), [None, None, None]);
    let one = plan("production", Endpoint::Environment, &[("OTEL_METRICS_EXPORTER", "none")]).unwrap();
    assert!(one.metrics.is_none() && one.traces.is_some() && one.logs.is_some());
}

/// The share of the sampler, if it has one.
fn ratio_of(plan: &Plan) -> Option<f64> {
    let text = format!("{:?}", plan.sampler);
    let share = text.split_once("TraceIdRatioBased(")?.1;
    share.trim_end_matches(')').parse().ok()
}

#[test]
fn the_sampler_is_the_one_that_the_variables_name() {
    let sampler = |name: &str, argument: &str| {
        let all = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        plan("production", Endpoint::Off, &all).map(|plan| format!("{:?}", plan.sampler)).map_err(|e| e.to_string())
    };
    assert_eq!(sampler("", "").unwrap(), "ParentBased(Follows(AlwaysOn))");
    assert_eq!(sampler("always_off", "").unwrap(), "AlwaysOff");
    assert_eq!(sampler("traceidratio", "0.25").unwrap(), "TraceIdRatioBased(0.25)");
    assert_eq!(sampler("parentbased_traceidratio", "").unwrap(), "ParentBased(Follows(TraceIdRatioBased(1.0)))");
    let error = sampler("traceidratio", "1.5").unwrap_err();
    assert_eq!(error, "OTEL_TRACES_SAMPLER_ARG: '1.5' is not a share from 0 to 1");
    assert!(sampler("xray", "").unwrap_err().starts_with("OTEL_TRACES_SAMPLER: 'xray' is not 'always_on'"));
}

#[test]
fn what_the_variables_say_wins() {
    let ratio = Settings { sample_ratio: Some(0.5), ..settings("production", Endpoint::Environment) };
    let ours = Plan::new(&ratio, &Variables::of_pairs([])).unwrap();
    assert_eq!((ours.span_queue_max, ours.log_queue_max, ratio_of(&ours)), (8192, 8192, Some(0.5)));
    let said =
        [("OTEL_BSP_MAX_QUEUE_SIZE", "7"), ("OTEL_BLRP_MAX_QUEUE_SIZE", "7"), ("OTEL_TRACES_SAMPLER", "always_on")];
    let theirs = Plan::new(&ratio, &Variables::of_pairs(said)).unwrap();
    assert_eq!((theirs.span_queue_max, theirs.log_queue_max, ratio_of(&theirs)), (7, 7, None));
    let timeout = plan("production", Endpoint::Environment, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "250")]).unwrap();
    assert_eq!(timeout.logs.unwrap().timeout, Duration::from_millis(250));
}

#[test]
fn propagators_are_chosen_by_name() {
    let fields = |value: &str| -> Vec<String> {
        let plan = plan("development", Endpoint::Off, &[("OTEL_PROPAGATORS", value)]).unwrap();
        plan.propagator().fields().map(str::to_owned).collect()
    };
    assert_eq!(fields("baggage"), ["baggage"]);
    assert_eq!(fields("none"), [""; 0]);
    assert!(fields("").contains(&"traceparent".to_owned()), "an empty value counts as absent");
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let cases: [(&str, &str, &str); 12] = [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: 'zipkin' is not 'otlp' or 'none'"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not 'http/protobuf' or 'grpc'",
        ),
        (
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
            "x",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL: 'x' is not 'http/protobuf' or 'grpc'",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3s", "OTEL_EXPORTER_OTLP_TIMEOUT: '3s' is not a number of milliseconds"),
        ("OTEL_PROPAGATORS", "b3", "OTEL_PROPAGATORS: 'b3' is not a list of 'tracecontext', 'baggage' or 'none'"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "ftp://x",
            "OTEL_EXPORTER_OTLP_ENDPOINT: 'ftp://x' is not an endpoint: it must begin with http:// or https://",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4318",
            "OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' is not an endpoint: it must begin with http:// or https://",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: '/v1/traces' is not an endpoint: no host",
        ),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "10000000000",
            "OTEL_BSP_MAX_QUEUE_SIZE: '10000000000' is not a number of items from 1 to 1000000",
        ),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "0", "OTEL_BLRP_MAX_QUEUE_SIZE: '0' is not a number of items from 1 to 1000000"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/nowhere/ca.pem",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: '/nowhere/ca.pem' is not a file that can be read",
        ),
        (
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
            "/dev/null",
            "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY: '/dev/null' is not a file that holds this in PEM",
        ),
    ];
    for (name, value, message) in cases {
        let error = plan("production", Endpoint::Environment, &[(name, value)]).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = plan("production", Endpoint::Url("http://".into()), &[]).unwrap_err();
    assert_eq!(error.to_string(), "otel.endpoint: 'http://' is not an endpoint: not a URL");
    let ratio = Settings { sample_ratio: Some(1.5), ..settings("production", Endpoint::Off) };
    assert_eq!(
        Plan::new(&ratio, &Variables::of_pairs([])).unwrap_err().to_string(),
        "sample ratio 1.5 is not between 0 and 1"
    );
}

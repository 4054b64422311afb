//! The files of `deploy/`: what they say to the program is what it takes, and where they knock is a route.

use std::path::Path;
use std::process::Command;

use clap::Parser;
use halfbyte::cli::args::Cli;
use serde_json::Value;

use super::{Running, ask, status};

/// The documents of a file.
fn documents(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("deploy/{name}.yaml")).unwrap();
    let read = |d| <Value as serde::Deserialize>::deserialize(d).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_yaml_ng::Deserializer::from_str(&text).map(read).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The arguments must be the program's; the value of one of them.
fn argument<'a>(args: &[&'a str], name: &str) -> Option<&'a str> {
    let all = ["halfbyte"].into_iter().chain(args.iter().copied());
    Cli::try_parse_from(all).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    let joined = args.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('='));
    joined.or_else(|| args.iter().skip_while(|a| **a != name).nth(1).copied())
}

/// A container's ports by name and number; arguments, ports and probes must agree with each other and with a server that runs.
fn check(container: &Value, server: &str) -> Vec<(String, u64)> {
    let args = texts(&container["args"]);
    let open = |name| argument(&args, name).and_then(|a| a.rsplit(':').next()?.parse::<u64>().ok());
    let ports = container["ports"].as_array().unwrap();
    let ports: Vec<(String, u64)> = ports
        .iter()
        .map(|p| (p["name"].as_str().unwrap_or_default().to_string(), p["containerPort"].as_u64().unwrap()))
        .collect();
    assert!(ports.iter().all(|(_, port)| [open("--http"), open("--grpc")].contains(&Some(*port))), "{ports:?} {args:?}");
    for probe in
        ["startupProbe", "readinessProbe", "livenessProbe"].map(|p| &container[p]["httpGet"]).into_iter().filter(|p| !p.is_null())
    {
        let at = &probe["port"];
        assert!(ports.iter().any(|(name, port)| at == port || at == name.as_str()), "{probe}");
        assert_eq!(status(&ask(server, &format!("GET {}", probe["path"].as_str().unwrap()), b"")), 200, "{probe}");
    }
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let mounts: Vec<&str> = mounts.map(|m| m["mountPath"].as_str().unwrap()).chain(["/mnt/models"]).collect();
    for path in ["--models", "--api-key-file"].into_iter().filter_map(|name| argument(&args, name)) {
        assert!(mounts.iter().any(|m| path.starts_with(m)), "{path} is not mounted: {mounts:?}");
    }
    let security = &container["securityContext"];
    assert!(security["readOnlyRootFilesystem"] == true && security["allowPrivilegeEscalation"] == false, "{security}");
    ports
}

fn seconds(text: &str) -> u64 {
    text.trim_end_matches('s').parse().unwrap()
}

#[test]
fn kubernetes_and_kserve_start_what_is_there_and_ask_where_it_answers() {
    let server = Running::start(Path::new("models"), &[]);
    let http = server.address("http");
    let [deployment, service, scaler, budget] = <[Value; 4]>::try_from(documents("kubernetes")).unwrap();
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let ports = check(container, &http);
    for port in service["spec"]["ports"].as_array().unwrap() {
        assert!(ports.iter().any(|(name, own)| port["targetPort"] == name.as_str() && port["port"] == *own), "{port}");
    }
    let labels = &pod["metadata"]["labels"];
    for selector in
        [&deployment["spec"]["selector"]["matchLabels"], &service["spec"]["selector"], &budget["spec"]["selector"]["matchLabels"]]
    {
        assert_eq!(selector, labels);
    }
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"]);
    let drain = seconds(argument(&texts(&container["args"]), "--drain").unwrap());
    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap() > drain + pause);
    let scraped = &pod["metadata"]["annotations"];
    assert_eq!(status(&ask(&http, &format!("GET {}", scraped["prometheus.io/path"].as_str().unwrap()), b"")), 200);
    assert_eq!(scraped["prometheus.io/port"], ports[0].1.to_string());

    let [runtime, inference] = <[Value; 2]>::try_from(documents("kserve")).unwrap();
    check(&runtime["spec"]["containers"][0], &http);
    let model = &inference["spec"]["predictor"]["model"];
    assert_eq!(model["runtime"], runtime["metadata"]["name"]);
    assert_eq!(model["modelFormat"]["name"], runtime["spec"]["supportedModelFormats"][0]["name"]);
    assert!(texts(&runtime["spec"]["protocolVersions"]).contains(&model["protocolVersion"].as_str().unwrap()));
}

#[test]
fn the_container_starts_a_server_and_its_health_check_tells_whether_it_is_ready() {
    let text = std::fs::read_to_string("deploy/Containerfile").unwrap();
    let list = |start: &str| -> Vec<String> {
        let line = text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no line {start}"));
        serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
    };
    let (serve, check) = (list("CMD"), list("HEALTHCHECK"));
    let serve: Vec<&str> = serve.iter().map(String::as_str).collect();
    let exposed = text.lines().find_map(|l| l.strip_prefix("EXPOSE ")).unwrap();
    for name in ["--http", "--grpc"] {
        assert!(exposed.contains(argument(&serve, name).unwrap().rsplit(':').next().unwrap()));
    }
    let checked: Vec<&str> = check[1..].iter().map(String::as_str).collect();
    assert_eq!(check[0], list("ENTRYPOINT")[0]);
    assert!(argument(&checked, "--check").unwrap().ends_with(argument(&serve, "--http").unwrap().trim_start_matches("0.0.0.0")));
    assert!(text.contains("USER 65532") && text.contains("--features serve"));

    let server = Running::start(Path::new("models"), &[]);
    let healthy = |address: &str| {
        let args = [&checked[..checked.len() - 1], &[address]].concat();
        Command::new(env!("CARGO_BIN_EXE_halfbyte")).args(args).status().unwrap().success()
    };
    let http = server.address("http");
    assert!(healthy(&http));
    server.end();
    assert!(!healthy(&http));
}

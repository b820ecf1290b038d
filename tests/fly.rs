//! Holds the files of examples/fly to each other and to keyrelay, and runs what of them can be run without Fly.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use toml::{Table, Value};

/// The regions that the examples name, in their order.
const REGIONS: &str = "ams iad syd";

/// The parts with a keyrelay.
const RELAYS: [&str; 2] = ["relay", "sidecar"];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fly").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn toml(file: &str) -> Value {
    Value::Table(
        read(file)
            .parse::<Table>()
            .unwrap_or_else(|error| panic!("{file}: {error}")),
    )
}

/// A value by its dotted name; a number is an element of an array.
#[track_caller]
fn at<'a>(value: &'a Value, name: &str) -> &'a Value {
    name.split('.').fold(value, |value, part| {
        let found = match part.parse::<usize>() {
            Ok(element) => value.get(element),
            Err(_) => value.get(part),
        };
        found.unwrap_or_else(|| panic!("there is no {name}"))
    })
}

#[track_caller]
fn number(value: &Value, name: &str) -> i64 {
    at(value, name)
        .as_integer()
        .unwrap_or_else(|| panic!("{name} is no number"))
}

#[track_caller]
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    at(value, name).as_str().unwrap_or_else(|| panic!("{name} is no text"))
}

/// "15s" in seconds.
fn seconds(text: &str) -> f64 {
    let seconds = text.strip_suffix('s').and_then(|text| text.parse().ok());
    seconds.unwrap_or_else(|| panic!("{text} is no number of seconds"))
}

/// "2gb" or "640mb" in MiB.
fn mebibytes(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.len() - 2);
    let number: i64 = number.parse().unwrap_or_else(|_| panic!("{text} is no size"));
    match unit {
        "gb" => number * 1024,
        "mb" => number,
        _ => panic!("{text} has no unit"),
    }
}

fn port(address: &str) -> i64 {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.unwrap_or_else(|| panic!("{address} has no port"))
}

/// The part of fly.toml that leads to keyrelay: the service, and the name of its table of options of HTTP.
fn service(part: &str, fly: &Value) -> (Value, Value) {
    let service = if part == "relay" { "http_service" } else { "services.0" };
    let options = if part == "relay" {
        "http_options"
    } else {
        "ports.0.http_options"
    };
    let service = at(fly, service).clone();
    let options = at(&service, options).clone();
    (service, options)
}

/// `keyrelay check` with the variables that Fly would set, and those of an app that it shares a Machine with.
fn check(part: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyrelay"))
        .args(["check", "keyrelay.toml"])
        .current_dir(path(part))
        .env_clear()
        .envs([
            ("FLY_APP_NAME", "myapp"),
            ("FLY_REGION", "iad"),
            ("KEYDB_PASSWORD", "secret"),
            ("REDIS_URL", "redis://of.the.app:6379"),
            ("PORT", "8080"),
        ])
        .output()
        .expect("keyrelay starts")
}

#[test]
fn keyrelay_takes_its_configs() {
    for part in RELAYS {
        let output = check(part);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{part}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!said.contains("warning"), "{part}: {said}");
        let listens = format!(
            "listens on {}",
            text(&toml(&format!("{part}/keyrelay.toml")), "server.listen.0")
        );
        let keydb = text(&toml("keydb/fly.toml"), "app").to_owned();
        for expected in [&*listens, &format!("reads from iad.{keydb}.internal:6379, database 0")] {
            assert!(said.contains(expected), "{part}: no {expected:?} in {said}");
        }
    }
}

#[test]
fn the_numbers_fit_together() {
    for part in RELAYS {
        let fly = toml(&format!("{part}/fly.toml"));
        let keyrelay = toml(&format!("{part}/keyrelay.toml"));
        let (service, options) = service(part, &fly);

        assert_eq!(text(&fly, "kill_signal"), "SIGTERM");
        let drain = seconds(text(&keyrelay, "server.drain"));
        assert!(drain < number(&fly, "kill_timeout") as f64, "{part}: drain");
        // A heartbeat comes up to a fifth later than it says.
        let heartbeat = 1.2 * seconds(text(&keyrelay, "server.heartbeat"));
        assert!(heartbeat < number(&options, "idle_timeout") as f64, "{part}: heartbeat");
        assert!(
            options.get("h2_backend").is_none(),
            "{part}: streams are to come over HTTP/1.1"
        );

        assert_eq!(text(&service, "concurrency.type"), "connections");
        let [soft, hard] = ["concurrency.soft_limit", "concurrency.hard_limit"].map(|name| number(&service, name));
        assert!(
            soft < hard && hard < number(&keyrelay, "limits.connections"),
            "{part}: connections"
        );
        assert_eq!(text(&service, "auto_stop_machines"), "off");
        assert!(number(&service, "min_machines_running") >= 1);

        assert_eq!(
            number(&service, "internal_port"),
            port(text(&keyrelay, "server.listen.0")),
            "{part}"
        );
        let admin = text(&keyrelay, "admin.listen");
        assert!(admin.starts_with("0.0.0.0:"), "Fly's checks come from outside");
        for name in ["checks.keyrelay.port", "metrics.port"] {
            assert_eq!(number(&fly, name), port(admin), "{part}: {name}");
        }
        assert_eq!(text(&fly, "checks.keyrelay.path"), "/readyz");

        let said = String::from_utf8(check(part).stdout).expect("keyrelay writes UTF-8");
        let most = said
            .split_once("takes at most about ")
            .expect("check says what it takes")
            .1;
        let most: i64 = most.split_once(" MiB").expect("in MiB").0.parse().expect("a number");
        let memory = mebibytes(text(&fly, "vm.0.memory"));
        // The sidecar's Machine is the app's too.
        let share = if part == "relay" { memory } else { memory / 2 };
        assert!(most < share, "{part}: {most} MiB of {share}");
    }
}

#[test]
fn the_containers_are_those_of_the_machine() {
    let fly = toml("sidecar/fly.toml");
    let file = text(&fly, "experimental.machine_config");
    // Every value in it is one that TOML has too.
    let machine: Value = serde_json::from_str(&read(&format!("sidecar/{file}"))).expect("JSON");
    let [app, keyrelay] = [0, 1].map(|container| at(&machine, &format!("containers.{container}")).clone());
    assert_eq!(text(&app, "name"), text(&fly, "experimental.container"));
    assert_eq!(
        text(&app, "env.PORT"),
        number(&fly, "http_service.internal_port").to_string()
    );
    assert_eq!(text(&keyrelay, "image"), text(&toml("relay/fly.toml"), "build.image"));
    assert_eq!(text(&keyrelay, "files.0.guest_path"), "/etc/keyrelay/keyrelay.toml");
    assert!(path("sidecar").join(text(&keyrelay, "files.0.local_path")).exists());
    let asked = at(&keyrelay, "healthchecks.0.http");
    assert_eq!(number(asked, "port"), number(&fly, "checks.keyrelay.port"));
    assert_eq!(text(asked, "path"), text(&fly, "checks.keyrelay.path"));
    // The page's origin is the app; only its port differs.
    let origin = format!("https://{}.fly.dev", text(&fly, "app"));
    assert_eq!(text(&toml("sidecar/keyrelay.toml"), "server.origins.0"), origin);
}

#[test]
fn keydb_is_where_it_is_looked_for() {
    let fly = toml("keydb/fly.toml");
    let conf = read("keydb/keydb.conf");
    let option = |name: &str| {
        let found = conf.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("keydb.conf has no {name}"))
    };
    assert_eq!(text(&fly, "env.KEYDB_REGIONS"), REGIONS);
    assert!(REGIONS.split(' ').any(|region| region == text(&fly, "primary_region")));
    assert_eq!(text(&fly, "env.KEYDB_DIR"), text(&fly, "mounts.destination"));
    assert_eq!(number(&fly, "checks.keydb.port").to_string(), option("port"));
    assert_eq!(option("replica-serve-stale-data"), "yes");
    let memory = mebibytes(text(&fly, "vm.0.memory"));
    assert!(3 * mebibytes(option("maxmemory")) <= 2 * memory, "room for copies");
    let regions = REGIONS.replace(' ', ",");
    assert_eq!(read("README.md").matches(&format!("--region {regions}")).count(), 2);
}

/// A keydb-server that prints the config it is started with.
fn started(variables: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = dir.path().join("keydb-server");
    fs::write(&program, "#!/bin/sh\nexec cat \"$1\"\n").expect("it can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let places = format!("{}:/usr/bin:/bin", dir.path().display());
    Command::new("sh")
        .arg(path("keydb/start.sh"))
        .env_clear()
        .env("PATH", places)
        .env("TMPDIR", dir.path())
        .envs(variables.iter().copied())
        .output()
        .expect("sh starts")
}

#[test]
fn each_node_is_a_replica_of_all_others() {
    for own in REGIONS.split(' ') {
        let output = started(&[
            ("FLY_APP_NAME", "myapp-keydb"),
            ("FLY_REGION", own),
            ("KEYDB_REGIONS", REGIONS),
            ("KEYDB_DIR", "/data"),
            ("KEYDB_PASSWORD", "s3cret"),
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let conf = String::from_utf8(output.stdout).expect("text");
        let peers: Vec<&str> = conf.lines().filter(|line| line.starts_with("replicaof ")).collect();
        let others = REGIONS.split(' ').filter(|region| *region != own);
        let others: Vec<String> = others
            .map(|region| format!("replicaof {region}.myapp-keydb.internal 6379"))
            .collect();
        assert_eq!(peers, others);
        for line in [
            "active-replica yes",
            "dir /data",
            "requirepass s3cret",
            "masterauth s3cret",
        ] {
            assert!(conf.lines().any(|each| each == line), "no {line:?} in {conf}");
        }
    }
}

#[test]
fn a_node_that_cannot_be_says_why() {
    let all = [
        ("FLY_APP_NAME", "myapp-keydb"),
        ("FLY_REGION", "ams"),
        ("KEYDB_REGIONS", REGIONS),
        ("KEYDB_DIR", "/data"),
        ("KEYDB_PASSWORD", "s3cret"),
    ];
    for missing in 0..all.len() {
        let output = started(&[&all[..missing], &all[missing + 1..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(all[missing].0),
            "without {}: {said}",
            all[missing].0
        );
    }
    let output = started(&[&all[..1], &[("FLY_REGION", "gru")], &all[2..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("add it to KEYDB_REGIONS"),
        "{said}"
    );
}

/// A process that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The app in the README hands requests on, WebSockets too, and answers those that come back and the others itself.
#[test]
fn the_app_in_node_replays() {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no node to run the app of the README with");
        return;
    }
    let readme = read("README.md");
    let app = readme.split("```js\n").nth(1).and_then(|rest| rest.split("```").next());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("app.mjs");
    fs::write(&file, app.expect("the README has an app")).expect("it can be written");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let node = Command::new("node")
        .arg(&file)
        .env("PORT", address.port().to_string())
        .stdin(Stdio::null())
        .spawn()
        .expect("node starts");
    let mut node = Killed(node);
    let mut ask = |request: &str| {
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => {
                    assert!(node.0.try_wait().expect("it is ours").is_none(), "node ended: {error}");
                    std::thread::yield_now();
                }
            }
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket has a timeout");
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        answer.to_lowercase()
    };
    let replay = "\r\nfly-replay: app=myapp-relay;timeout=5s;fallback=prefer_self\r\n";
    let events = ask("GET /keyrelay/events?channel=cart:42 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(events.contains(replay), "{events}");
    let socket = ask("GET /keyrelay/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert!(socket.contains(replay), "{socket}");
    // What Fly's proxy could not bring to any relay comes back.
    let events =
        ask("GET /keyrelay/events?channel=a HTTP/1.1\r\nhost: a\r\nfly-replay-failed: a\r\nconnection: close\r\n\r\n");
    assert!(events.starts_with("http/1.1 200"), "{events}");
    assert!(
        events.contains("text/event-stream") && events.contains("retry: 2000\n\n"),
        "{events}"
    );
    let state =
        ask("GET /keyrelay/channels/a HTTP/1.1\r\nhost: a\r\nfly-replay-failed: a\r\nconnection: close\r\n\r\n");
    assert!(state.starts_with("http/1.1 502"), "{state}");
    let socket = ask(
        "GET /keyrelay/ws HTTP/1.1\r\nhost: a\r\nfly-replay-failed: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
    assert!(socket.starts_with("http/1.1 502"), "{socket}");
    let other = ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(!other.contains(replay) && other.contains("the app"), "{other}");
}

/// A write in one of three regions is seen in all: see tests/fly/regions.sh, which says where it cannot be run.
#[test]
fn three_regions_see_each_other() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fly/regions.sh");
    let status = Command::new(script).arg(env!("CARGO_BIN_EXE_keyrelay")).status();
    assert!(
        status.expect("bash is there").success(),
        "the regions do not see each other"
    );
}

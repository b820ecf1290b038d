//! The metrics of a running relay against what is written of them: the document, the alert rules, Grafana's dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Relay, Server, Sse, Ws, eventually, mapping};
use crate::redis;

/// Labels whose values are of the config, the server, the build or the kind of metric, and not of a list.
const FREE: [&str; 4] = ["node", "mapping", "version", "le"];

/// What is known of a metric.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    /// The values of each label; none for a free one.
    labels: BTreeMap<String, BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

/// The words of a text that stand in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tables of `docs/metrics.md`: a row is name, type, label with its values, what it is, what to do.
fn documented() -> Metrics {
    let rows = include_str!("../../docs/metrics.md").lines();
    let rows = rows.filter(|line| line.starts_with("| `keyrelay_") || line.starts_with("| `process_"));
    let mut metrics = Metrics::new();
    let gaps: BTreeSet<String> = keyrelay::relay::stats::GAPS.map(str::to_owned).into();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, what, todo] = cells[..] else {
            panic!("a row has five cells: {row}");
        };
        assert!(!what.is_empty() && !todo.is_empty(), "what it is and what to do: {row}");
        let mut words = quoted(labels);
        let label = words.next().map(str::to_owned);
        let values: BTreeSet<String> = words.map(str::to_owned).collect();
        let values = match label.as_deref() {
            Some(label) if FREE.contains(&label) => BTreeSet::new(),
            // As of gaps.
            Some("reason") if values.is_empty() => gaps.clone(),
            _ => values,
        };
        let metric = Metric {
            kind: kind.to_owned(),
            labels: label.map(|label| (label, values)).into_iter().collect(),
        };
        let name = quoted(name).next().expect("a name").to_owned();
        assert!(metrics.insert(name, metric).is_none(), "documented twice: {row}");
    }
    metrics
}

/// What `/metrics` has.
fn real(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let kind = kind.to_owned();
            metrics.insert(
                name.to_owned(),
                Metric {
                    kind,
                    ..Metric::default()
                },
            );
        }
        let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let (labels, _) = rest.rsplit_once('}').expect("labels end");
        let (label, value) = labels.split_once("=\"").expect("one label");
        let value = value.trim_end_matches('"');
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        let metric = metrics.get_mut(name).expect("its type came before");
        if label != "le" {
            let values = metric.labels.entry(label.to_owned()).or_default();
            if !FREE.contains(&label) {
                values.insert(value.to_owned());
            }
        }
    }
    metrics
}

/// A relay that has counted something of everything that counts only what is there.
fn busy_relay(server: &Server) -> Relay {
    let relay = Relay::start(server, &mapping("key = \"v:{id}\"\nchannel = \"v\""));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    redis!(server, "SET", "v:1", "one");
    client.sees("v", "v:1", "one");
    relay
}

/// Every metric is documented with its type, its labels and their values, and everything documented is there.
#[test]
fn the_documented_metrics_are_the_real_ones() {
    let server = Server::start();
    let relay = busy_relay(&server);
    let (documented, real) = (documented(), real(&relay.ask("/metrics").text()));
    for (name, metric) in &documented {
        assert_eq!(Some(metric), real.get(name), "{name}, as it is documented and as it is");
    }
    let undocumented: Vec<&String> = real.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert_eq!(undocumented, Vec::<&String>::new());
}

/// What is counted is what happened.
#[test]
fn what_happens_is_counted() {
    let mut server = Server::start();
    let mappings = [
        mapping("key = \"v:{id}\"\nchannel = \"v\""),
        mapping("key = \"w:{id}\""),
        mapping("key = \"e:{id}\"\nmode = \"events\""),
    ];
    let relay = Relay::start(&server, &mappings.concat());
    let mut sse = Sse::open(&relay, &["v"]);
    let mut ws = Ws::open(&relay, &["v", "e:1"]);
    sse.ready();
    ws.ready();
    redis!(server, "SET", "v:1", "one");
    redis!(server, "SET", "v:2", "two");
    redis!(server, "SET", "e:1", "now");
    redis!(server, "SET", "w:1", "nobody listens");
    redis!(server, "SET", "w:2", "nobody listens");
    sse.sees("v", "v:2", "two");
    ws.sees("v", "v:2", "two");
    ws.sees("e:1", "e:1", "now");
    let metric = |series: &str| relay.metric(series);
    eventually("all five are heard", || {
        (metric("keyrelay_key_events_total") == 5.0).then_some(())
    });
    assert_eq!(metric("keyrelay_key_events_mapped_total"), 3.0);
    assert_eq!(metric("keyrelay_key_events_unmapped_total"), 2.0);
    assert_eq!(metric("keyrelay_mapping_events_total{mapping=\"v:{id}\"}"), 2.0);
    assert_eq!(metric("keyrelay_mapping_events_total{mapping=\"e:{id}\"}"), 1.0);
    assert_eq!(metric("keyrelay_mapping_events_total"), 3.0, "no others");
    assert_eq!(metric("keyrelay_subscriptions"), 3.0);
    assert_eq!(metric("keyrelay_sessions_opened_total{transport=\"sse\"}"), 1.0);
    assert_eq!(metric("keyrelay_sessions_opened_total{transport=\"websocket\"}"), 1.0);
    assert_eq!(metric("keyrelay_sessions_ended_total"), 0.0);
    // Three changes; each counts once for a shard that has a subscriber of it.
    let delivered = metric("keyrelay_delivery_latency_seconds_count");
    assert!((3.0..=6.0).contains(&delivered), "{delivered}");
    let took = metric("keyrelay_delivery_latency_seconds_sum");
    assert!(took > 0.0 && took < delivered * 30.0, "{took}");
    // What a resync finds was not heard of, so nobody knows how long it took.
    server.kill();
    eventually("it is not ready", || (metric("keyrelay_ready") == 0.0).then_some(()));
    server.restart(Data::Lost);
    sse.misses("v", "v:1");
    assert_eq!(metric("keyrelay_gaps_total{reason=\"upstream-lost\"}"), 1.0);
    assert_eq!(metric("keyrelay_delivery_latency_seconds_count"), delivered);
    drop((sse, ws));
    eventually("both have gone", || {
        (metric("keyrelay_sessions_ended_total{reason=\"gone\"}") == 2.0).then_some(())
    });
    assert_eq!(metric("keyrelay_subscriptions"), 0.0);
}

/// Clients that are ended count by the reason that they were told.
#[test]
fn endings_are_counted_by_their_reason() {
    let server = Server::start();
    let relay = Relay::with(
        &server,
        "write_timeout = \"1s\"",
        &mapping("key = \"v:{id}\"\nchannel = \"v\""),
    );
    let mut slow = Sse::narrow(&relay, &["v"]);
    slow.ready();
    let pad = "x".repeat(256 << 10);
    for n in 0..60 {
        redis!(server, "SET", format!("v:{n}"), &pad);
    }
    eventually("it is ended for being slow", || {
        (relay.metric("keyrelay_sessions_ended_total{reason=\"too-slow\"}") == 1.0).then_some(())
    });
    assert_eq!(relay.metric("keyrelay_slow_clients_total"), 1.0);
    let mut loud = Ws::open(&relay, &["v"]);
    loud.send(&json!({"type": "x".repeat(65 << 10)}));
    loud.closed();
    eventually("it is ended for a message that is too big", || {
        (relay.metric("keyrelay_sessions_ended_total{reason=\"too-big\"}") == 1.0).then_some(())
    });
    assert_eq!(relay.metric("keyrelay_sessions_ended_total"), 2.0);
}

/// The text that Prometheus prefers has the same numbers.
#[test]
fn both_formats_say_the_same() {
    let server = Server::start();
    let relay = busy_relay(&server);
    let accept = [("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let open = relay.ask_as("/metrics", &accept);
    let kind = open.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let (open, plain) = (open.text(), relay.ask("/metrics").text());
    assert!(open.ends_with("# EOF\n"));
    let names = |text: &str| -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .collect()
    };
    assert_eq!(names(&open), names(&plain));
}

/// Every metric that the alert rules and Grafana's dashboard name exists, with the labels that they ask for by name.
#[test]
fn rules_and_dashboard_name_what_there_is() {
    let documented = documented();
    let series: BTreeSet<String> = documented
        .iter()
        .flat_map(|(name, metric)| match &*metric.kind {
            "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
            _ => vec![name.clone()],
        })
        .collect();
    let grafana = include_str!("../../docs/grafana.json");
    let mut used = BTreeSet::new();
    for (file, text) in [
        ("alerts.yml", include_str!("../../docs/alerts.yml")),
        ("grafana.json", grafana),
    ] {
        for name in metric_names(text) {
            assert!(series.contains(name), "{file} names {name}, which there is not");
            used.insert(name.to_owned());
        }
    }
    assert!(used.len() > 40, "{used:?}");
    // What an operator must see is on the dashboard.
    let shown: BTreeSet<&str> = metric_names(grafana).collect();
    for name in [
        "keyrelay_upstream_up",
        "keyrelay_connections",
        "keyrelay_stale_channels",
        "keyrelay_gaps_total",
    ] {
        assert!(shown.contains(name), "{name}");
    }
}

/// The names of series in a text.
fn metric_names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("keyrelay_") || word.starts_with("process_"))
}

/// The dashboard can be imported anywhere: its source of data is asked for, and nothing in it is one installation's own.
#[test]
fn the_grafana_dashboard_fits_everywhere() {
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).expect("it is JSON");
    assert_eq!(dashboard["__inputs"][0]["pluginId"], "prometheus");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
    assert!(dashboard["id"].is_null() && dashboard["uid"].is_string());
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    let mut queries = 0;
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64()), "two panels have one id");
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty() && panel["description"].is_string(), "{panel}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title} has no unit"
        );
        for target in panel["targets"].as_array().expect("queries") {
            let query = target["expr"].as_str().expect("a query");
            queries += 1;
            assert!(query.contains("instance=~\"$instance\""), "{query}");
            let rated = query.contains("rate(") || query.contains("increase(");
            assert_eq!(rated, query.contains("[$__rate_interval]"), "{query}");
        }
    }
    assert!(queries > 20, "{queries}");
}

/// promtool of Prometheus; nothing if this machine has none.
fn promtool() -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs)
        .map(|dir| dir.join("promtool"))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("KEYRELAY_TEST_PROMTOOL").is_none(),
            "promtool is not on PATH: scripts/need.sh promtool"
        );
        eprintln!("SKIPPED: promtool is not on PATH (scripts/need.sh promtool)");
    }
    found
}

/// Runs promtool in the directory of the documents, and gives what it says.
fn run(promtool: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut process = Command::new(promtool)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut stdin = process.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads it");
    drop(stdin);
    let output = process.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// promtool finds nothing to say of the metrics, and accepts the rules, which fire when they should and only then.
#[test]
fn promtool_accepts_metrics_and_rules() {
    let Some(promtool) = promtool() else { return };
    let server = Server::start();
    let relay = busy_relay(&server);
    let text = relay.ask("/metrics").text();
    assert_eq!(run(&promtool, &["check", "metrics"], &text), (true, String::new()));
    let (accepted, said) = run(&promtool, &["check", "rules", "docs/alerts.yml"], "");
    assert!(accepted, "{said}");
    let (passed, said) = run(&promtool, &["test", "rules", "tests/alerts.test.yml"], "");
    assert!(passed, "{said}");
    // The dashboard's queries, as rules, with what Grafana puts in.
    let rules = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut text = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (number, query) in queries().iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m").replace('$', "");
        text += &format!("      - record: query:{number}\n        expr: {}\n", json!(query));
    }
    std::fs::write(rules.path(), text).expect("it can be written to");
    let file = rules.path().to_str().expect("a path of text");
    let (accepted, said) = run(&promtool, &["check", "rules", file], "");
    assert!(accepted, "{said}");
}

/// All queries of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets
        .filter_map(|target| target["expr"].as_str().map(str::to_owned))
        .collect()
}

/// Each rule has a test that it fires, says what is wrong and what to do, and wants a person or only attention.
#[test]
fn each_rule_is_tried() {
    let rules = include_str!("../../docs/alerts.yml");
    let tests = include_str!("../alerts.test.yml");
    let blocks: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(blocks.len() >= 15);
    for block in blocks {
        let name = block.lines().next().unwrap_or_default();
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not tried");
        for part in ["summary: ", "description: >-", "severity: "] {
            assert!(block.contains(part), "{name} has no {part}");
        }
        assert!(
            block.contains("severity: page") || block.contains("severity: ticket"),
            "{name}"
        );
    }
}

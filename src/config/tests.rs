//! What a file means, and that none, however broken, goes unexplained.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::hub::Mode;
use crate::server::Address;
use crate::upstream;

fn nothing(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Result<Config, Problems> {
    compile(Path::new("test.toml"), text.into(), &nothing)
}

fn refused(text: &str) -> String {
    read(text).expect_err("a problem").to_string()
}

const MAPPING: &str = "[[mapping]]\nkey = \"cart:{user}\"\naccess = \"public\"\n";

#[test]
fn an_empty_file_means_the_defaults() {
    let config = read("").unwrap();
    assert_eq!(config.server.listen, [Address::Tcp("127.0.0.1:7400".parse().unwrap())]);
    assert_eq!(config.admin.listen, Address::Tcp("127.0.0.1:7401".parse().unwrap()));
    assert_eq!(config.server.path, "");
    assert_eq!(config.fanout.heartbeat, Duration::from_secs(15));
    assert_eq!(
        config.upstream.endpoint.address,
        upstream::Address::Tcp {
            host: "127.0.0.1".into(),
            port: 6379
        }
    );
    assert!(config.mappings.is_empty());
    assert_eq!(config.origin, []);
}

#[test]
fn a_mapping_takes_defaults_and_its_own() {
    let config = read(&format!(
        "[defaults]\nlinger = \"1m\"\nmax_value = \"2KiB\"\n{MAPPING}linger = \"5s\""
    ))
    .unwrap();
    let rule = &config.mappings[0];
    assert_eq!(
        (rule.linger, rule.max_value, rule.line),
        (Duration::from_secs(5), 2048, 4)
    );
    assert_eq!(rule.channel.to_string(), "cart:{user}");
    assert!(rule.snapshot);
}

#[test]
fn the_default_linger_of_events_covers_what_is_kept() {
    let config = read(&format!(
        "[defaults]\nlinger = \"1m\"\n{MAPPING}mode = \"events\"\nretain = {{ age = \"10m\" }}"
    ))
    .unwrap();
    assert_eq!(
        (config.mappings[0].mode, config.mappings[0].linger),
        (Mode::Events, Duration::from_secs(600))
    );
    let text = refused(&format!("{MAPPING}mode = \"events\"\nlinger = \"10s\""));
    assert!(text.contains("`linger` is shorter than `retain.age`"), "{text}");
}

#[test]
fn the_environment_counts_only_where_the_file_is_silent() {
    let environment = |name: &str| match name {
        "PORT" => Some("8080".into()),
        "REDIS_URL" => Some("redis://:hush@db:7000/1".into()),
        _ => None,
    };
    let config = compile(Path::new("a"), String::new(), &environment).unwrap();
    assert_eq!(config.server.listen, [Address::Tcp("[::]:8080".parse().unwrap())]);
    assert_eq!(config.upstream.endpoint.db, 1);
    let origin: Vec<String> = config.origin.iter().map(ToString::to_string).collect();
    assert_eq!(
        origin,
        [
            "server.listen = [\"[::]:8080\"] (the environment, PORT)",
            "upstream.url = \"redis://:(secret)@db:7000/1\" (the environment, REDIS_URL)"
        ]
    );
    let text = "[server]\nlisten = [\"127.0.0.1:1\"]\n[upstream]\nurl = \"redis://h\"";
    let config = compile(Path::new("a"), text.into(), &environment).unwrap();
    assert_eq!(config.server.listen, [Address::Tcp("127.0.0.1:1".parse().unwrap())]);
    assert_eq!(config.upstream.endpoint.password, None);
}

/// An app's variable says all there is to say; what the system's trust store lacks stands in the file.
#[test]
fn the_environment_may_ask_for_tls() {
    let environment = |name: &str| (name == "REDIS_URL").then(|| "rediss://:hush@db:7000".to_owned());
    let text = "[upstream]\ntls = { server_name = \"redis.internal\" }";
    let config = compile(Path::new("a"), text.into(), &environment).unwrap();
    let tls = config.upstream.endpoint.tls.unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("redis.internal"));
    let config = compile(Path::new("a"), String::new(), &environment).unwrap();
    assert_eq!(config.upstream.endpoint.tls.unwrap().server_name.as_deref(), Some("db"));
    let problems = compile(Path::new("a"), text.into(), &|_| None).unwrap_err();
    assert!(
        problems
            .render(Path::new("a"), false)
            .contains("begin the URL with rediss://")
    );
}

#[test]
fn a_bad_environment_is_told_without_its_secret() {
    let environment = |name: &str| (name == "REDIS_URL").then(|| "redis://:hush@:1".to_owned());
    let text = compile(Path::new("a"), String::new(), &environment)
        .expect_err("no host")
        .to_string();
    assert!(
        text.contains("REDIS_URL") && text.contains("no host") && !text.contains("hush"),
        "{text}"
    );
}

#[test]
fn every_value_has_its_origin() {
    let environment = |name: &str| (name == "PASSWORD").then(|| "hush".to_owned());
    let text = "[server]\npath = \"/live/\"\n[upstream]\npassword = \"${PASSWORD}\"\n[defaults]\nlinger = \"1m\"\n";
    let config = compile(Path::new("k.toml"), text.into(), &environment).unwrap();
    let origin: Vec<String> = config.origin.iter().map(ToString::to_string).collect();
    assert_eq!(
        origin,
        [
            "server.path = \"/live\" (k.toml:2)",
            "upstream.password = (secret) (k.toml:4, ${PASSWORD})",
            "defaults.linger = \"1m\" (k.toml:6)"
        ]
    );
    assert_eq!(config.upstream.endpoint.password.as_deref(), Some("hush"));
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn paths_are_relative_to_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main.toml");
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(&main, "include = [\"conf.d/*.toml\"]\n[upstream]\nurl_file = \"url\"\n").unwrap();
    std::fs::write(folder.path().join("url"), "redis://db/4\n").unwrap();
    std::fs::write(folder.path().join("conf.d/b.toml"), MAPPING.replace("cart", "b")).unwrap();
    let template = "format = \"template\"\ntemplate_file = \"row.html\"\n";
    std::fs::write(folder.path().join("conf.d/a.toml"), format!("{MAPPING}{template}")).unwrap();
    std::fs::write(folder.path().join("conf.d/row.html"), "<b>{{ value }}</b>").unwrap();
    let config = load(&main, &nothing).unwrap();
    assert_eq!(config.upstream.endpoint.db, 4);
    let keys: Vec<String> = config.mappings.iter().map(|rule| rule.pattern.to_string()).collect();
    assert_eq!(keys, ["cart:{user}", "b:{user}"]);
    assert!(config.mappings[0].file.ends_with("conf.d/a.toml"));
}

#[test]
fn numbers_and_flags_may_come_from_variables() {
    let text = format!("[server]\nmax_channels = \"${{N:-12}}\"\n{MAPPING}snapshot = \"${{S:-false}}\"");
    let config = read(&text).unwrap();
    assert_eq!(config.hub.max_channels, 12);
    assert!(!config.mappings[0].snapshot);
}

#[test]
fn all_problems_are_told_at_once() {
    let text =
        refused("[server]\nlisten = 5\nhartbeat = \"1s\"\n[log]\nlevel = \"loud\"\n[[mapping]]\nchannel = \"{\"\n");
    assert!(text.ends_with("test.toml: 5 problems\n"), "{text}");
}

#[test]
fn one_key_may_feed_a_channel_by_disjoint_events() {
    let events = |on: &str| format!("{MAPPING}mode = \"events\"\non = [\"{on}\"]\n");
    assert!(read(&format!("{}{}", events("set"), events("del"))).is_ok());
    assert!(refused(&format!("{}{}", events("set"), events("set"))).contains("the same mapping twice"));
}

/// Pieces of which configs are made, right and wrong.
const PIECES: &[&str] = &[
    "[[mapping]]\n",
    "[server]\n",
    "[upstream]\n",
    "[log]\n",
    "[defaults]\n",
    "include = ",
    "key = ",
    "channel = ",
    "access = ",
    "listen = ",
    "path = ",
    "origins = ",
    "url = ",
    "password = ",
    "level = ",
    "linger = ",
    "max_value = ",
    "retain = ",
    "on = ",
    "template = ",
    "format = ",
    "mode = ",
    "event_name = ",
    "fields = ",
    "\"",
    "\"\"\"",
    "'",
    "\n",
    "[",
    "]",
    "{",
    "}",
    ",",
    " = ",
    "=",
    "cart:{user}",
    "{a}{b}",
    "é",
    "\u{1F600}",
    "${X}",
    "${X:-é}",
    "$${",
    "redis://u:p@h:1/0",
    "redis+unix:///é?db=1",
    "rediss://",
    "info,é=x",
    "[[mapping]]\nkey = \"a:{b}\"\naccess = \"public\"\n",
    "format = \"template\"\n",
    "mode = \"events\"\n",
    "template = \"{{ value }}\"\n",
    "\"public\"\n",
    "\"template\"\n",
    "\"raw\"\n",
    "\"events\"\n",
    "\"{{ value }}{% é\"\n",
    "\"30s\"\n",
    "\"1é\"\n",
    "5",
    "true",
    "\\u00e9",
    "\\",
    "#",
    "\r\n",
    "\0",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        if let Err(problems) = compile(Path::new("a.toml"), pieces.concat(), &nothing) {
            let text = problems.to_string();
            prop_assert!(text.contains("error: "), "{}", text);
        }
    }

    #[test]
    fn a_damaged_config_is_explained(at in 0usize..8000, cut in 0usize..40, put in prop::sample::select(PIECES)) {
        // With everything switched on that it shows.
        let on = |line: &'static str| match line.strip_prefix('#') {
            Some(code) if !code.starts_with(' ') => code,
            _ => line,
        };
        let whole = include_str!("../../config/keyrelay.toml").lines().map(on).collect::<Vec<_>>().join("\n");
        let boundary = |at: usize| (0..=at.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (boundary(at), boundary(at + cut));
        let text = format!("{}{put}{}", &whole[..start], &whole[end..]);
        if let Err(problems) = compile(Path::new("a.toml"), text, &nothing) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }
}

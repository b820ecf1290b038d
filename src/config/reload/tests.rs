//! Every option is applied at once or named as waiting for a restart, and mappings are told apart by what clients see.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::words::Section;
use super::*;

/// What becomes of an option whose value is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// This value is applied.
    Live(&'static str),
    /// This value waits.
    Waits(&'static str),
    /// It belongs to mappings, where this comes of it.
    Mapping(Fate),
    /// It is no value of its own.
    Nothing,
}

const CHANGED: Is = Is::Mapping(Fate::Changed {
    before: 0,
    access: false,
});
const ADJUSTED: Is = Is::Mapping(Fate::Adjusted(0));

const SECRETS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];

fn compile(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Config {
    let path = Path::new("keyrelay.toml");
    super::super::compile(path, text.to_owned(), environment)
        .unwrap_or_else(|problems| panic!("{text}\n{}", problems.render(path, false)))
}

fn config(text: &str) -> Config {
    compile(text, &|_| None)
}

/// Each option, with two texts that differ in it alone; a second mapping where one is not enough.
fn options(folder: &Path) -> Vec<(Section, &'static str, [String; 2], Is)> {
    use Section::*;
    let mut all = Vec::new();
    let mut put = |section, option, texts: [String; 2], is| all.push((section, option, texts, is));
    let of = |before: &str, values: [&str; 2], after: &str| values.map(|value| format!("{before}{value}{after}"));
    for (option, values, is) in [
        (
            "listen",
            ["[\"127.0.0.1:1\"]", "[\"127.0.0.1:2\"]"],
            Is::Waits("server.listen"),
        ),
        ("path", ["\"/a\"", "\"/b\""], Is::Waits("server.path")),
        ("origins", ["[]", "[\"https://a.example\"]"], Is::Live("server.origins")),
        ("proxies", ["[\"10.0.0.1\"]", "[\"unix\"]"], Is::Live("server.proxies")),
        ("heartbeat", ["\"15s\"", "\"16s\""], Is::Waits("server.heartbeat")),
        (
            "write_timeout",
            ["\"15s\"", "\"16s\""],
            Is::Waits("server.write_timeout"),
        ),
        ("drain", ["\"1s\"", "\"2s\""], Is::Waits("server.drain")),
        ("max_channels", ["1000", "2000"], Is::Waits("server.max_channels")),
    ] {
        let values = match option {
            "proxies" => values.map(|value| format!("{value}\nclient_address = \"x-forwarded-for\"")),
            _ => values.map(str::to_owned),
        };
        put(
            Server,
            option,
            values.map(|value| format!("[server]\n{option} = {value}\n")),
            is,
        );
    }
    let told = of(
        "[server]\nproxies = [\"10.0.0.1\"]\nclient_address = ",
        ["\"x-forwarded-for\"", "\"fly-client-ip\""],
        "\n",
    );
    put(Server, "client_address", told, Is::Live("server.client_address"));
    for (option, values, name) in [
        ("connections", ["1000", "2000"], "limits.connections"),
        ("connections_per_address", ["7", "8"], "limits.connections_per_address"),
        ("connections_per_subject", ["7", "8"], "limits.connections_per_subject"),
        ("connects_per_second", ["7", "8"], "limits.connects_per_second"),
        ("connects_burst", ["700", "800"], "limits.connects_burst"),
        ("channels_per_connection", ["7", "8"], "limits.channels_per_connection"),
        ("messages_per_second", ["7", "8"], "limits.messages_per_second"),
        ("messages_burst", ["7", "8"], "limits.messages_burst"),
        ("message_size", ["\"8KiB\"", "\"9KiB\""], "limits.message_size"),
        ("head_size", ["\"8KiB\"", "\"9KiB\""], "limits.head_size"),
        ("head_timeout", ["\"7s\"", "\"8s\""], "limits.head_timeout"),
        ("lifetime", ["\"7s\"", "\"off\""], "limits.lifetime"),
        ("channels_per_address", ["7", "8"], "limits.channels_per_address"),
        ("subscriptions", ["700", "800"], "limits.subscriptions"),
        ("keys", ["200_000", "300_000"], "limits.keys"),
        ("keys_per_channel", ["7", "8"], "limits.keys_per_channel"),
        ("log_bytes", ["\"2GiB\"", "\"3GiB\""], "limits.log_bytes"),
        ("pinned", ["\"7MiB\"", "\"8MiB\""], "limits.pinned"),
        ("scan_share", ["7", "8"], "limits.scan_share"),
    ] {
        put(
            Limits,
            option,
            values.map(|value| format!("[limits]\n{option} = {value}\n")),
            Is::Waits(name),
        );
    }
    put(
        Admin,
        "listen",
        of("[admin]\nlisten = \"127.0.0.1:", ["1", "2"], "\"\n"),
        Is::Waits("admin.listen"),
    );
    put(
        Log,
        "level",
        of("[log]\nlevel = ", ["\"info\"", "\"debug\""], "\n"),
        Is::Live("log.level"),
    );
    put(
        Log,
        "format",
        of("[log]\nformat = ", ["\"json\"", "\"human\""], "\n"),
        Is::Waits("log.format"),
    );
    let secret = |section: &str, option: &str| {
        // In files, so that they are compared by what they hold.
        [("a", "redis://a"), ("b", "redis://b")].map(|(name, text)| {
            let path = folder.join(format!("{option}-{name}"));
            std::fs::write(&path, if option == "url_file" { text } else { name }).unwrap();
            format!("[{section}]\n{option} = {:?}\n", path.to_str().unwrap())
        })
    };
    for (option, values, name) in [
        ("url", ["\"redis://a\"", "\"redis://b\""], "upstream.url"),
        ("source", ["\"notifications\"", "\"tracking\""], "upstream.source"),
        ("notifications", ["\"ensure\"", "\"assume\""], "upstream.notifications"),
        ("verify", ["\"7s\"", "\"off\""], "upstream.verify"),
        ("password", ["\"a\"", "\"b\""], "upstream.password"),
    ] {
        put(
            Upstream,
            option,
            values.map(|value| format!("[upstream]\n{option} = {value}\n")),
            Is::Waits(name),
        );
    }
    put(
        Upstream,
        "username",
        of("[upstream]\npassword = \"x\"\nusername = ", ["\"a\"", "\"b\""], "\n"),
        Is::Waits("upstream.username"),
    );
    put(
        Upstream,
        "url_file",
        secret("upstream", "url_file"),
        Is::Waits("upstream.url"),
    );
    put(
        Upstream,
        "password_file",
        secret("upstream", "password_file"),
        Is::Waits("upstream.password"),
    );
    for option in ["cookie", "token_parameter"] {
        let name = ["access.cookie", "access.token_parameter"][usize::from(option != "cookie")];
        put(
            Access,
            option,
            of(&format!("[access]\n{option} = "), ["\"a\"", "\"b\""], "\n"),
            Is::Live(name),
        );
    }
    put(
        Access,
        "ask",
        of("[access]\nask = \"http://127.0.0.1:", ["1", "2"], "/\"\n"),
        Is::Live("access.ask"),
    );
    let jwt = "[[access.jwt]]\nalgorithm = \"HS256\"\n";
    let with = format!("{jwt}secret = \"{}\"\n", SECRETS[0]);
    put(
        Jwt,
        "secret",
        SECRETS.map(|secret| format!("{jwt}secret = \"{secret}\"\n")),
        Is::Live("access.jwt"),
    );
    for option in ["issuer", "audience"] {
        put(
            Jwt,
            option,
            of(&format!("{with}{option} = "), ["\"a\"", "\"b\""], "\n"),
            Is::Live("access.jwt"),
        );
    }
    let algorithms = of(
        "[[access.jwt]]\njwks_url = \"https://a.example/\"\nalgorithm = ",
        ["\"ES256\"", "\"RS256\""],
        "\n",
    );
    put(Jwt, "algorithm", algorithms, Is::Live("access.jwt"));
    put(
        Jwt,
        "jwks_url",
        of(
            "[[access.jwt]]\njwks_url = \"https://",
            ["a.example", "b.example"],
            "/\"\n",
        ),
        Is::Live("access.jwt"),
    );
    let files = |section: &str, option: &str| {
        SECRETS.map(|secret| {
            let path = folder.join(format!("{option}-{}", &secret[..4]));
            std::fs::write(&path, secret).unwrap();
            format!("{section}{option} = {:?}\n", path.to_str().unwrap())
        })
    };
    put(Jwt, "secret_file", files(jwt, "secret_file"), Is::Live("access.jwt"));
    let signed = "[[access.signed]]\n";
    for option in ["secret_key_base", "key"] {
        put(
            Signed,
            option,
            SECRETS.map(|secret| format!("{signed}{option} = \"{secret}\"\n")),
            Is::Live("access.signed"),
        );
        let file = ["secret_key_base_file", "key_file"][usize::from(option == "key")];
        put(Signed, file, files(signed, file), Is::Live("access.signed"));
    }
    let with = format!("{signed}secret_key_base = \"{}\"\n", SECRETS[0]);
    for (option, values) in [
        ("salt", ["\"a\"", "\"b\""]),
        ("digest", ["\"SHA1\"", "\"SHA256\""]),
        ("purpose", ["\"a\"", "\"b\""]),
    ] {
        put(
            Signed,
            option,
            values.map(|value| format!("{with}{option} = {value}\n")),
            Is::Live("access.signed"),
        );
    }
    put(
        Signed,
        "scheme",
        of(&with, ["", "scheme = \"rails\"\n"], ""),
        Is::Nothing,
    );
    // Of these there is a test with real keys and certificates; here they stand with the value that they are part of.
    for (section, options) in [
        (Jwt, &["public_key_file"][..]),
        (Tls, Tls.options()),
        (ServerTls, ServerTls.options()),
        (Server, &["tls"]),
        (Upstream, &["tls"]),
    ] {
        for option in options {
            put(section, option, [String::new(), String::new()], Is::Nothing);
        }
    }
    for option in Top.options() {
        put(Top, option, [String::new(), String::new()], Is::Nothing);
    }
    for option in ["jwt", "signed"] {
        put(Access, option, [String::new(), String::new()], Is::Nothing);
    }
    let events = "mode = \"events\"\n";
    let template = "format = \"template\"\ntemplate = \"a\"\n";
    for (option, before, values, is) in [
        ("mode", "", ["\"state\"", "\"events\""], CHANGED),
        ("on", events, ["[\"set\"]", "[\"del\"]"], CHANGED),
        ("event_name", "", ["\"a\"", "\"b\""], CHANGED),
        ("linger", "", ["\"7s\"", "\"8s\""], ADJUSTED),
        ("snapshot", "", ["true", "false"], CHANGED),
        ("retain", events, ["{ messages = 7 }", "{ messages = 8 }"], CHANGED),
        ("max_value", "", ["\"7KiB\"", "\"8KiB\""], CHANGED),
        ("min_interval", "", ["\"7s\"", "\"8s\""], ADJUSTED),
        ("poll", "", ["\"7s\"", "\"off\""], ADJUSTED),
        ("expires", "", ["true", "false"], CHANGED),
        ("heard", "", ["true", "false"], CHANGED),
        ("fields", "", ["[\"a\"]", "[\"b\"]"], CHANGED),
        ("decode", "", ["\"none\"", "\"json\""], CHANGED),
        ("format", "", ["\"json\"", "\"raw\""], CHANGED),
        ("template", "format = \"template\"\n", ["\"a\"", "\"b\""], CHANGED),
        ("absent", template, ["\"a\"", "\"b\""], CHANGED),
        ("on_reset", template, ["\"a\"", "\"b\""], CHANGED),
    ] {
        let of_mapping = |value| format!("[[mapping]]\nkey = \"k:{{id}}\"\n{before}{option} = {value}\n");
        put(Mapping, option, values.map(of_mapping), is);
        let of_defaults = |value| format!("[defaults]\n{before}{option} = {value}\n[[mapping]]\nkey = \"k:{{id}}\"\n");
        put(Defaults, option, values.map(of_defaults), is);
    }
    let templates = ["a", "b"].map(|name| {
        let path = folder.join(format!("template-{name}"));
        std::fs::write(&path, name).unwrap();
        format!("format = \"template\"\ntemplate_file = {:?}\n", path.to_str().unwrap())
    });
    let of_mapping = templates
        .clone()
        .map(|text| format!("[[mapping]]\nkey = \"k:{{id}}\"\n{text}"));
    put(Mapping, "template_file", of_mapping, CHANGED);
    let of_defaults = templates.map(|text| format!("[defaults]\n{text}[[mapping]]\nkey = \"k:{{id}}\"\n"));
    put(Defaults, "template_file", of_defaults, CHANGED);
    put(
        Mapping,
        "key",
        of("[[mapping]]\nkey = \"", ["a", "b"], "\"\nchannel = \"c\"\n"),
        Is::Mapping(Fate::New),
    );
    put(
        Mapping,
        "subscribe",
        of("[[mapping]]\nsubscribe = \"", ["a", "b"], "\"\n"),
        Is::Mapping(Fate::New),
    );
    put(
        Mapping,
        "channel",
        of("[[mapping]]\nkey = \"k\"\nchannel = \"", ["a", "b"], "\"\n"),
        Is::Mapping(Fate::New),
    );
    let access = Fate::Changed {
        before: 0,
        access: true,
    };
    let ways = of(
        "[[mapping]]\nkey = \"k\"\naccess = ",
        ["\"public\"", "\"listed\""],
        "\n",
    );
    put(Mapping, "access", ways, Is::Mapping(access));
    for (option, values) in [
        ("messages", ["7", "8"]),
        ("bytes", ["\"2MiB\"", "\"3MiB\""]),
        ("age", ["\"7s\"", "\"8s\""]),
    ] {
        let text = |value| {
            format!("[[mapping]]\nkey = \"k\"\nmode = \"events\"\nlinger = \"1h\"\nretain = {{ {option} = {value} }}\n")
        };
        put(Retain, option, values.map(text), CHANGED);
    }
    all
}

#[test]
fn every_option_is_live_or_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (mut covered, mut values) = (BTreeSet::new(), BTreeSet::new());
    for (section, option, [old, new], is) in options(folder.path()) {
        covered.insert((section.title(), option));
        let [old, new] = [config(&old), config(&new)];
        let fates = old.mappings.iter().map(|_| Fate::Same(0)).collect();
        let mut expected = Changes {
            mappings: fates,
            ..Changes::default()
        };
        match is {
            Is::Live(value) => {
                values.insert(value);
                expected.live.push(value);
            }
            Is::Waits(value) => {
                values.insert(value);
                expected.restart.push(value);
            }
            Is::Mapping(fate) => {
                expected.mappings = vec![fate];
                expected.gone.extend((fate == Fate::New).then_some(0));
            }
            Is::Nothing => {}
        }
        for (from, to) in [(&old, &new), (&new, &old)] {
            assert_eq!(diff(from, to), expected, "{} {option}", section.title());
        }
        for config in [&old, &new] {
            let same = diff(config, config);
            assert!(same.is_empty() && same.keeps_mappings(), "{} {option}", section.title());
        }
    }
    for section in Section::ALL {
        for option in section.options() {
            assert!(
                covered.contains(&(section.title(), *option)),
                "`{option}` of {} is new: say in VALUES whether it is live, and here what changes with it",
                section.title()
            );
        }
    }
    // What needs certificates to be there.
    values.extend(["server.tls", "upstream.tls"]);
    let known: BTreeSet<&str> = VALUES.iter().map(|(option, ..)| *option).collect();
    assert_eq!(values, known);
}

/// The full example, read twice, is the same.
#[test]
fn a_config_does_not_differ_from_itself() {
    let text = include_str!("../../../config/keyrelay.toml");
    let both = [config(text), config(text)];
    assert_eq!(diff(&both[0], &both[1]), diff(&both[0], &both[0]));
    assert!(diff(&both[0], &both[1]).is_empty());
}

/// Where values come from is no matter.
#[test]
fn the_environment_counts_as_what_it_says() {
    let url = |url: &'static str| compile("", &move |name| (name == "REDIS_URL").then(|| url.to_owned()));
    assert_eq!(diff(&url("redis://a"), &url("redis://b")).restart, ["upstream.url"]);
    assert!(diff(&url("redis://a"), &config("[upstream]\nurl = \"redis://a\"\n")).is_empty());
}

fn mapping(key: &str, more: &str) -> String {
    format!("[[mapping]]\nkey = \"{key}\"\n{more}\n")
}

#[test]
fn mappings_are_found_again_wherever_they_stand() {
    let (a, b, c) = (mapping("a:{id}", ""), mapping("b:{id}", ""), mapping("c:{id}", ""));
    let fates = |old: &[&String], new: &[&String]| {
        let text = |mappings: &[&String]| mappings.iter().map(|text| text.as_str()).collect::<String>();
        let changes = diff(&config(&text(old)), &config(&text(new)));
        (changes.mappings, changes.gone)
    };
    use Fate::{Adjusted, Changed, New, Same};
    assert_eq!(fates(&[&a, &b, &c], &[&c, &a]), (vec![Same(2), Same(0)], vec![1]));
    assert_eq!(fates(&[], &[&a]), (vec![New], vec![]));
    assert_eq!(fates(&[&a], &[]), (vec![], vec![0]));
    let (lingers, public) = (
        mapping("a:{id}", "linger = \"1h\""),
        mapping("a:{id}", "access = \"public\""),
    );
    let both = mapping("a:{id}", "access = \"public\"\nlinger = \"1h\"");
    let raw = mapping("a:{id}", "format = \"raw\"");
    assert_eq!(fates(&[&a], &[&lingers]), (vec![Adjusted(0)], vec![]));
    let access = |access| (vec![Changed { before: 0, access }], vec![]);
    assert_eq!(fates(&[&a], &[&both]), access(true));
    assert_eq!(fates(&[&a], &[&raw]), access(false));
    // The channel is part of what a mapping is.
    let other = |text: &String| text.clone() + "channel = \"x:{id}\"\n";
    let (ax, px) = (other(&a), other(&public));
    assert_eq!(
        fates(&[&a, &ax], &[&px, &a]),
        (
            vec![
                Changed {
                    before: 1,
                    access: true
                },
                Same(0)
            ],
            vec![]
        )
    );
}

//! The commands: what they print and how they end.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{PROGRAM, mapping};

fn keyrelay(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env_remove("REDIS_URL")
        .env_remove("PORT")
        .output()
        .expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a config and gives its path.
fn config(dir: &Path, text: &str) -> String {
    let file = dir.join("keyrelay.toml");
    std::fs::write(&file, text).expect("the directory can be written to");
    file.to_str().expect("a path in UTF-8").to_owned()
}

#[track_caller]
fn ends_with(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn help_teaches() {
    let output = keyrelay(&["--help"]);
    ends_with(&output, 0);
    let help = text(&output.stdout);
    for command in ["run", "check", "explain", "demo"] {
        assert!(help.contains(command), "{help}");
    }
    for command in ["run", "check", "explain", "demo"] {
        ends_with(&keyrelay(&[command, "--help"]), 0);
    }
    ends_with(&keyrelay(&["--version"]), 0);
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &[] as &[&str],
        &["dance"],
        &["run"],
        &["run", "--dance", "file"],
        &["check"],
        &["explain"],
    ] {
        let output = keyrelay(arguments);
        ends_with(&output, 2);
        assert!(
            text(&output.stderr).contains("Usage"),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_good_config_is_checked_with_0() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    ends_with(
        &keyrelay(&["check", &config(dir.path(), &mapping("key = \"cart:{user}\""))]),
        0,
    );
}

/// Everything wrong with a file is told at once, and 78 is what a supervisor knows as a config error.
#[test]
fn a_bad_config_ends_with_78() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = config(
        dir.path(),
        "[server]\nlissten = []\n[[mapping]]\nkey = \"cart:{user\"\naccess = \"public\"\n",
    );
    for command in ["check", "run"] {
        let output = keyrelay(&[command, &file]);
        ends_with(&output, 78);
        let told = text(&output.stderr);
        assert!(told.contains("lissten") && told.contains("{user"), "{told}");
        assert!(
            told.contains("keyrelay.toml:2") && told.contains("keyrelay.toml:4"),
            "{told}"
        );
    }
    let missing = dir.path().join("missing.toml");
    let output = keyrelay(&["check", missing.to_str().expect("a path in UTF-8")]);
    ends_with(&output, 78);
    assert!(
        text(&output.stderr).contains("missing.toml"),
        "{}",
        text(&output.stderr)
    );
}

/// An address that is taken is no config error: it may be free later.
#[test]
fn what_fails_while_running_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mapping = mapping("key = \"cart:{user}\"");
    let file = config(dir.path(), &format!("[server]\nlisten = [\"{address}\"]\n{mapping}"));
    let output = keyrelay(&["run", &file]);
    ends_with(&output, 1);
    assert!(
        text(&output.stderr).contains(&address.to_string()),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn explaining_keys_and_channels() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mappings = [
        mapping("key = \"cart:{user}\"\nchannel = \"basket:{user}\""),
        mapping("key = \"user:{id}\""),
    ];
    let file = config(dir.path(), &mappings.concat());
    // The options of the command are asked of its help, so that this test says what it means and not where.
    let help = text(&keyrelay(&["explain", "--help"]).stdout);
    assert!(help.contains("--channel"), "{help}");
    let with = |arguments: &[&str]| {
        let mut all = vec!["explain"];
        all.extend_from_slice(arguments);
        if help.contains("--config") {
            all.extend_from_slice(&["--config", &file]);
        }
        keyrelay(&all)
    };
    let output = with(&["cart:42"]);
    ends_with(&output, 0);
    let told = text(&output.stdout);
    assert!(told.contains("basket:42") && told.contains("user:{id}"), "{told}");
    let output = with(&["--channel", "basket:7"]);
    ends_with(&output, 0);
    assert!(text(&output.stdout).contains("cart:7"), "{}", text(&output.stdout));
}

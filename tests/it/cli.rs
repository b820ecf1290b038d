//! The commands: what they print and how they end.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::http::get;
use crate::harness::tokens::ACCESS;
use crate::harness::{PROGRAM, Relay, Server, eventually, mapping};

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
    for command in ["run", "check", "explain", "token", "demo"] {
        assert!(help.contains(command), "{help}");
    }
    for command in ["run", "check", "explain", "token", "demo"] {
        ends_with(&keyrelay(&[command, "--help"]), 0);
    }
    ends_with(&keyrelay(&["--version"]), 0);
}

/// By file and line, as `run` does when it starts.
#[test]
fn an_option_without_effect_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = config(dir.path(), "[access]\ntoken_parameter = \"jwt\"\ncookie = \"pass\"\n");
    let output = keyrelay(&["check", &file]);
    ends_with(&output, 0);
    let said = text(&output.stdout);
    for (option, line) in [("cookie", 3), ("token_parameter", 2)] {
        let place = format!("warning: `access.{option}` at {file}:{line} has no effect");
        assert!(said.contains(&place), "{said}");
    }
}

/// A config that opens nothing may be meant so, as that of the container image; whoever wonders finds it in the log.
#[test]
fn a_relay_without_mappings_says_so() {
    let server = Server::start();
    let told = "no mapping: nothing is open to anyone";
    let bare = Relay::start(&server, "");
    eventually("it is told", || bare.log().contains(told).then_some(()));
    let other = Relay::start(&server, &mapping("key = \"a\""));
    // What is told of the config comes before.
    eventually("the server is heard", || {
        other.log().contains("upstream connected").then_some(())
    });
    assert!(!other.log().contains(told));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let wrong: [&[&str]; 5] = [
        &[],
        &["dance"],
        &["run", "--dance", "file"],
        &["check", "a", "b"],
        &["explain"],
    ];
    for arguments in wrong {
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
    let file = config(
        dir.path(),
        &format!("[server]\nlisten = [\"{address}\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n{mapping}"),
    );
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
        "[[mapping]]\nkey = \"own:{user}\"\naccess = [{ sub = \"{user}\", role = \"x\" }, \"listed\"]\n".to_owned(),
        "[[mapping]]\nkey = \"none:{id}\"\n".to_owned(),
    ];
    let file = config(dir.path(), &mappings.concat());
    let with = |arguments: &[&str]| keyrelay(&[&["explain", "--config", file.as_str()], arguments].concat());
    let output = with(&["cart:42"]);
    ends_with(&output, 0);
    let told = text(&output.stdout);
    assert!(told.contains("basket:42") && told.contains("user:{id}"), "{told}");
    let output = with(&["--channel", "basket:7"]);
    ends_with(&output, 0);
    assert!(text(&output.stdout).contains("cart:7"), "{}", text(&output.stdout));
    for (channel, readers) in [
        ("basket:7", "everyone"),
        (
            "own:7",
            "a token with role = \"x\" and sub = \"{user}\", or a token that lists the channel",
        ),
        ("none:7", "nobody: it has no `access`"),
    ] {
        let told = text(&with(&["--channel", channel]).stdout).to_owned();
        assert!(told.contains(&format!("  access    {readers}\n")), "{told}");
    }
}

/// The demo brings its own servers, shows a page, prints a line to type, and leaves nothing behind: neither when it is told
/// to end, nor when its terminal is closed.
#[test]
fn the_demo_cleans_up() {
    for signal in [Signal::INT, Signal::HUP] {
        the_demo_cleans_up_at(signal);
    }
}

fn the_demo_cleans_up_at(signal: Signal) {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut demo = Command::new(PROGRAM)
        .arg("demo")
        .env("TMPDIR", temporary.path())
        .env_remove("REDIS_URL")
        .env_remove("PORT")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the command runs");
    let mut printed = String::new();
    let mut lines = BufReader::new(demo.stdout.take().expect("stdout is piped")).lines();
    let after = |text: &str, mark: &str| -> Option<u16> {
        let (_, rest) = text.split_once(mark)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let (page, server) = loop {
        let line = lines
            .next()
            .expect("the demo says where the page is and what to type")
            .expect("text");
        printed.push_str(&line);
        printed.push('\n');
        if let (Some(page), Some(server)) = (after(&printed, "open   http://127.0.0.1:"), after(&printed, "-cli -p ")) {
            break (page, server);
        }
    };
    let page = get(([127, 0, 0, 1], page).into(), "/");
    assert_eq!(page.status(), 200);
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    assert!(
        page.text().contains("EventSource") || page.text().contains("WebSocket"),
        "{}",
        page.text()
    );
    let left = || std::fs::read_dir(temporary.path()).expect("a directory").count();
    let server_runs = || TcpStream::connect(("127.0.0.1", server)).is_ok();
    assert!(server_runs() && left() == 1, "{printed}");
    kill_process(Pid::from_child(&demo), signal).expect("the demo can be signalled");
    let status = eventually("the demo ends", || demo.try_wait().expect("the demo can be waited for"));
    assert!(status.success(), "{status}");
    assert!(!server_runs(), "the server is still there");
    assert_eq!(left(), 0, "the folder is still there");
}

/// A newcomer has a stream before his app makes tokens.
#[test]
fn a_minted_token_opens_what_it_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let signed = "[[access.signed]]\nkey = \"a key of the verifier, long enough to count\"\npurpose = \"live\"\n";
    let access = format!("{ACCESS}audience = \"keyrelay\"\n{signed}");
    let file = config(dir.path(), &access);
    let minted = |arguments: &[&str]| {
        let output = keyrelay(&[&["token", "--config", &file], arguments].concat());
        ends_with(&output, 0);
        let said = text(&output.stdout);
        let token = said.strip_suffix('\n').expect("one line").to_owned();
        assert!(
            !token.contains(char::is_whitespace) && output.stderr.is_empty(),
            "{said}"
        );
        token
    };
    let server = Server::start();
    let mapping = "[[mapping]]\nkey = \"cart:{user}\"\naccess = [{ sub = \"{user}\" }, \"listed\"]\n";
    let relay = Relay::start(&server, &format!("{access}{mapping}"));
    let status = |query: &str| get(relay.address(), &format!("/channels?{query}")).status();
    let of_42 = minted(&["--sub", "42", "--expires", "5m"]);
    assert_eq!(status(&format!("channel=cart:42&token={of_42}")), 200);
    assert_eq!(status(&format!("channel=cart:7&token={of_42}")), 403);
    let listing = minted(&["--channel", "cart:7"]);
    assert_eq!(status(&format!("channel=cart:7&token={listing}")), 200);
    let name = crate::harness::http::escape(&minted(&["--signed", "cart:9"]));
    assert_eq!(status(&format!("signed={name}")), 200);

    let nothing = config(dir.path(), "");
    let output = keyrelay(&["token", "--config", &nothing]);
    ends_with(&output, 1);
    assert!(
        output.stdout.is_empty() && text(&output.stderr).contains("[[access.jwt]]"),
        "{}",
        text(&output.stderr)
    );
}

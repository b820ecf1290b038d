//! The manual pages, and what completes the commands in a shell.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::harness::{PROGRAM, Written};

/// Set where every tool must be there, as in `make test`.
const VARIABLE: &str = "KEYRELAY_TEST_PAGES";

fn keyrelay(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a tool with a text on its standard input; says loudly where the tool is missing.
fn tool(program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut started = match started {
        Ok(started) => started,
        Err(error) => {
            assert!(std::env::var_os(VARIABLE).is_none(), "{program}: {error}");
            eprintln!("SKIPPED: {program} is not installed (scripts/need.sh pages)");
            return None;
        }
    };
    let mut stdin = started.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    Some(started.wait_with_output().expect("it ends"))
}

#[track_caller]
fn is_clean(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// There is a page for each command, and troff has no complaint about any.
#[test]
fn manual_pages() {
    let written = Written::new("");
    let folder = written.path("man");
    std::fs::create_dir(&folder).expect("a folder");
    keyrelay(&["man", folder.to_str().expect("a path in UTF-8")]);
    let help = keyrelay(&["--help"]);
    for command in [
        "run",
        "check",
        "explain",
        "tail",
        "token",
        "healthcheck",
        "completions",
        "demo",
    ] {
        assert!(help.contains(command), "{help}");
        assert!(folder.join(format!("keyrelay-{command}.1")).exists(), "{command}");
    }
    assert!(!folder.join("keyrelay-man.1").exists(), "it is for packages alone");
    for file in std::fs::read_dir(&folder).expect("a folder") {
        let file = file.expect("a file").path();
        let text = std::fs::read_to_string(&file).expect("text");
        let Some(rendered) = tool("groff", &["-man", "-ww", "-Kutf8", "-Tutf8", "-P-cbou"], &text) else {
            continue;
        };
        is_clean(&rendered);
        let page = String::from_utf8(rendered.stdout).expect("text");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION"] {
            assert!(page.contains(section), "{}: {page}", file.display());
        }
        if file.ends_with("keyrelay-tail.1") {
            // As it was written, and not filled.
            assert!(page.contains("       keyrelay tail --key 'cart:*' --json\n"), "{page}");
        }
    }
}

/// The shells take the scripts, and bash completes by them.
#[test]
fn completions() {
    let script = keyrelay(&["completions", "bash"]);
    for (line, expected) in [
        ("keyrelay ta", "tail"),
        ("keyrelay tail --ur", "--url"),
        ("keyrelay completions zs", "zsh"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let asks = format!(
            "{script}\nCOMP_WORDS=({line}); COMP_CWORD={}; _keyrelay keyrelay '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"\n",
            words.len() - 1
        );
        if let Some(output) = tool("bash", &["--norc"], &asks) {
            is_clean(&output);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{line}");
        }
    }
    for shell in ["zsh", "fish"] {
        let script = keyrelay(&["completions", shell]);
        assert!(script.contains("healthcheck"), "{script}");
        if let Some(output) = tool(shell, &["-n"], &script) {
            is_clean(&output);
        }
    }
}

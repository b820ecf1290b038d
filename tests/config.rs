//! Runs `keyrelay check` over the configs of tests/config and compares every word, and holds config/keyrelay.toml to the
//! code.
//!
//! `KEYRELAY_BLESS=1 cargo test --test config` writes what the binary says into the `.stderr` files: read the difference
//! before you keep it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keyrelay::config::{self, Section};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn configs(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of the configs")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension() == Some(OsStr::new("toml")))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no config in {}", folder.display());
    found
}

/// Runs the command in a folder, so that paths are short and the same everywhere, and without any variables.
fn keyrelay(folder: &Path, arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyrelay"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .expect("keyrelay starts")
}

fn check(path: &Path) -> Output {
    let name = path.file_name().expect("a file has a name");
    keyrelay(
        path.parent().expect("a file is in a folder"),
        &[OsStr::new("check"), name],
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("keyrelay writes UTF-8")
}

/// A config text compiled without any variables.
fn compile(path: &Path, text: String) -> config::Config {
    config::compile(path, text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_invalid_config_is_explained() {
    let bless = std::env::var_os("KEYRELAY_BLESS").is_some();
    let folder = folder("invalid");
    let mut wrong = Vec::new();
    for path in configs(&folder) {
        let name = path.display();
        let output = check(&path);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{name}: {said}");
        assert!(
            output.stdout.is_empty(),
            "{name} is invalid, and standard output says something"
        );
        let expected = path.with_extension("stderr");
        if bless {
            fs::write(&expected, &said).expect("the file can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{name} is now explained so:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for entry in fs::read_dir(&folder).expect("the folder").flatten() {
        let path = entry.path();
        let orphan = path.extension() == Some(OsStr::new("stderr")) && !path.with_extension("toml").exists();
        assert!(!orphan, "{} has no config beside it", path.display());
    }
}

#[test]
fn every_explanation_is_whole() {
    for path in configs(&folder("invalid")) {
        let said = fs::read_to_string(path.with_extension("stderr")).expect("every invalid config has its text");
        let name = path.display();
        for problem in said.split("error: ").skip(1) {
            assert!(
                problem.contains("--> "),
                "{name}: a problem without a place:\n{problem}"
            );
            assert!(
                problem.contains("help: "),
                "{name}: a problem without a remedy:\n{problem}"
            );
        }
        assert!(
            !said.contains("hush") && !said.contains("sesame"),
            "{name}: a secret is shown"
        );
    }
}

#[test]
fn every_valid_config_is_accepted() {
    for path in configs(&folder("valid")) {
        let output = check(&path);
        let name = path
            .file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
        assert!(
            text(&output.stdout).starts_with(&format!("{name}: ok\n")),
            "{}",
            text(&output.stdout)
        );
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_config_that_is_not_there_is_explained() {
    let empty = tempfile::tempdir().expect("a folder");
    let output = keyrelay(empty.path(), &[OsStr::new("check"), OsStr::new("missing.toml")]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        text(&output.stderr).contains("it does not exist"),
        "{}",
        text(&output.stderr)
    );
    std::fs::write(empty.path().join("latin1.toml"), b"# \xe9\n").expect("a file");
    let output = keyrelay(empty.path(), &[OsStr::new("check"), OsStr::new("latin1.toml")]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(
        told.contains("not UTF-8 text") && told.contains("save it as UTF-8"),
        "{told}"
    );
}

#[test]
fn a_listener_for_operators_that_strangers_may_reach_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let warned = |listen: &str| {
        let config = format!("[admin]\nlisten = \"{listen}\"\n");
        std::fs::write(folder.path().join("keyrelay.toml"), config).expect("a file");
        let output = keyrelay(folder.path(), &[OsStr::new("check")]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).contains(&format!("note: whoever reaches {listen} "))
    };
    for (listen, is_warned) in [
        ("127.0.0.1:7402", false),
        ("[::1]:7402", false),
        ("unix:/run/keyrelay/admin.sock", false),
        ("0.0.0.0:7402", true),
        ("[::]:7402", true),
        ("10.0.0.7:7402", true),
    ] {
        assert_eq!(warned(listen), is_warned, "{listen}");
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_refused() {
    let empty = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["frobnicate"][..],
        &["explain"],
        &["explain", "a", "--channel", "b"],
        &["check", "--loud"],
    ] {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        assert_eq!(
            keyrelay(empty.path(), &arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn keys_and_channels_are_explained() {
    let folder = folder("valid");
    let explain = |arguments: &[&str]| {
        let arguments: Vec<&OsStr> = ["explain", "--config", "chat.toml"]
            .iter()
            .chain(arguments)
            .map(OsStr::new)
            .collect();
        let output = keyrelay(&folder, &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let said = explain(&["message:lobby:7"]);
    for part in [
        "1 mapping takes the key message:lobby:7",
        "room = lobby",
        "id = 7",
        "channel   room:lobby",
        "template",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    let said = explain(&["--channel", "room:lobby"]);
    for part in [
        "1 mapping can give the channel room:lobby",
        "message:lobby:*",
        "Why the others do not:",
    ] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    assert!(explain(&["nothing"]).starts_with("no mapping takes the key nothing"));
}

/// The file that shows every option.
mod annotated {
    use super::*;

    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("config/keyrelay.toml")
    }

    fn written() -> String {
        fs::read_to_string(path()).expect("config/keyrelay.toml")
    }

    /// What stands behind a `#` without a blank is not prose: it is an option or a mapping that can be switched on.
    fn switched_on(line: &str) -> Option<&str> {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|first: char| !first.is_whitespace() && first != '#'))
    }

    #[test]
    fn it_opens_nothing_and_says_what_the_code_says() {
        let config = compile(&path(), written());
        assert!(config.mappings.is_empty());
        // An origin is noted for every value that is not the code's default.
        let differ: Vec<String> = config.origin.iter().map(ToString::to_string).collect();
        assert!(differ.is_empty(), "not the code's defaults: {differ:#?}");
    }

    #[test]
    fn every_option_is_in_it() {
        let text = written();
        let options: Vec<&str> = text.lines().map(|line| switched_on(line).unwrap_or(line)).collect();
        for section in Section::ALL {
            for option in section.options() {
                let there = options.iter().any(|line| match section {
                    Section::Access if line == &format!("[[access.{option}]]") => true,
                    Section::Top => {
                        line.starts_with(&format!("{option} =")) || line.trim_matches(['[', ']']) == *option
                    }
                    Section::Tls | Section::ServerTls => {
                        line.starts_with("tls") && line.contains(&format!("{option} ="))
                    }
                    Section::Retain => line.starts_with("retain") && line.contains(&format!("{option} =")),
                    _ => line.split_once('=').is_some_and(|(name, _)| name.trim() == *option),
                });
                assert!(there, "{option} of {} is not in config/keyrelay.toml", section.title());
            }
        }
    }

    #[test]
    fn its_defaults_are_written_out() {
        let text = written();
        let switched_off: Vec<&str> = text
            .lines()
            .take_while(|line| !line.starts_with("#[[mapping]]"))
            .filter_map(switched_on)
            .filter_map(|line| Some(line.split_once('=')?.0.trim()))
            .collect();
        // These have no default that could be written: where they are absent, nothing stands in their place.
        let without = [
            "tls",
            "url_file",
            "username",
            "password",
            "password_file",
            "tls",
            "cookie",
            "ask",
            "algorithm",
            "secret",
            "secret_file",
            "public_key_file",
            "jwks_url",
            "issuer",
            "audience",
            "scheme",
            "secret_key_base",
            "secret_key_base_file",
            "salt",
            "digest",
            "key",
            "key_file",
            "purpose",
            "on",
            "event_name",
            "fields",
            "template",
            "template_file",
            "absent",
            "on_reset",
        ];
        assert_eq!(switched_off, without);
    }

    #[test]
    fn its_mappings_are_valid() {
        let mut on = false;
        let lines: Vec<String> = written()
            .lines()
            .map(|line| {
                on |= line.starts_with("#[[mapping]]");
                switched_on(line).filter(|_| on).unwrap_or(line).to_owned()
            })
            .collect();
        let config = compile(&path(), lines.join("\n"));
        assert!(config.mappings.len() >= 3, "only {} examples", config.mappings.len());
    }
}

#[test]
fn every_config_in_the_documents_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).expect("the folder of the documents") {
        documents.push(entry.expect("an entry of the folder").path());
    }
    documents.retain(|path| path.extension() == Some(OsStr::new("md")));
    let valid = configs(&folder("valid"));
    let valid: Vec<String> = valid
        .iter()
        .map(|path| fs::read_to_string(path).expect("a config"))
        .collect();
    let mut seen = 0;
    for document in documents {
        let text = fs::read_to_string(&document).expect("a document");
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            compile(&document, block.to_owned());
            let name = document.display();
            assert!(
                valid.iter().any(|config| config == block),
                "tests/config/valid lacks a config of {name}:\n{block}"
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no document shows a config");
}

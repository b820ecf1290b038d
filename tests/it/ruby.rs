//! What the libraries of a Ruby app mint counts, and what they should not mint does not: ruby-jwt and Rails' own verifier.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::http::{escape, request};
use crate::harness::{Relay, Server, eventually};

/// For HMAC with SHA512 too.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BASE: &str = "a secret_key_base, as Rails has it: 5d41402abc4b2a76b9719d911017c592";

/// Tables for every key that the script mints with, JWKS among them.
fn config(dir: &Path, minted: &Value, jwks: SocketAddr) -> String {
    let mut config = format!("[[access.jwt]]\njwks_url = \"http://{jwks}/jwks.json\"\n");
    for algorithm in ["HS256", "HS384", "HS512"] {
        config += &format!("[[access.jwt]]\nalgorithm = \"{algorithm}\"\nsecret = \"{SECRET}\"\n");
    }
    config += &format!(
        "[[access.jwt]]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\nissuer = \"app\"\naudience = \"keyrelay\"\n"
    );
    for name in ["rs256", "ps256", "es256"] {
        let file = dir.join(name);
        std::fs::write(&file, minted[name].as_str().expect("a key in PEM")).expect("the directory can be written to");
        let algorithm = name.to_uppercase();
        let file = file.display();
        config += &format!("[[access.jwt]]\nalgorithm = \"{algorithm}\"\npublic_key_file = \"{file}\"\n");
    }
    let base = format!("[[access.signed]]\nsecret_key_base = \"{BASE}\"\n");
    config += &base;
    config += &format!("{base}digest = \"SHA1\"\n");
    config += &format!("{base}salt = \"cable_ready/verifier_key\"\n");
    let own = format!("[[access.signed]]\nkey = \"{SECRET}\"\n");
    config += &own;
    config += &format!("{own}purpose = \"live\"\n");
    config + "[[mapping]]\nkey = \"room:{room...}\"\naccess = \"listed\"\n"
}

/// Answers every request with the key set.
fn publish(jwks: &Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let body = jwks.to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = head.take_while(|line| !line.is_empty()).last();
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        }
    });
    address
}

/// What the script mints; nothing if this machine has no Ruby, or not its libraries.
fn mint() -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ruby/mint.rb");
    let output = Command::new("ruby").arg(script).args([SECRET, BASE]).output();
    let why = match output {
        Ok(output) if output.status.success() => {
            return Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"));
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(
        std::env::var_os("KEYRELAY_TEST_RUBY").is_none(),
        "KEYRELAY_TEST_RUBY is set, and Ruby mints nothing: {why}"
    );
    // Not by a macro, whose output nobody sees of a test that passes.
    let _ = writeln!(
        std::io::stderr(),
        "\n*** SKIPPED: no Ruby with ActiveSupport and jwt to mint with; scripts/need.sh ruby installs them ***\n{why}"
    );
    None
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    let entries = value.as_object().expect("an object").iter();
    entries.map(|(name, text)| (name.as_str(), text.as_str().expect("a text")))
}

#[test]
fn what_ruby_mints_counts() {
    let Some(minted) = mint() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start();
    let relay = Relay::start(&server, &config(dir.path(), &minted, publish(&minted["jwks"])));
    let ask = |query: &str| request(relay.address(), "GET", &format!("/channels?{query}"), &[]);
    // Refused, and for the reason that stands before the colon: the operator is told it in a word.
    let refused = |name: &str, query: &str| {
        let (reason, _) = name.split_once(": ").expect("each says what is wrong with it");
        let told = || {
            let log = relay.log();
            let words = ["reason", "reasons"].map(|field| format!("\"{field}\":\"{reason}\""));
            words.iter().map(|word| log.matches(word).count()).sum::<usize>()
        };
        let before = told();
        let answer = ask(query);
        assert_eq!(answer.status(), 401, "{name}: {}", answer.text());
        eventually(name, || (told() > before).then_some(()));
        answer.text()
    };
    for (name, token) in entries(&minted["good"]) {
        let answer = ask(&format!("channel=room:1&token={token}"));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    for (name, token) in entries(&minted["bad"]) {
        let said = refused(name, &format!("channel=room:1&token={token}"));
        assert!(!said.contains(token) && !relay.log().contains(token), "{name}");
    }
    for (name, text) in entries(&minted["signed"]) {
        let answer = ask(&format!("signed={}", escape(text)));
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    for (name, text) in entries(&minted["bad_signed"]) {
        refused(name, &format!("signed={}", escape(text)));
    }
}

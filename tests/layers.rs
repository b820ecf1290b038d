//! Holds the imports of `src` to the table of layers: left and right meet only in the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each module of the crate's root may name: other modules, and those crates that belong to one side. A module that
/// is not here fails the test: it must be put in its place first.
const LAYERS: &[(&str, &[&str])] = &[
    // Words and tools: they know nobody.
    ("alarm", &[]),
    ("bell", &[]),
    ("pattern", &[]),
    ("keyspace", &[]),
    ("tally", &[]),
    ("turns", &[]),
    ("limits", &[]),
    ("pem_files", &["rustls"]),
    // The side of the keys.
    (
        "upstream",
        &[
            "alarm",
            "keyspace",
            "pattern",
            "pem_files",
            "redis_protocol",
            "rustls",
            "tokio_rustls",
        ],
    ),
    ("mapping", &["pattern"]),
    ("payload", &["keyspace", "hub", "minijinja"]),
    (
        "relay",
        &[
            "alarm", "bell", "keyspace", "tally", "turns", "pattern", "upstream", "mapping", "payload", "hub",
        ],
    ),
    // The middle: names and bytes.
    ("hub", &["bell", "limits"]),
    // The side of the clients.
    ("session", &["hub"]),
    ("transport", &["hub", "session", "tokio_tungstenite"]),
    (
        "fanout",
        &[
            "alarm",
            "bell",
            "tally",
            "limits",
            "turns",
            "hub",
            "session",
            "transport",
            "hyper",
            "http_body_util",
            "tokio_tungstenite",
        ],
    ),
    (
        "access",
        &["pattern", "limits", "hub", "hyper", "hyper_util", "http_body_util"],
    ),
    (
        "server",
        &[
            "access",
            "limits",
            "hub",
            "session",
            "transport",
            "fanout",
            "pem_files",
            "hyper",
            "hyper_util",
            "http_body_util",
            "tokio_tungstenite",
            "rustls",
            "tokio_rustls",
        ],
    ),
    // Operators: asks everybody who counts, and nobody knows it.
    (
        "admin",
        &[
            "tally",
            "limits",
            "hub",
            "upstream",
            "relay",
            "fanout",
            "server",
            "hyper",
            "hyper_util",
            "http_body_util",
            "prometheus_client",
        ],
    ),
    // Signals and logging: told to, asked nothing.
    ("process", &[]),
    // For tests, in all layers.
    ("switches", &[]),
];

/// These know everybody, and nobody but them (and `main`) may know them.
const TOP: &[&str] = &["config", "app", "cli", "main", "lib", "fuzzing"];

/// These anybody may know: they are no part of any layer.
const COMMON: &[&str] = &["switches"];

/// Crates that belong to one side, so that naming one is naming that side.
const SIDED: &[&str] = &[
    "redis_protocol",
    "minijinja",
    "hyper",
    "hyper_util",
    "http_body_util",
    "tokio_tungstenite",
    "tungstenite",
    "prometheus_client",
];

#[test]
fn every_import_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).expect("a file of src");
        let module = module_of(path);
        let text = std::fs::read_to_string(&file).expect("a source file");
        *seen.entry(module.first().cloned().unwrap_or_default()).or_insert(0) += 1;
        wrong.extend(
            offences(&module, &text)
                .into_iter()
                .map(|offence| format!("src/{}: {offence}", path.display())),
        );
    }
    for (layer, _) in LAYERS {
        assert!(
            seen.contains_key(*layer),
            "the table names `{layer}`, and src has no such module"
        );
    }
    assert!(
        wrong.is_empty(),
        "imports that the table of layers does not allow:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_forbidden_import_is_seen_in_every_form() {
    let offence = |module: &[&str], text: &str| {
        let module: Vec<String> = module.iter().map(|&part| part.to_owned()).collect();
        offences(&module, text).join(", ")
    };
    for text in [
        "use crate::relay::Mirror;",
        "use crate::{hub::Name, relay};",
        "use crate::{\n    hub::{self, Name},\n    relay::{Mirror, Key},\n};",
        "fn f() { crate::relay::start(); }",
        "use super::super::relay::Mirror;",
        "mod tests { use super::super::super::relay; }",
        "pub(in crate::relay) fn f() {}",
        "/* a comment /* in a comment */ */ use crate :: relay;",
        "const A: &str = r#\"\"#; use crate::relay;",
        "const A: char = '\"'; use crate::relay;",
    ] {
        assert_eq!(
            offence(&["fanout", "shard"], text),
            "`fanout` may not name `relay`",
            "{text}"
        );
    }
    assert_eq!(
        offence(&["fanout"], "use super::relay;"),
        "`fanout` may not name `relay`"
    );
    assert_eq!(offence(&["hub"], "use hyper::Request;"), "`hub` may not name `hyper`");
    assert_eq!(
        offence(&["relay"], "fn f(config: &crate::config::Config) {}"),
        "`relay` may not name `config`"
    );
    assert_eq!(offence(&["drawer"], ""), "`drawer` is not in the table of layers");

    for text in [
        "use crate::hub::Name;",
        "// use crate::relay;",
        "/// See `crate::relay`.",
        "/* use crate::relay; */",
        "const TEXT: &str = \"crate::relay \\\" crate::relay\";",
        "const TEXT: &str = r#\"\" crate::relay\"#;",
        "use super::relay;",
        "mod tests { use super::super::relay; }",
        "struct Relay<'a> { relay: &'a str }",
    ] {
        assert_eq!(offence(&["fanout", "shard"], text), "", "{text}");
    }
}

/// What is wrong with the imports of one file.
fn offences(module: &[String], text: &str) -> Vec<String> {
    let own = module.first().map_or("", String::as_str);
    if TOP.contains(&own) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == own) else {
        return vec![format!("`{own}` is not in the table of layers")];
    };
    let named = named(module, &tokens(text));
    let foreign = named
        .iter()
        .filter(|name| *name != own && !COMMON.contains(&name.as_str()) && !allowed.contains(&name.as_str()));
    foreign.map(|name| format!("`{own}` may not name `{name}`")).collect()
}

/// The modules of the crate's root, and the sided crates, that a file's tokens name.
fn named(module: &[String], tokens: &[String]) -> BTreeSet<String> {
    let roots: Vec<&str> = LAYERS
        .iter()
        .map(|(layer, _)| *layer)
        .chain(TOP.iter().copied())
        .collect();
    let mut found = BTreeSet::new();
    // How many inline modules are open, and at which depth of braces each began.
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0;
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token == text);
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "mod" if is(at + 2, "{") => inline.push(depth),
            "crate" if is(at + 1, "::") => found.extend(heads(tokens, at + 2)),
            // `super` leads out of as many modules as it is repeated; the one that leaves the last is at the root.
            "super" if !is(at.wrapping_sub(1), "::") => {
                let mut next = at;
                let mut up = 0;
                while is(next, "super") && is(next + 1, "::") {
                    up += 1;
                    next += 2;
                }
                if up > 0 && up == module.len() + inline.len() {
                    found.extend(heads(tokens, next));
                }
            }
            name if SIDED.contains(&name) && is(at + 1, "::") && !is(at.wrapping_sub(1), "::") => {
                found.insert(name.to_owned());
            }
            _ => {}
        }
    }
    found.retain(|name| SIDED.contains(&name.as_str()) || roots.contains(&name.as_str()));
    found
}

/// The first names of the path, or of the group of paths, that begins at `at`.
fn heads(tokens: &[String], at: usize) -> Vec<String> {
    if tokens.get(at).is_none_or(|token| token != "{") {
        return tokens.get(at).cloned().into_iter().collect();
    }
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut begins = false;
    for token in &tokens[at..] {
        match token.as_str() {
            "{" => {
                depth += 1;
                begins = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," => begins = depth == 1,
            name if begins => {
                heads.push(name.to_owned());
                begins = false;
            }
            _ => {}
        }
    }
    heads
}

/// Identifiers, `::`, and single other characters: comments, strings and character literals left out.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            at += chars[at..].iter().position(|&c| c == '\n').unwrap_or(chars.len() - at);
        } else if starts(at, "/*") {
            let mut depth = 0;
            while at < chars.len() {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    at += 1;
                }
            }
        } else if let Some(hashes) = raw_string(&chars[at..]) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += chars[at..].iter().position(|&c| c == '"').unwrap_or(0) + 1;
            while at < chars.len() && !starts(at, &end) {
                at += 1;
            }
            at += end.len();
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' && chars.get(at + 1) == Some(&'\\') {
            at += 3;
            at += chars[at.min(chars.len())..]
                .iter()
                .position(|&c| c == '\'')
                .map_or(0, |end| end + 1);
        } else if c == '\'' && chars.get(at + 2) == Some(&'\'') {
            at += 3;
        } else if c.is_alphanumeric() || c == '_' {
            let length = chars[at..]
                .iter()
                .take_while(|c| c.is_alphanumeric() || **c == '_')
                .count();
            tokens.push(chars[at..at + length].iter().collect());
            at += length;
        } else if starts(at, "::") {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// The number of `#` of a raw string (`r"…"`, `br#"…"#`) that begins here.
fn raw_string(chars: &[char]) -> Option<usize> {
    let after = match chars {
        ['b', 'r', rest @ ..] | ['r', rest @ ..] => rest,
        _ => return None,
    };
    let hashes = after.iter().take_while(|&&c| c == '#').count();
    (after.get(hashes) == Some(&'"')).then_some(hashes)
}

fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

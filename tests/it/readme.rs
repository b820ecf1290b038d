//! The README, typed as it says.

use std::time::Duration;

use crate::harness::{Client, Relay, Server, Sse};

const README: &str = include_str!("../../README.md");

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    let blocks = README.split(&fence).skip(1);
    blocks
        .map(|rest| rest.split("\n```").next().expect("a block ends"))
        .collect()
}

/// What differs from run to run made the same: ids, cursors and the time to come back after.
fn mask(line: &str) -> String {
    if line.starts_with("retry: ") {
        return "retry: #".to_owned();
    }
    let mut masked = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let hex = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            .count();
        if hex >= 16 {
            masked.push('#');
            rest = &rest[hex..];
            if let Some(number) = rest.strip_prefix('-') {
                let digits = number.bytes().take_while(u8::is_ascii_digit).count();
                if digits > 0 && digits < 16 {
                    masked.push_str("-#");
                    rest = &number[digits..];
                }
            }
        } else {
            let next = rest.char_indices().nth(hex.max(1)).map_or(rest.len(), |(at, _)| at);
            masked.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    masked
}

#[test]
fn what_it_shows_is_what_comes_back() {
    let server = Server::start();
    let config = blocks("toml")[0];
    let (upstream, mapping) = config.split_once("[[mapping]]").expect("the config has a mapping");
    assert!(
        upstream.contains("redis://127.0.0.1:6379/0"),
        "the server's default address is shown: {upstream}"
    );
    let relay = Relay::start(&server, &format!("[[mapping]]{mapping}"));

    let mut stream: Option<Sse> = None;
    let mut compared = 0;
    for line in blocks("console").join("\n").lines().filter(|line| !line.is_empty()) {
        if let Some(command) = line.strip_prefix("$ redis-cli ") {
            let arguments: Vec<&str> = command.split(' ').collect();
            let arguments: Vec<&dyn AsRef<[u8]>> = arguments.iter().map(|text| text as &dyn AsRef<[u8]>).collect();
            server.run(&arguments);
        } else if let Some(url) = line.strip_prefix("$ curl -N 'http://127.0.0.1:7400") {
            stream = Some(Sse::request(&relay, url.trim_end_matches('\''), &[], None));
        } else {
            let stream = stream.as_mut().expect("curl is shown before what it prints");
            while stream.lines.len() <= compared {
                let event = stream.poll(Duration::from_secs(10));
                assert!(event.is_some(), "nothing comes where the README shows: {line}");
            }
            assert_eq!(mask(&stream.lines[compared]), mask(line));
            compared += 1;
        }
    }
    assert!(compared > 5, "the README shows a stream");
}

#[test]
fn masks_hide_what_differs_only() {
    assert_eq!(mask("id: 0123456789abcdef-17"), "id: #-#");
    assert_eq!(
        mask("\"cursor\":\"0123456789abcdef-17-fedcba9876543210\""),
        "\"cursor\":\"#-#-#\""
    );
    assert_eq!(mask("data: {\"é\":\"deadbeef-17\"}"), "data: {\"é\":\"deadbeef-17\"}");
}

//! What `INFO` says.

use std::{collections::HashMap, ops::Range};

/// Most bytes that are looked at: more than a server with thousands of databases has to say.
const MAX_TEXT: usize = 1024 * 1024;

/// The reply to an `INFO` command: lines of `name:value`.
#[derive(Clone, Debug, Default)]
pub struct Info {
    text: String,
    /// Where the value of each name stands; found by its name, because some answers are asked for a name on every line.
    values: HashMap<Box<str>, Range<usize>>,
}

/// Which server answers, and what it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// Random name of the server's process: another one after each restart.
    pub run_id: String,
    /// The version it says it is, e.g. `7.0.15`; KeyDB and Valkey may say the Redis version they match.
    pub version: String,
}

impl Info {
    /// The text of a reply. What is not UTF-8 in it (a file name, say) is replaced.
    pub fn from_bytes(text: &[u8]) -> Info {
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_TEXT)]).into_owned();
        let mut values = HashMap::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some(colon) = line.find(':') {
                let end = line.trim_end_matches(['\r', '\n']).len();
                values.entry(line[..colon].into()).or_insert(at + colon + 1..at + end);
            }
            at += line.len();
        }
        Info { text, values }
    }

    /// The value of the line `name:value`, the first of them if there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|at| &self.text[at.clone()])
    }

    /// Every line, its name and its value.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(|line| line.split_once(':'))
    }

    /// From the section `server`; None if it has no `run_id`.
    pub fn server(&self) -> Option<ServerInfo> {
        let version = self.get("valkey_version").or_else(|| self.get("redis_version"));
        Some(ServerInfo {
            run_id: self.get("run_id")?.to_owned(),
            version: version.unwrap_or_default().to_owned(),
        })
    }

    /// From the section `persistence`: whether the server is reading its data from a file or a primary.
    pub fn is_loading(&self) -> bool {
        self.get("loading").is_some_and(|loading| loading != "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_an_end_is_cut_off() {
        let lines: String = (0..200_000).map(|at| format!("master_{at}_host:h\n")).collect();
        let info = Info::from_bytes(lines.as_bytes());
        assert_eq!(info.get("master_9_host"), Some("h"));
        assert_eq!(info.get("master_199999_host"), None);
    }

    #[test]
    fn reads_lines_of_name_and_value() {
        let info =
            Info::from_bytes(b"# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nasync_loading:1\r\nloading:0\r\n");
        let server = ServerInfo {
            run_id: "abc".into(),
            version: "7.0.15".into(),
        };
        assert_eq!(info.server(), Some(server));
        assert!(!info.is_loading());
        assert_eq!(info.get("version"), None);
        assert_eq!(Info::from_bytes(b"loading:1\r\n").server(), None);
        assert!(Info::from_bytes(b"loading:1\r\n").is_loading());
    }
}

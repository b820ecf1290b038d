//! What `INFO` says.

/// The reply to an `INFO` command: lines of `name:value`.
#[derive(Clone, Debug, Default)]
pub struct Info(String);

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
        Info(String::from_utf8_lossy(text).into_owned())
    }

    /// The value of the line `name:value`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines().find(|(line, _)| *line == name).map(|(_, value)| value)
    }

    /// Every line, its name and its value.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once(':'))
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

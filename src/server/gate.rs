//! The one place that decides which channels a client may open.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::query::{QueryError, check_name};
use crate::fanout;
use crate::hub::{Hub, SubscribeError, Subscription, Way, set_of};
use crate::session::Start;

/// About as many bytes of refused names stand in a line of the log: enough for any list that is meant, and no stranger
/// fills a disk with a thousand long ones.
const LOGGED: usize = 1024;

/// Opens channels, all of a list or none of it.
#[derive(Clone, Debug)]
pub struct Gate {
    hub: Arc<Hub>,
}

/// Why a list of channels was not opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Some may not be opened, by this client or by anyone: each of them with why.
    ForGood(BTreeMap<String, Denial>),
    /// There is no room for more channels now.
    Full,
}

/// Why one channel may not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody may: it does not exist.
    #[error("no mapping gives a channel of this name")]
    Unknown,
    /// This client may not.
    #[error("this channel is not open to you")]
    Closed,
    /// No channel can have this name.
    #[error(transparent)]
    Name(#[from] QueryError),
}

impl Denial {
    /// The reason as a fixed word.
    pub fn word(&self) -> &'static str {
        match self {
            Denial::Unknown => "unknown",
            Denial::Closed => "closed",
            Denial::Name(_) => "invalid",
        }
    }
}

/// What is refused and why, for one line of the log: `"secret" (unknown), "b\nc" (unknown)`.
fn listed(denied: &BTreeMap<String, Denial>) -> String {
    let mut line = String::new();
    for (name, denial) in denied {
        if line.len() >= LOGGED {
            line.push_str(", …");
            break;
        }
        let separator = if line.is_empty() { "" } else { ", " };
        let end = (0..=name.len().min(LOGGED))
            .rfind(|&at| name.is_char_boundary(at))
            .unwrap_or(0);
        let cut = if end < name.len() { "…" } else { "" };
        // Quoted as Rust does it, so that no name can break the line or pass for another field.
        line.push_str(&format!("{separator}{:?}{cut} ({})", &name[..end], denial.word()));
    }
    line
}

impl Gate {
    /// A gate to the hub's channels.
    pub fn new(hub: Arc<Hub>) -> Gate {
        Gate { hub }
    }

    /// The hub behind it.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Whether this client may open the channel. Every way to a channel leads through here.
    fn judge(&self, name: &str) -> Result<(), Denial> {
        check_name(name)?;
        let access = self.hub.access(name).ok_or(Denial::Unknown)?;
        match access.iter().all(|ways| ways.contains(&Way::Public)) {
            true => Ok(()),
            false => Err(Denial::Closed),
        }
    }

    /// Opens the channels for a client that stays (`lingers`) or for one that only looks. A refusal is logged here, once.
    pub fn open<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str> + Clone,
        lingers: bool,
    ) -> Result<Vec<Subscription>, Refused> {
        let mut denied = BTreeMap::new();
        for name in names.clone() {
            if let Err(denial) = self.judge(name) {
                denied.insert(name.to_owned(), denial);
            }
        }
        if !denied.is_empty() {
            tracing::info!(count = denied.len(), channels = %listed(&denied), "channels refused");
            return Err(Refused::ForGood(denied));
        }
        let mut opened = Vec::new();
        for name in names {
            match self.hub.subscribe(name, lingers) {
                Ok(subscription) => opened.push(subscription),
                Err(SubscribeError::Full) => {
                    tracing::info!(
                        reason = "full",
                        "channels refused for now: raise max_channels in [server]"
                    );
                    return Err(Refused::Full);
                }
                // It was known a moment ago.
                Err(SubscribeError::Unknown) => {
                    return Err(Refused::ForGood([(name.to_owned(), Denial::Unknown)].into()));
                }
            }
        }
        Ok(opened)
    }

    /// Where a client begins that asks for these channels: `header` is `Last-Event-ID`, which wins where it is not empty;
    /// `parameter` is the cursor in the URL or in a message.
    ///
    /// A browser sends the header back to the very URL that the id came from, so the header needs no set of channels.
    /// Nothing of the kind holds for the parameter.
    pub fn start<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        header: Option<&[u8]>,
        parameter: Option<&str>,
    ) -> Start {
        let (epoch, set) = (self.hub.epoch, set_of(names));
        match header.filter(|value| !value.is_empty()) {
            // What is not text is no cursor, as the empty text is none.
            Some(value) => Start::judge(Some(std::str::from_utf8(value).unwrap_or_default()), epoch, set, true),
            None => Start::judge(parameter.filter(|text| !text.is_empty()), epoch, set, false),
        }
    }
}

impl fanout::Gate for Gate {
    fn open(&self, names: &[String], cursor: Option<&str>) -> Result<Vec<(Subscription, Start)>, Vec<fanout::Refusal>> {
        let each = || names.iter().map(String::as_str);
        let refusal = |channel: &str, reason, what: String| fanout::Refusal {
            channel: channel.to_owned(),
            reason,
            what,
        };
        match Gate::open(self, each(), true) {
            Ok(subscriptions) => {
                let start = self.start(each(), None, cursor);
                Ok(subscriptions
                    .into_iter()
                    .map(|subscription| (subscription, start))
                    .collect())
            }
            Err(Refused::ForGood(denied)) => {
                let refusals = denied.iter();
                Err(refusals
                    .map(|(name, denial)| refusal(name, denial.word(), denial.to_string()))
                    .collect())
            }
            Err(Refused::Full) => {
                let what = "too many channels are in use: ask again later";
                Err(each().map(|name| refusal(name, "full", what.to_owned())).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Cursor;
    use crate::server::testing::{EPOCH, hub};

    const NAMES: [&str; 2] = ["a", "b"];

    fn text(epoch: u64, set: Option<u64>) -> String {
        Cursor {
            epoch,
            sequence: 42,
            set,
        }
        .to_string()
    }

    fn start(header: Option<&str>, parameter: Option<&str>) -> Start {
        Gate::new(hub(10).0).start(NAMES, header.map(str::as_bytes), parameter)
    }

    #[test]
    fn no_cursor_or_an_empty_one_is_a_new_client() {
        assert_eq!(start(None, None), Start::New);
        assert_eq!(start(Some(""), Some("")), Start::New);
        assert_eq!(
            start(Some(""), Some(&text(EPOCH, Some(set_of(NAMES))))),
            Start::Resume(42)
        );
    }

    #[test]
    fn only_the_header_is_believed_without_a_set() {
        assert_eq!(start(Some(&text(EPOCH, None)), None), Start::Resume(42));
        assert_eq!(start(None, Some(&text(EPOCH, None))), Start::Unknown);
        let fits = text(EPOCH, Some(set_of(["b", "a"])));
        assert_eq!(start(Some(&fits), Some("garbage")), Start::Resume(42));
        assert_eq!(start(None, Some(&fits)), Start::Resume(42));
        let other = text(EPOCH, Some(set_of(["a"])));
        assert_eq!(start(Some(&other), Some(&fits)), Start::Unknown);
        assert_eq!(start(None, Some(&other)), Start::Unknown);
        assert_eq!(start(Some(&text(EPOCH + 1, None)), Some(&fits)), Start::Unknown);
        assert_eq!(
            Gate::new(hub(10).0).start(NAMES, Some(b"\xff"), Some(&fits)),
            Start::Unknown
        );
    }

    #[test]
    fn a_line_of_the_log_names_what_is_refused() {
        let denied = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Denial::Unknown)).collect();
        assert_eq!(listed(&denied(&["a", "b\nc"])), r#""a" (unknown), "b\nc" (unknown)"#);
        let long = "ü".repeat(1000);
        let many: Vec<String> = (0..1000).map(|number| format!("{number}{long}")).collect();
        let line = listed(&denied(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(line.len() < LOGGED + 100, "{}", line.len());
        assert!(line.ends_with("… (unknown), …"), "{line}");
    }

    #[test]
    fn all_are_opened_or_none() {
        let (hub, _appender) = hub(2);
        let gate = Gate::new(hub.clone());
        let Err(Refused::ForGood(denied)) = gate.open(["a", "no:1", "", "no:2"], true) else {
            panic!("unknown channels are refused");
        };
        assert_eq!(denied.keys().collect::<Vec<_>>(), ["", "no:1", "no:2"]);
        assert_eq!((denied["no:1"].word(), denied[""].word()), ("unknown", "invalid"));
        assert_eq!(hub.channels(), 0, "nothing was opened");
        assert_eq!(gate.open(["a", "b", "c"], true).unwrap_err(), Refused::Full);
        assert_eq!(gate.open(["a", "b"], true).unwrap().len(), 2);
    }
}

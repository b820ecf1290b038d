//! What this very server lets this very user do, and whether that is enough.
//!
//! Everything is tried as the feed and the reader do it, on a connection of its own, with keys that do not exist; only a
//! canary writes, and only where one is asked for.

use redis_protocol::resp3::types::OwnedFrame;

use self::rights::Missing;
use super::{
    Address, Endpoint, Info, Subscriptions,
    feed::{Notifications, start},
    link::{self, Link, LinkError},
};
use crate::pattern::KeyPattern;

mod events;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod rights;
mod server;
mod settings;

pub(crate) use rights::quoted;

/// What the connections are called in the server's `CLIENT LIST`.
const CLIENT_NAME: &str = "keyrelay-check";

/// What is going to be asked of the server.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Which keys are heard of and read.
    pub patterns: Vec<KeyPattern>,
    /// What is subscribed to.
    pub subscriptions: Subscriptions,
    /// What is done about the server's setting of notifications; nothing where no keys are heard of.
    pub notifications: Notifications,
    /// Whether there are channels whose keys must be looked for.
    pub scans: bool,
    /// Whether single fields of hashes are read.
    pub fields: bool,
    /// Whether all primaries of a cluster are heard and read, of which this server is one.
    pub cluster: bool,
}

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not for ever or not for everybody.
    Warning,
    /// It does not work.
    Problem,
    /// Nobody can tell.
    Unknown,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub subject: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen; one line.
    pub says: String,
    /// What to run or to write, where something is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// Whether there is no way in, so that nothing else could be tried.
    pub fn is_of_connection(&self) -> bool {
        self.verdict == Verdict::Problem && ["reachable", "tls", "login", "connection"].contains(&self.subject)
    }

    fn new(subject: &'static str, verdict: Verdict, says: impl Into<String>) -> Finding {
        Finding {
            subject,
            verdict,
            says: says.into(),
            remedy: None,
        }
    }

    fn remedy(self, remedy: impl Into<String>) -> Finding {
        Finding {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// How it is proved that key events come.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// Not at all.
    None,
    /// By an event that somebody else causes meanwhile.
    Chance,
    /// By writing this key, which must not be there, and removing it again.
    Canary(&'a [u8]),
}

/// Tries everything.
pub async fn probe(endpoint: &Endpoint, needs: &Needs, proof: Proof<'_>) -> Vec<Finding> {
    let endpoint = &Endpoint {
        client_name: CLIENT_NAME.into(),
        ..endpoint.clone()
    };
    let mut findings = vec![reach(&endpoint.address).await];
    if findings[0].verdict == Verdict::Problem {
        return findings;
    }
    let mut link = match Link::connect(endpoint).await {
        Ok(link) => link,
        Err(error) => {
            let subject = if matches!(error, LinkError::Tls(_)) {
                "tls"
            } else {
                "reachable"
            };
            let says = start::reason(&endpoint.address, error).to_string();
            findings.push(Finding::new(subject, Verdict::Problem, says));
            return findings;
        }
    };
    if let Some(tls) = &endpoint.tls {
        let says = match &tls.ca_file {
            Some(file) => format!("trusted, by {}", file.display()),
            None => "trusted, by the system's trust store".into(),
        };
        findings.push(Finding::new("tls", Verdict::Ok, says));
    }
    let probe = Probe {
        endpoint,
        needs,
        link: &mut link,
        findings: &mut findings,
    };
    if let Err(error) = probe.all(proof).await {
        let says = start::reason(&endpoint.address, error).to_string();
        findings.push(Finding::new("connection", Verdict::Problem, says));
    }
    findings
}

/// Tries every address that the name has.
async fn reach(address: &Address) -> Finding {
    let finding = |verdict, says| Finding::new("reachable", verdict, says);
    let Address::Tcp { host, port } = address else {
        // There is but one, and it is tried next.
        return finding(Verdict::Ok, format!("at the socket {address}"));
    };
    let addresses = match link::resolve(host, *port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            return finding(Verdict::Problem, format!("{host} is not found: {error}"))
                .remedy("check the host of the upstream url");
        }
    };
    let mut accepts = Vec::new();
    let mut refuse = Vec::new();
    for address in addresses {
        match link::connect_to(address).await {
            Ok(_) => accepts.push(address.to_string()),
            Err(error) => refuse.push(format!("{address}: {error}")),
        }
    }
    match (accepts.is_empty(), refuse.is_empty()) {
        (true, _) => finding(Verdict::Problem, format!("nobody accepts: {}", refuse.join(", ")))
            .remedy("start the server, or check host and port of the upstream url"),
        (false, true) => finding(Verdict::Ok, format!("{} accepts", accepts.join(", "))),
        (false, false) => finding(
            Verdict::Ok,
            format!("{} accepts; not so {}", accepts.join(", "), refuse.join(", ")),
        ),
    }
}

/// One connection on which everything is tried.
struct Probe<'a> {
    endpoint: &'a Endpoint,
    needs: &'a Needs,
    link: &'a mut Link,
    findings: &'a mut Vec<Finding>,
}

/// What a command was answered.
enum Answer {
    Reply(OwnedFrame),
    /// Why not, in the server's words.
    Refused(String),
}

impl Answer {
    fn text(self) -> Option<String> {
        match self {
            Answer::Reply(OwnedFrame::VerbatimString { data, .. } | OwnedFrame::BlobString { data, .. }) => {
                Some(String::from_utf8_lossy(&data).into_owned())
            }
            _ => None,
        }
    }
}

impl Probe<'_> {
    async fn all(mut self, proof: Proof<'_>) -> Result<(), LinkError> {
        if !self.log_in().await? {
            return Ok(());
        }
        let info = self.ask(&[b"INFO"]).await?.text();
        let info = info.map(|text| Info::from_bytes(text.as_bytes()));
        match &info {
            Some(info) => self.findings.extend(server::account(info, self.needs.cluster)),
            None => self.find(
                "server",
                Verdict::Unknown,
                "it does not say what it is: INFO is refused",
            ),
        }
        let mut missing = rights::missing(&mut self).await?;
        // Where keys are tracked no setting is asked for: it is for servers that show none.
        let asks = self.needs.subscriptions.tracked().is_empty();
        let hears_keys = !self.needs.patterns.is_empty();
        let flags = match asks && hears_keys {
            true => Some(self.flags(&mut missing).await?),
            false => None,
        };
        self.rights(&missing);
        self.source();
        self.findings.extend(flags);
        if asks {
            self.buffer().await?;
        }
        match proof {
            Proof::Chance if !hears_keys => Ok(()),
            proof => self.events(proof).await,
        }
    }

    fn find(&mut self, subject: &'static str, verdict: Verdict, says: impl Into<String>) {
        self.findings.push(Finding::new(subject, verdict, says));
    }

    /// Sends a command; an answer that refuses it is an answer.
    async fn ask(&mut self, words: &[&[u8]]) -> Result<Answer, LinkError> {
        match self.link.command(words).await {
            Ok(reply) => Ok(Answer::Reply(reply)),
            Err(LinkError::Refused { message, .. }) => Ok(Answer::Refused(message)),
            Err(error) => Err(error),
        }
    }

    async fn log_in(&mut self) -> Result<bool, LinkError> {
        let user = self.endpoint.username.as_deref().unwrap_or("default");
        match start::log_in(self.link, self.endpoint).await {
            Ok(_) => {
                let says = format!("user {user}, database {}, over RESP3", self.endpoint.db);
                self.find("login", Verdict::Ok, says);
                Ok(true)
            }
            Err(error @ (LinkError::Refused { .. } | LinkError::TooOld | LinkError::Tls(_) | LinkError::Dumb)) => {
                let says = start::reason(&self.endpoint.address, error).to_string();
                self.find("login", Verdict::Problem, says);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// How key events are going to be heard.
    fn source(&mut self) {
        let subscriptions = &self.needs.subscriptions;
        let prefixes = subscriptions.tracked().len();
        if prefixes > 0 {
            let plural = if prefixes == 1 { "prefix" } else { "prefixes" };
            let says = format!("client tracking of keys by {prefixes} {plural}, for which nothing need be set");
            return self.find("source", Verdict::Ok, says);
        }
        let kinds = [
            (subscriptions.channels(), "channel"),
            (subscriptions.patterns(), "pattern"),
        ];
        let counted: Vec<String> = kinds
            .into_iter()
            .filter(|(names, _)| !names.is_empty())
            .map(|(names, what)| format!("{} {what}{}", names.len(), if names.len() == 1 { "" } else { "s" }))
            .collect();
        let broad = matches!(subscriptions.patterns(), [one] if one.ends_with(b"__:*"));
        let says = match (counted.is_empty(), broad) {
            (true, _) => "nothing is subscribed to, as there is no mapping".to_owned(),
            (false, true) => {
                "keyspace notifications of all keys by one pattern, which is the cheapest for the server with \
                              these mappings"
                    .to_owned()
            }
            (false, false) => {
                let kind = match self.needs.patterns.is_empty() {
                    true => "published messages",
                    false => "keyspace notifications",
                };
                format!("{kind} by {}, just what the mappings name", counted.join(" and "))
            }
        };
        self.find("source", Verdict::Ok, says);
    }

    fn rights(&mut self, missing: &Missing) {
        let user = self.endpoint.username.as_deref().unwrap_or("default");
        if !missing.unknown.is_empty() {
            let says = format!("the server does not know {}", missing.unknown.join(", "));
            let finding = Finding::new("commands", Verdict::Problem, says);
            self.findings
                .push(finding.remedy("let the server have these commands under their own names"));
        }
        if missing.is_empty() {
            let says = format!("user {user} may do all that is needed");
            return self.find("rights", Verdict::Ok, says);
        }
        let mut line = format!("{} {}", self.endpoint.command_line(), missing.acl_line(user));
        if missing.hides_more() {
            line.push_str("; then check again, for the rest could not be tried");
        }
        let finding = Finding::new("rights", Verdict::Problem, format!("user {user} {missing}"));
        self.findings.push(finding.remedy(line));
    }
}

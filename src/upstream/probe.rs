//! What this very server lets this very user do, and whether that is enough.
//!
//! Everything is tried as the feed and the reader do it, on a connection of its own, with keys that do not exist; only a
//! canary writes, and only where one is asked for.

use std::time::{Duration, Instant};

use redis_protocol::resp3::types::OwnedFrame;
use tokio::time::timeout;

use self::rights::Missing;
use super::{
    Address, Endpoint, Info, Subscriptions,
    feed::{Notifications, look, start},
    link::{self, Link, LinkError},
};
use crate::{keyspace::flags, pattern::KeyPattern};

mod rights;
mod server;

/// How long to listen for an event that somebody else causes.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the event of a canary may take.
const CANARY_PATIENCE: Duration = Duration::from_secs(5);

/// A setting that no server has: to try to change it changes nothing.
const NO_SETTING: &[u8] = b"keyrelay-no-such-setting";

/// The canary goes by itself, should we be cut off before we take it away.
const CANARY_LIFE: &[u8] = b"10000";

/// What is going to be asked of the server.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Which keys are heard of and read.
    pub patterns: Vec<KeyPattern>,
    /// What is subscribed to.
    pub subscriptions: Subscriptions,
    /// What is done about the server's setting of notifications.
    pub notifications: Notifications,
    /// Whether there are channels whose keys must be looked for.
    pub scans: bool,
    /// Whether single fields of hashes are read.
    pub fields: bool,
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

/// Tries everything. `canary` is a key that may be written, and is removed again.
pub async fn probe(endpoint: &Endpoint, needs: &Needs, canary: Option<&[u8]>) -> Vec<Finding> {
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
    if let Err(error) = probe.all(canary).await {
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
            Err(error) => refuse.push(error.to_string()),
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
    async fn all(mut self, canary: Option<&[u8]>) -> Result<(), LinkError> {
        if !self.log_in().await? {
            return Ok(());
        }
        let info = self.ask(&[b"INFO"]).await?.text();
        let info = info.map(|text| Info::from_bytes(text.as_bytes()));
        match &info {
            Some(info) => self.findings.extend(server::account(info)),
            None => self.find(
                "server",
                Verdict::Unknown,
                "it does not say what it is: INFO is refused",
            ),
        }
        let mut missing = rights::missing(&mut self).await?;
        let flags = self.flags(&mut missing).await?;
        self.rights(&missing);
        self.source();
        self.findings.push(flags);
        self.buffer().await?;
        self.events(canary).await
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
            (false, false) => format!(
                "keyspace notifications by {}, just what the mappings name",
                counted.join(" and ")
            ),
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

    /// The server's setting of notifications; what it takes to see and to set it may be missing too.
    async fn flags(&mut self, missing: &mut Missing) -> Result<Finding, LinkError> {
        const SETTING: &str = start::SETTING;
        let finding = |verdict, says: String| Finding::new("notifications", verdict, says);
        let assumed = self.needs.notifications == Notifications::Assume;
        let value = match self.ask(&[b"CONFIG", b"GET", SETTING.as_bytes()]).await? {
            Answer::Reply(OwnedFrame::Map { data, .. }) => data.into_values().next().and_then(look::text),
            Answer::Reply(_) => None,
            Answer::Refused(_) if assumed => None,
            Answer::Refused(why) => {
                if why.starts_with("NOPERM") {
                    missing.commands.push("config|get");
                }
                let says = format!("the server does not tell its {SETTING} ({why})");
                let remedy = format!(
                    "let the user run CONFIG GET; or set {SETTING} to KEA where the service is managed, and \
                     notifications = \"assume\" under [upstream]"
                );
                return Ok(finding(Verdict::Problem, says).remedy(remedy));
            }
        };
        let Some(value) = value else {
            let says = format!("{SETTING} cannot be seen; only an event proves that it is right");
            return Ok(finding(Verdict::Unknown, says));
        };
        let Some(united) = flags::missing(&value) else {
            return Ok(finding(
                Verdict::Ok,
                format!("{SETTING} is \"{value}\", which is enough"),
            ));
        };
        let says = format!("{SETTING} is \"{value}\", and must be \"{united}\"");
        let ensured = self.needs.notifications == Notifications::Ensure
            && rights::attempt(self, missing, "config|set", &[b"CONFIG", b"SET", NO_SETTING, b"1"]).await?;
        let finding = match ensured {
            true => finding(
                Verdict::Warning,
                format!("{says}; keyrelay sets it when it runs, but a restart of the server forgets it"),
            ),
            false => finding(Verdict::Problem, says),
        };
        let command_line = self.endpoint.command_line();
        Ok(finding.remedy(format!(
            "{command_line} CONFIG SET {SETTING} '{united}', and write it into the server's configuration"
        )))
    }

    async fn buffer(&mut self) -> Result<(), LinkError> {
        let answer = self.ask(&[b"CONFIG", b"GET", b"client-output-buffer-limit"]).await?;
        let value = match answer {
            Answer::Reply(OwnedFrame::Map { data, .. }) => data.into_values().next().and_then(look::text),
            _ => None,
        };
        let finding = server::buffer(value.as_deref(), &self.endpoint.command_line());
        self.findings.push(finding);
        Ok(())
    }

    /// Whether key events come: those that others caused meanwhile, or that of the canary.
    async fn events(mut self, canary: Option<&[u8]>) -> Result<(), LinkError> {
        if let Some(key) = canary {
            return self.canary(key).await;
        }
        let heard = match self.link.messages() {
            0 => usize::from(
                timeout(PATIENCE, self.link.message())
                    .await
                    .is_ok_and(|heard| heard.is_ok()),
            ),
            heard => heard,
        };
        match heard {
            0 => {
                let finding = Finding::new(
                    "events",
                    Verdict::Unknown,
                    "nobody changed a key meanwhile, so none came",
                );
                self.findings
                    .push(finding.remedy("to prove that events come, name a key that may be written: --canary KEY"));
            }
            _ => self.find("events", Verdict::Ok, "they come: somebody changed a key meanwhile"),
        }
        Ok(())
    }

    async fn canary(&mut self, key: &[u8]) -> Result<(), LinkError> {
        let shown = key.escape_ascii();
        let cannot = |why: String, remedy: &str| Finding::new("events", Verdict::Unknown, why).remedy(remedy);
        if !self.needs.patterns.iter().any(|pattern| pattern.is_match(key)) {
            let why = format!("no mapping takes the key {shown}");
            self.findings.push(cannot(why, "name a key that a mapping takes"));
            return Ok(());
        }
        // On a connection of its own: here its event would come before the reply.
        let mut writer = Link::connect(self.endpoint).await?;
        start::log_in(&mut writer, self.endpoint).await?;
        let written = writer
            .command(&[b"SET", key, b"keyrelay-check", b"NX", b"PX", CANARY_LIFE])
            .await;
        match written {
            Ok(OwnedFrame::Null) => {
                let why = format!("the key {shown} is there already");
                let remedy = "name a key that is not there, for it is written and removed";
                self.findings.push(cannot(why, remedy));
                return Ok(());
            }
            Err(LinkError::Refused { message, .. }) => {
                let why = format!("{shown} cannot be written ({message})");
                let remedy = "while this runs, have somebody else write a key that a mapping takes";
                self.findings.push(cannot(why, remedy));
                return Ok(());
            }
            written => written?,
        };
        let begun = Instant::now();
        let channel = [format!("__keyspace@{}__:", self.endpoint.db).as_bytes(), key].concat();
        let heard = timeout(CANARY_PATIENCE, async {
            while self.link.message().await? != channel {}
            Ok::<_, LinkError>(())
        })
        .await;
        let took = begun.elapsed();
        writer.command(&[b"DEL", key]).await?;
        match heard {
            Ok(heard) => {
                heard?;
                let says = format!("they come: {shown} was written, and heard of {took:.1?} later");
                self.find("events", Verdict::Ok, says);
            }
            Err(_) => {
                let says = format!("none came of {shown} within {CANARY_PATIENCE:?}, though it was written");
                self.find("events", Verdict::Problem, says);
            }
        }
        Ok(())
    }
}

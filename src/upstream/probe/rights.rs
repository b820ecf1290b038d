//! What the server's user must be allowed, and what of it is not.

use std::fmt;

use super::{Answer, Needs, Probe};
use crate::{
    pattern::KeyPattern,
    upstream::{feed::start, link::LinkError, plan::escaped},
};

/// Stands for a key that nobody has: whether a command is allowed does not depend on the key.
const NO_KEY: &[u8] = b"keyrelay:no-such-key:probe";

/// What no key begins with.
const NO_PREFIX: &[u8] = b"keyrelay:no-such-key:";

/// More exact channels than this are allowed together, as all key events of the database: a line must stay readable.
const MOST_CHANNELS: usize = 16;

/// A command as rules name it, and a harmless way to call it.
type Command = (&'static str, &'static [&'static [u8]]);

/// What every connection sends. `hello` and `auth` need no permission.
const ALWAYS: [Command; 5] = [
    ("ping", &[b"PING"]),
    ("info", &[b"INFO", b"server"]),
    ("client|id", &[b"CLIENT", b"ID"]),
    (
        "client|setname",
        &[b"CLIENT", b"SETNAME", super::CLIENT_NAME.as_bytes()],
    ),
    ("client|list", &[b"CLIENT", b"LIST", b"TYPE", b"master"]),
];

/// How values are read, whatever type they have.
const READS: [Command; 15] = [
    ("type", &[b"TYPE", NO_KEY]),
    ("pttl", &[b"PTTL", NO_KEY]),
    ("get", &[b"GET", NO_KEY]),
    ("getrange", &[b"GETRANGE", NO_KEY, b"0", b"0"]),
    ("strlen", &[b"STRLEN", NO_KEY]),
    ("hlen", &[b"HLEN", NO_KEY]),
    ("hgetall", &[b"HGETALL", NO_KEY]),
    ("llen", &[b"LLEN", NO_KEY]),
    ("lrange", &[b"LRANGE", NO_KEY, b"0", b"0"]),
    ("scard", &[b"SCARD", NO_KEY]),
    ("smembers", &[b"SMEMBERS", NO_KEY]),
    ("zcard", &[b"ZCARD", NO_KEY]),
    ("zrange", &[b"ZRANGE", NO_KEY, b"0", b"0"]),
    ("xlen", &[b"XLEN", NO_KEY]),
    ("xrange", &[b"XRANGE", NO_KEY, b"-", b"+", b"COUNT", b"1"]),
];

/// What is not allowed, or not there at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Commands, as rules name them.
    pub commands: Vec<&'static str>,
    /// Patterns of keys.
    pub keys: Vec<String>,
    /// Channels and patterns of channels.
    pub channels: Vec<String>,
    /// Commands that the server does not have, or not under their names.
    pub unknown: Vec<&'static str>,
}

/// What a server says of a command that it does not carry out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Command,
    Key,
    Channel,
    /// It has no such command.
    Unknown,
    /// The command itself would do.
    Other,
}

impl Refusal {
    pub fn of(message: &str) -> Refusal {
        let denied = message.starts_with("NOPERM");
        match message {
            _ if denied && message.contains("permissions to run") => Refusal::Command,
            _ if denied && message.contains("channel") => Refusal::Channel,
            _ if denied => Refusal::Key,
            _ if message.starts_with("ERR unknown command") => Refusal::Unknown,
            _ => Refusal::Other,
        }
    }
}

impl Missing {
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.keys.is_empty() && self.channels.is_empty()
    }

    /// Whether what is missing hides what else may be missing: channels cannot be tried without the command, keys not
    /// without any.
    pub fn hides_more(&self) -> bool {
        let lacks = |name: &str| self.commands.contains(&name);
        lacks("subscribe") || lacks("psubscribe") || READS.iter().all(|(name, _)| lacks(name))
    }

    /// The command that allows it; for a shell.
    pub fn acl_line(&self, user: &str) -> String {
        let mut line = format!("ACL SETUSER {}", quoted(user));
        for command in &self.commands {
            // A `|` would be a pipe to the shell.
            line.push(' ');
            line.push_str(&quoted(&format!("+{command}")));
        }
        for keys in &self.keys {
            line.push(' ');
            line.push_str(&quoted(&format!("~{keys}")));
        }
        for channel in &self.channels {
            line.push(' ');
            line.push_str(&quoted(&format!("&{channel}")));
        }
        line
    }
}

impl fmt::Display for Missing {
    /// What follows the name of the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.commands.is_empty() {
            parts.push(format!("may not run {}", self.commands.join(", ")));
        }
        if !self.keys.is_empty() {
            parts.push(format!("may not read keys as {}", self.keys.join(", ")));
        }
        if !self.channels.is_empty() {
            parts.push(format!("may not subscribe to {}", self.channels.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

/// Tries everything that will be needed; what is subscribed to stays so.
pub(super) async fn missing(probe: &mut Probe<'_>) -> Result<Missing, LinkError> {
    let needs = probe.needs;
    let mut missing = Missing::default();
    // One that may be read, if it is to be: what is refused stands in the server's ACL LOG.
    let mut patterns = needs.patterns.iter().filter(|pattern| pattern.literal().is_none());
    let key = patterns.find_map(KeyPattern::example).unwrap_or_else(|| NO_KEY.into());
    for (name, words) in commands(needs) {
        attempt(probe, &mut missing, name, &about(words, &key)).await?;
    }
    let prefixes = match needs.subscriptions.tracked() {
        [] => &[NO_PREFIX.to_vec()],
        prefixes => prefixes,
    };
    attempt(probe, &mut missing, "client|tracking", &start::tracking(prefixes)).await?;
    keys(probe, &mut missing).await?;
    subscribe(probe, &mut missing).await?;
    Ok(missing)
}

fn commands(needs: &Needs) -> Vec<Command> {
    let mut commands = ALWAYS.to_vec();
    if !needs.patterns.is_empty() {
        commands.extend(READS);
    }
    if needs.fields {
        commands.push(("hmget", &[b"HMGET", NO_KEY, b"field"]));
    }
    if needs.scans {
        commands.push(("scan", &[b"SCAN", b"0", b"COUNT", b"1"]));
    }
    if needs.cluster {
        commands.push(("cluster|nodes", &[b"CLUSTER", b"NODES"]));
        commands.push(("asking", &[b"ASKING"]));
    }
    commands
}

/// Calls a command that `name` stands for in rules; whether it may be called.
pub(super) async fn attempt(
    probe: &mut Probe<'_>,
    missing: &mut Missing,
    name: &'static str,
    words: &[&[u8]],
) -> Result<bool, LinkError> {
    let Answer::Refused(message) = probe.ask(words).await? else {
        return Ok(true);
    };
    match Refusal::of(&message) {
        Refusal::Command => missing.commands.push(name),
        Refusal::Unknown => missing.unknown.push(name),
        Refusal::Key | Refusal::Channel | Refusal::Other => return Ok(true),
    }
    Ok(false)
}

/// Tries a key of each pattern, with whatever may be called.
async fn keys(probe: &mut Probe<'_>, missing: &mut Missing) -> Result<(), LinkError> {
    let allowed = READS
        .iter()
        .find(|(name, _)| !missing.commands.contains(name) && !missing.unknown.contains(name));
    let Some((_, words)) = allowed else { return Ok(()) };
    for pattern in &probe.needs.patterns {
        let Some(example) = pattern.example() else { continue };
        if let Answer::Refused(message) = probe.ask(&about(words, &example)).await?
            && Refusal::of(&message) == Refusal::Key
        {
            missing.keys.push(of_rule(&pattern.glob()));
        }
    }
    missing.keys.sort();
    missing.keys.dedup();
    Ok(())
}

/// The words of a command, about this key.
fn about<'k>(words: &[&'k [u8]], key: &'k [u8]) -> Vec<&'k [u8]> {
    let put = |&word: &&'k [u8]| if word == NO_KEY { key } else { word };
    words.iter().map(put).collect()
}

async fn subscribe(probe: &mut Probe<'_>, missing: &mut Missing) -> Result<(), LinkError> {
    let subscriptions = &probe.needs.subscriptions;
    let mut exact = Vec::new();
    let kinds = [
        ("SUBSCRIBE", "subscribe", subscriptions.channels()),
        ("PSUBSCRIBE", "psubscribe", subscriptions.patterns()),
    ];
    for (command, name, names) in kinds {
        for channel in names {
            probe.link.send(&[command.as_bytes(), channel]).await?;
            match probe.link.confirmed(command, name.as_bytes()).await {
                Ok(()) => {}
                Err(LinkError::Refused { message, .. }) => match Refusal::of(&message) {
                    Refusal::Command => {
                        missing.commands.push(name);
                        break;
                    }
                    // A pattern must be allowed by its very letters, a channel by a pattern that takes it.
                    _ if command == "PSUBSCRIBE" => missing.channels.push(of_rule(channel)),
                    _ => exact.push(of_rule(&escaped(channel))),
                },
                Err(error) => return Err(error),
            }
        }
    }
    if exact.len() > MOST_CHANNELS {
        exact = vec![format!("__keyspace@{}__:*", probe.endpoint.db)];
    }
    missing.channels.extend(exact);
    Ok(())
}

/// A pattern as a rule may hold it, in which there is no blank.
fn of_rule(pattern: &[u8]) -> String {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != char::REPLACEMENT_CHARACTER;
    let text = String::from_utf8_lossy(pattern);
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+,=".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_all_servers_are_told_apart() {
        for (message, refusal) in [
            // KeyDB 6.3
            (
                "NOPERM this user has no permissions to run the 'get' command or its subcommand",
                Refusal::Command,
            ),
            (
                "NOPERM this user has no permissions to access one of the keys used as arguments",
                Refusal::Key,
            ),
            (
                "NOPERM this user has no permissions to access one of the channels used as arguments",
                Refusal::Channel,
            ),
            // Redis 7.2, Valkey
            (
                "NOPERM User relay has no permissions to run the 'client|tracking' command",
                Refusal::Command,
            ),
            ("NOPERM No permissions to access a key", Refusal::Key),
            ("NOPERM No permissions to access a channel", Refusal::Channel),
            (
                "ERR unknown command 'CONFIG', with args beginning with: 'GET' ",
                Refusal::Unknown,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                Refusal::Other,
            ),
        ] {
            assert_eq!(Refusal::of(message), refusal, "{message}");
        }
    }

    #[test]
    fn the_line_is_for_a_shell() {
        let missing = Missing {
            commands: vec!["get", "client|tracking"],
            keys: vec![of_rule(b"my cart:*"), of_rule(b"it's")],
            channels: vec!["__keyspace@0__:cart:*".into()],
            unknown: vec![],
        };
        assert_eq!(
            missing.acl_line("relay"),
            r"ACL SETUSER relay +get '+client|tracking' '~my?cart:*' '~it'\''s' '&__keyspace@0__:cart:*'"
        );
    }
}

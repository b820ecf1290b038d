//! What the floor hears of the server, and asks of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Options, frames};
use crate::Transport;

/// What the server calls a key of this bench in its notifications, up to the number.
const NAME: &[u8] = b"@0__:bench:";

/// How a notification of a SET ends.
const SET: &[u8] = b"$3\r\nset\r\n";

/// A value that has come.
#[derive(Debug)]
pub struct Change {
    pub channel: usize,
    pub sequence: u64,
    pub value: String,
    /// What each subscriber is sent.
    pub frame: Vec<u8>,
}

/// From notifications to values.
pub struct Heard {
    transport: Transport,
    /// Channels that have had a subscriber: of others nothing is asked, unless the second thread may have subscribers.
    wanted: Vec<bool>,
    asks_all: bool,
    /// The channels whose values were asked for and have not come yet.
    asked: VecDeque<usize>,
    sequence: u64,
    /// Notifications of which the end has not come yet.
    notifications: Vec<u8>,
    /// Values of which the end has not come yet.
    values: Vec<u8>,
}

impl Heard {
    pub fn new(options: Options) -> Heard {
        Heard {
            transport: options.transport,
            wanted: Vec::new(),
            asks_all: options.two_threads,
            asked: VecDeque::new(),
            sequence: 0,
            notifications: Vec::new(),
            values: Vec::new(),
        }
    }

    /// A channel has a subscriber; the command that gets its value, if it is the first one.
    pub fn want(&mut self, channel: usize) -> Option<Vec<u8>> {
        if self.wanted.len() <= channel {
            self.wanted.resize(channel + 1, false);
        }
        if std::mem::replace(&mut self.wanted[channel], true) {
            return None;
        }
        let mut commands = Vec::new();
        self.ask(channel, &mut commands);
        Some(commands)
    }

    /// The commands that get what has changed, after these bytes of notifications.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut notifications = std::mem::take(&mut self.notifications);
        notifications.extend_from_slice(bytes);
        let (mut commands, mut done) = (Vec::new(), 0);
        for at in memchr::memmem::find_iter(&notifications, SET) {
            // The pattern stands before the name, and has no number.
            let notification = &notifications[done..at];
            done = at + SET.len();
            let name = memchr::memmem::rfind(notification, NAME);
            if let Some(channel) = name.and_then(|at| number(&notification[at + NAME.len()..]))
                && (self.asks_all || self.wanted.get(channel) == Some(&true))
            {
                self.ask(channel, &mut commands);
            }
        }
        notifications.drain(..done);
        self.notifications = notifications;
        commands
    }

    fn ask(&mut self, channel: usize, commands: &mut Vec<u8>) {
        let key = format!("bench:{channel}");
        let command = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        commands.extend_from_slice(command.as_bytes());
        self.asked.push_back(channel);
    }

    /// What is to be sent, after these bytes of values.
    pub fn get(&mut self, bytes: &[u8]) -> Vec<Arc<Change>> {
        let mut values = std::mem::take(&mut self.values);
        values.extend_from_slice(bytes);
        let (mut changes, mut rest) = (Vec::new(), &values[..]);
        while let Some((value, after)) = bulk(rest) {
            rest = after;
            let Some(channel) = self.asked.pop_front() else { break };
            let Some(value) = value else { continue };
            self.sequence += 1;
            changes.push(Arc::new(Change {
                channel,
                sequence: self.sequence,
                value: value.to_owned(),
                frame: frames::message(channel, self.sequence, value, self.transport),
            }));
        }
        let done = values.len() - rest.len();
        values.drain(..done);
        self.values = values;
        changes
    }
}

/// The first bulk string (`$<length>\r\n<bytes>\r\n`, or `$-1\r\n` for none) if it is whole, and what stands behind it.
fn bulk(bytes: &[u8]) -> Option<(Option<&str>, &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let length: isize = std::str::from_utf8(bytes.get(1..end - 1)?).ok()?.parse().ok()?;
    let rest = &bytes[end + 1..];
    let Ok(length) = usize::try_from(length) else {
        return Some((None, rest));
    };
    let (value, after) = rest.split_at_checked(length)?;
    Some((Some(std::str::from_utf8(value).ok()?), after.get(2..)?))
}

/// The numbers of the channels that a request asks for.
pub fn channels(request: &[u8]) -> Vec<usize> {
    let name = b"channel=bench:";
    let of = |at: usize| number(&request[at + name.len()..]);
    memchr::memmem::find_iter(request, name).filter_map(of).collect()
}

/// The number that a text begins with.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

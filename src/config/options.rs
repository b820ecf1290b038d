//! The options that a mapping shares with `[defaults]`, each checked alone.

use std::sync::Arc;
use std::time::Duration;

use super::compile::{Bounds, Compiler, Name};
use super::diagnostics::{At, Problem, Source, unreadable};
use super::file::MappingOptions;
use super::reader::{List, Written};
use crate::hub::{Mode, Retention};
use crate::payload::Decode;

/// Long enough for a reload of the page or a change of network, so that coming back costs no snapshot.
const LINGER: Duration = Duration::from_secs(30);
/// What an events channel keeps for those who come back: some minutes of a lively chat, and room for a few messages of
/// the largest size.
const RETAIN: Retention = Retention {
    messages: 256,
    bytes: 4 << 20,
    age: Duration::from_secs(300),
};
/// Larger values are seldom meant for a browser, and each is read again at every change.
const MAX_VALUE: u64 = 1 << 20;

const LINGER_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::ZERO..=Duration::from_secs(86_400),
    why: "a channel that nobody listens to costs memory until then",
};
const MESSAGES_BOUNDS: Bounds<usize> = Bounds {
    range: 1..=1_000_000,
    why: "the newest message must be kept for those who are about to take it, and each one costs memory",
};
const BYTES_BOUNDS: Bounds<u64> = Bounds {
    range: 1 << 10..=1 << 30,
    why: "this is kept in memory for every such channel, and a single message must fit",
};
const AGE_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=Duration::from_secs(86_400),
    why: "a client needs about a second to come back, and what is kept costs memory",
};
const MAX_VALUE_BOUNDS: Bounds<u64> = Bounds {
    range: 1..=64 << 20,
    why: "a value is held in memory as it was read and as it is sent; for what is larger, send its address",
};
const MIN_INTERVAL_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::ZERO..=Duration::from_secs(3600),
    why: "a client may see a change as late as this",
};
const POLL_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_millis(100)..=Duration::from_secs(3600),
    why: "every key of the mapping that somebody listens to is read this often, and a change may be seen as late",
};

/// Event names that look right and that no server sends, with what is sent in their place.
const NEVER_SENT: [(&str, &str); 25] = [
    ("change", ""),
    ("changed", ""),
    ("create", ""),
    ("decr", "incrby"),
    ("decrby", "incrby"),
    ("delete", "del"),
    ("expireat", "expire"),
    ("flushall", ""),
    ("flushdb", ""),
    ("getset", "set"),
    ("hmset", "hset"),
    ("hsetnx", "hset"),
    ("incr", "incrby"),
    ("lpushx", "lpush"),
    ("mset", "set"),
    ("pexpire", "expire"),
    ("psetex", "set"),
    ("rename", "rename_to"),
    ("rpushx", "rpush"),
    ("setex", "set"),
    ("setnx", "set"),
    ("swapdb", ""),
    ("unlink", "del"),
    ("update", ""),
    ("zincrby", "zincr"),
];

/// The form of a payload, without the templates it may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Raw,
    Template,
}

/// A template's text and its place.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) text: Written<String>,
    /// Where the file is named, if it stands in one of its own.
    pub(crate) named: Option<At>,
}

/// The options of a mapping, whole.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) on: Option<List>,
    pub(crate) event_name: Option<Arc<str>>,
    pub(crate) linger: Duration,
    pub(crate) snapshot: bool,
    pub(crate) retain: Retention,
    pub(crate) max_value: u64,
    pub(crate) min_interval: Duration,
    pub(crate) poll: Option<Duration>,
    pub(crate) expires: bool,
    pub(crate) heard: bool,
    pub(crate) fields: Option<Vec<String>>,
    pub(crate) decode: Decode,
    pub(crate) form: Form,
    /// Whether a template is named, readable or not.
    pub(crate) has_template: bool,
    pub(crate) template: Option<Template>,
    pub(crate) absent: Option<Template>,
    pub(crate) on_reset: Option<Template>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::State,
            on: None,
            event_name: None,
            linger: LINGER,
            snapshot: true,
            retain: RETAIN,
            max_value: MAX_VALUE,
            min_interval: Duration::ZERO,
            poll: None,
            expires: false,
            heard: false,
            fields: None,
            decode: Decode::None,
            form: Form::Json,
            has_template: false,
            template: None,
            absent: None,
            on_reset: None,
        }
    }
}

impl Compiler<'_> {
    /// What is written, over what counts where nothing is written. `section` is empty for a mapping.
    pub(crate) fn options(&mut self, section: &'static str, own: &MappingOptions, base: &Options) -> Options {
        let name = |option| Name { section, option };
        let retain = own.retain.as_ref();
        let bytes = self.size(
            name("retain.bytes"),
            retain.and_then(|retain| retain.bytes.as_ref()),
            base.retain.bytes as u64,
            &BYTES_BOUNDS,
        );
        Options {
            mode: self.word(
                name("mode"),
                own.mode.as_ref(),
                base.mode,
                &[("state", Mode::State), ("events", Mode::Events)],
            ),
            on: own
                .on
                .as_ref()
                .and_then(|list| self.event_names(name("on"), list))
                .or_else(|| base.on.clone()),
            event_name: own
                .event_name
                .as_ref()
                .and_then(|written| self.event_name(name("event_name"), written))
                .or_else(|| base.event_name.clone()),
            linger: self.duration(name("linger"), own.linger.as_ref(), base.linger, &LINGER_BOUNDS),
            snapshot: self.flag(name("snapshot"), own.snapshot.as_ref(), base.snapshot),
            retain: Retention {
                messages: self.number(
                    name("retain.messages"),
                    retain.and_then(|retain| retain.messages.as_ref()),
                    base.retain.messages,
                    &MESSAGES_BOUNDS,
                ),
                bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
                age: self.duration(
                    name("retain.age"),
                    retain.and_then(|retain| retain.age.as_ref()),
                    base.retain.age,
                    &AGE_BOUNDS,
                ),
            },
            max_value: self.size(
                name("max_value"),
                own.max_value.as_ref(),
                base.max_value,
                &MAX_VALUE_BOUNDS,
            ),
            min_interval: self.duration(
                name("min_interval"),
                own.min_interval.as_ref(),
                base.min_interval,
                &MIN_INTERVAL_BOUNDS,
            ),
            poll: self.duration_or_off(name("poll"), own.poll.as_ref(), base.poll, &POLL_BOUNDS),
            expires: self.flag(name("expires"), own.expires.as_ref(), base.expires),
            heard: self.flag(name("heard"), own.heard.as_ref(), base.heard),
            fields: own
                .fields
                .as_ref()
                .and_then(|list| self.fields(name("fields"), list))
                .or_else(|| base.fields.clone()),
            decode: self.word(
                name("decode"),
                own.decode.as_ref(),
                base.decode,
                &[("none", Decode::None), ("json", Decode::Json)],
            ),
            form: self.word(
                name("format"),
                own.format.as_ref(),
                base.form,
                &[("json", Form::Json), ("raw", Form::Raw), ("template", Form::Template)],
            ),
            has_template: own.template.is_some() || own.template_file.is_some() || base.has_template,
            template: self.template(section, own).or_else(|| base.template.clone()),
            absent: self
                .text_template(name("absent"), own.absent.as_ref())
                .or_else(|| base.absent.clone()),
            on_reset: self
                .text_template(name("on_reset"), own.on_reset.as_ref())
                .or_else(|| base.on_reset.clone()),
        }
    }

    fn text_template(&mut self, name: Name, written: Option<&Written<String>>) -> Option<Template> {
        let written = written?;
        self.note(name, written, "(a template)");
        Some(Template {
            text: written.clone(),
            named: None,
        })
    }

    /// The template of a change, from the config or from a file of its own.
    fn template(&mut self, section: &'static str, own: &MappingOptions) -> Option<Template> {
        let name = |option| Name { section, option };
        let Some(path) = &own.template_file else {
            return self.text_template(name("template"), own.template.as_ref());
        };
        if let Some(template) = &own.template {
            self.problems.add(
                Problem::new(path.at, "`template` and `template_file` are both given", "and here")
                    .and(template.at, "given here")
                    .why("a change is rendered by one template")
                    .instead("keep `template` or `template_file`"),
            );
            return None;
        }
        let file = self.file(path.at, &path.value);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                self.note(name("template_file"), path, format!("\"{}\"", path.value));
                let at = At::new(self.problems.sources.len(), 0..text.len());
                self.problems.sources.push(Source::new(file, text.clone()));
                let text = Written {
                    value: text,
                    at,
                    variables: Vec::new(),
                    verbatim: Some(0),
                };
                Some(Template {
                    text,
                    named: Some(path.at),
                })
            }
            Err(error) => {
                self.problems
                    .add(unreadable("template_file", path.at, &path.value, &error));
                None
            }
        }
    }

    fn event_names(&mut self, name: Name, list: &List) -> Option<List> {
        if list.value.is_empty() {
            self.problems.add(
                Problem::new(list.at, "`on` is empty", "no event")
                    .why("the mapping would never send anything")
                    .instead("name the events, e.g. on = [\"set\", \"del\"], or leave `on` out to take every event"),
            );
            return None;
        }
        for (position, event) in list.value.iter().enumerate() {
            let text = event.value.as_str();
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.:".contains(&byte);
            let never = NEVER_SENT.iter().find(|(name, _)| *name == text);
            if let Some(first) = list.value[..position].iter().find(|first| first.value == text) {
                self.problems.add(
                    Problem::new(event.at, format!("the event `{text}` is named twice"), "again here")
                        .and(first.at, "first here")
                        .instead("leave one out"),
                );
            } else if text.is_empty() || !text.bytes().all(plain) {
                let lower = text.to_ascii_lowercase();
                let problem = Problem::new(event.at, "not the name of an event", "servers send lower-case words")
                    .why("the name is that of a keyspace notification, e.g. set, del, expired, hset, lpush");
                self.problems.add(if !lower.is_empty() && lower.bytes().all(plain) {
                    problem.instead(format!("write \"{lower}\""))
                } else {
                    problem.instead("write e.g. on = [\"set\", \"del\"]")
                });
            } else if let Some((_, sent)) = never {
                let problem = Problem::new(event.at, format!("no server sends the event `{text}`"), "never sent");
                self.problems.add(if sent.is_empty() {
                    problem
                        .why("events are named after what a command does to one key: set, hset, del, expired …")
                        .instead("name those events, or leave `on` out to take every event")
                } else {
                    problem
                        .why("several commands do the same to a key, and their event is named after the plainest")
                        .instead(format!("write \"{sent}\""))
                });
            }
        }
        self.note(name, list, shown(list));
        Some(list.clone())
    }

    fn event_name(&mut self, name: Name, written: &Written<String>) -> Option<Arc<str>> {
        let text = written.value.as_str();
        let wrong = |label: &str, why: &str, instead: &str| {
            Some(
                Problem::new(written.at, "not a name for browser events", label)
                    .why(why)
                    .instead(instead),
            )
        };
        let problem = if text.is_empty() {
            wrong(
                "empty",
                "messages without a name are what `onmessage` hears",
                "leave `event_name` out",
            )
        } else if text.contains(['\r', '\n', '\0']) {
            wrong(
                "holds a line break or a NUL",
                "the name stands on a line of its own in the stream, and what follows would be taken for another field",
                "use a single word",
            )
        } else if text.starts_with("keyrelay.") {
            wrong(
                "begins with `keyrelay.`",
                "these names are kept for keyrelay's own events, such as keyrelay.ready",
                "choose another name",
            )
        } else if text == "error" || text == "open" {
            wrong(
                "a browser's own event",
                "an EventSource raises `open` and `error` by itself, and a listener could not tell which one it hears",
                "choose another name",
            )
        } else {
            None
        };
        if let Some(problem) = problem {
            self.problems.add(problem);
            return None;
        }
        self.note(name, written, format!("\"{text}\""));
        Some(text.into())
    }

    fn fields(&mut self, name: Name, list: &List) -> Option<Vec<String>> {
        if list.value.is_empty() {
            self.problems.add(
                Problem::new(list.at, "`fields` is empty", "no field")
                    .why("nothing of the value would be read or sent")
                    .instead("name the fields, e.g. fields = [\"name\", \"total\"], or leave `fields` out to send all"),
            );
            return None;
        }
        for (position, field) in list.value.iter().enumerate() {
            if let Some(first) = list.value[..position].iter().find(|first| first.value == field.value) {
                self.problems.add(
                    Problem::new(
                        field.at,
                        format!("the field `{}` is named twice", field.value),
                        "again here",
                    )
                    .and(first.at, "first here")
                    .instead("leave one out"),
                );
            }
        }
        self.note(name, list, shown(list));
        Some(list.value.iter().map(|field| field.value.clone()).collect())
    }
}

fn shown(list: &List) -> String {
    format!(
        "[{}]",
        list.value
            .iter()
            .map(|item| format!("\"{}\"", item.value))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

//! `[[mapping]]`: each one compiled to the rule that the mirror works by.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::compile::Compiler;
use super::diagnostics::{At, Problem};
use super::file::Mapping;
use super::options::{Form, Options, Template};
use super::reader::Written;
use crate::hub::Mode;
use crate::keyspace::EventName;
use crate::mapping::MappingId;
use crate::pattern::{BoundChannel, ChannelTemplate, KeyPattern, PatternError, Subject};
use crate::payload::{self, Renderer, TemplateError};
use crate::relay::Rule;
use crate::upstream::plan::may_be_a_key_event;

/// A mapping that could be compiled, with the places that later checks point to.
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    /// The channels that it can give.
    pub(crate) bound: BoundChannel,
    /// The pattern of keys or topics, as it was written.
    pub(crate) pattern: Written<String>,
    /// Where the channel's template stands: of a default one, the pattern.
    pub(crate) channel: At,
    /// Where the options stand in which mappings of one channel must agree; the header where nothing is written.
    pub(crate) mode: At,
    pub(crate) event_name: At,
    pub(crate) retain: At,
    pub(crate) snapshot: At,
}

/// What a mapping is about.
#[derive(Clone, Copy)]
struct Named<'m> {
    /// The option that holds the pattern.
    option: &'static str,
    subject: Subject,
    written: &'m Written<String>,
}

impl Compiler<'_> {
    /// Compiles one mapping; `None` if it has a problem that leaves nothing to go on with.
    pub(crate) fn mapping(
        &mut self,
        id: MappingId,
        mapping: &Mapping,
        defaults: &Options,
        files: &mut HashMap<usize, Arc<Path>>,
    ) -> Option<Compiled> {
        let own = &mapping.options;
        let before = self.problems.count();
        let mut options = self.options("", own, defaults);
        // Options that are wrong by themselves stand at their defaults, and nothing is to be concluded from those.
        let sound = self.problems.count() == before;
        if mapping.subscribe.is_some() {
            self.of_topics(mapping, &mut options);
        }
        let known = |word: &Option<Written<String>>| !word.as_ref().is_some_and(|word| self.problems.concern(word.at));
        if known(&own.mode) && known(&own.format) {
            self.contradictions(mapping, &options);
        }
        if sound && options.mode == Mode::Events {
            self.settle_linger(own, &mut options);
            self.room_for_a_message(mapping, &options);
        }
        let named = self.named(mapping);
        let pattern = named.and_then(|named| self.names(named));
        let channel = self.channel(mapping, named.zip(pattern.as_ref()));
        let access = self.ways(mapping, channel.as_ref().map(|(channel, _)| channel));
        // Without its captures, a template would seem to use variables that do not exist.
        let payload = pattern
            .as_ref()
            .and_then(|pattern| self.payload(mapping, &options, pattern.captures()));
        if !sound {
            return None;
        }
        let (named, pattern, (channel, bound)) = (named?, pattern?, channel?);
        let file = files
            .entry(mapping.at.source)
            .or_insert_with(|| self.problems.sources[mapping.at.source].path.as_path().into())
            .clone();
        let events = options.mode == Mode::Events;
        let rule = Rule {
            id,
            subject: named.subject,
            pattern,
            channel,
            access,
            mode: options.mode,
            on: options.on.filter(|_| events).map(|list| {
                list.value
                    .iter()
                    .map(|event| EventName::from_bytes(event.value.as_bytes()))
                    .collect()
            }),
            event_name: options.event_name,
            linger: options.linger,
            snapshot: options.snapshot && !events,
            retain: options.retain,
            max_value: options.max_value,
            min_interval: if events { Duration::ZERO } else { options.min_interval },
            poll: options.poll.filter(|_| !events),
            expires: options.expires,
            payload: payload?,
            file,
            line: self.problems.line(mapping.at),
        };
        let place = |at: Option<At>| at.unwrap_or(mapping.at);
        Some(Compiled {
            rule,
            bound,
            channel: mapping.channel.as_ref().map_or(named.written.at, |channel| channel.at),
            pattern: named.written.clone(),
            mode: place(own.mode.as_ref().map(|mode| mode.at)),
            event_name: place(own.event_name.as_ref().map(|name| name.at)),
            retain: place(own.retain.as_ref().map(|retain| retain.at)),
            snapshot: place(own.snapshot.as_ref().map(|snapshot| snapshot.at)),
        })
    }

    /// What the mapping is about: exactly one of `key` and `subscribe`.
    fn named<'m>(&mut self, mapping: &'m Mapping) -> Option<Named<'m>> {
        let named = |option, subject, written| Named {
            option,
            subject,
            written,
        };
        match (&mapping.key, &mapping.subscribe) {
            (Some(key), None) => return Some(named("key", Subject::Keys, key)),
            (None, Some(topics)) => return Some(named("subscribe", Subject::Topics, topics)),
            (Some(key), Some(topics)) => self.problems.add(
                Problem::new(topics.at, "`key` and `subscribe` are both given", "and here")
                    .and(key.at, "given here")
                    .why("a mapping takes either keys or the messages of Pub/Sub channels")
                    .instead(
                        "keep one of them, and give the other a [[mapping]] of its own; both may lead to one channel",
                    ),
            ),
            (None, None) if !mapping.has_pattern => self.problems.add(
                Problem::new(mapping.at, "a mapping without `key` or `subscribe`", "which keys?")
                    .why("a mapping says which keys, or which Pub/Sub channels, go to which channel")
                    .instead("add e.g. key = \"cart:{user}\", or subscribe = \"news:{topic}\""),
            ),
            (None, None) => {}
        }
        None
    }

    /// The pattern of a mapping, if it is sound.
    fn names(&mut self, named: Named<'_>) -> Option<KeyPattern> {
        let pattern = KeyPattern::parse(&named.written.value)
            .map_err(|error| self.pattern(named.option, named.written, error))
            .ok()?;
        if named.subject == Subject::Topics && may_be_a_key_event(&pattern) {
            self.problems.add(
                Problem::new(
                    named.written.at,
                    "`subscribe` takes the server's own channels",
                    "may begin with `__key`",
                )
                .why("there the server announces what happens to its keys, which only a mapping with `key` can open")
                .instead(
                    "begin it with text, e.g. subscribe = \"news:*\"; for key events, write `key` and mode = \"events\"",
                ),
            );
            return None;
        }
        Some(pattern)
    }

    /// The channel template of a mapping, if it is sound and fits the pattern.
    fn channel(
        &mut self,
        mapping: &Mapping,
        pattern: Option<(Named<'_>, &KeyPattern)>,
    ) -> Option<(ChannelTemplate, BoundChannel)> {
        let Some(written) = &mapping.channel else {
            let (named, pattern) = pattern?;
            let channel = pattern.default_channel();
            // The template is made of the pattern, and places in the one are none in the other.
            let whole = |error| PatternError {
                at: 0..named.written.value.len(),
                ..error
            };
            let bound = channel
                .bind(pattern, named.subject)
                .map_err(|error| self.pattern(named.option, named.written, whole(error)))
                .ok()?;
            return Some((channel, bound));
        };
        let channel = ChannelTemplate::parse(&written.value)
            .map_err(|error| self.pattern("channel", written, error))
            .ok()?;
        let (named, pattern) = pattern?;
        let bound = channel
            .bind(pattern, named.subject)
            .map_err(|error| self.pattern("channel", written, error))
            .ok()?;
        Some((channel, bound))
    }

    fn pattern(&mut self, option: &str, written: &Written<String>, error: PatternError) {
        self.problems.add(
            Problem::new(
                written.part(error.at),
                format!("`{option}` cannot be understood"),
                error.what,
            )
            .why(error.why)
            .instead(error.instead),
        );
    }

    fn payload(&mut self, mapping: &Mapping, options: &Options, captures: &[Arc<str>]) -> Option<Renderer> {
        let text = |template: &Option<Template>| template.as_ref().map(|template| template.text.value.clone());
        let raw = options.form == Form::Raw;
        if !self.captures_are_free(mapping, options, captures) {
            return None;
        }
        let format = match options.form {
            Form::Json => payload::Format::Json,
            Form::Raw => payload::Format::Raw {
                absent: text(&options.absent),
                on_reset: text(&options.on_reset),
            },
            Form::Template => payload::Format::Template {
                change: text(&options.template)?,
                absent: text(&options.absent),
                on_reset: text(&options.on_reset),
            },
        };
        let made = Renderer::new(
            payload::Options {
                format,
                decode: if raw { payload::Decode::None } else { options.decode },
                fields: options.fields.clone().filter(|_| !raw),
                expires: options.expires,
                heard: options.heard,
                max_value: options.max_value,
            },
            captures,
        );
        match made {
            Ok(renderer) => Some(renderer),
            Err(errors) => {
                for error in errors {
                    self.template_error(mapping, options, error);
                }
                None
            }
        }
    }

    /// Whether no capture has the name of a variable that every template has.
    fn captures_are_free(&mut self, mapping: &Mapping, options: &Options, captures: &[Arc<str>]) -> bool {
        let uses_templates = options.form == Form::Template || options.absent.is_some() || options.on_reset.is_some();
        let written = mapping.key.as_ref().or(mapping.subscribe.as_ref());
        let (true, Some(pattern)) = (uses_templates && options.form != Form::Json, written) else {
            return true;
        };
        let mut free = true;
        for name in captures.iter().filter(|name| payload::RESERVED.contains(&&***name)) {
            let start = pattern.value.find(&format!("{{{name}")).map_or(0, |brace| brace + 1);
            self.problems.add(
                Problem::new(
                    pattern.part(start..start + name.len()),
                    format!("the capture `{name}` hides a variable"),
                    "a variable of every template",
                )
                .why(format!(
                    "every template has the variables {}",
                    payload::RESERVED.join(", ")
                ))
                .instead("give the capture another name"),
            );
            free = false;
        }
        free
    }

    fn template_error(&mut self, mapping: &Mapping, options: &Options, error: TemplateError) {
        let template = match error.which {
            "absent" => &options.absent,
            "on_reset" => &options.on_reset,
            _ => &options.template,
        };
        let (at, named) = match template {
            Some(template) => (template.text.part(error.at), template.named),
            None => (mapping.at, None),
        };
        let option = if named.is_some() { "template_file" } else { error.which };
        let problem = Problem::new(
            at,
            format!("`{option}` is not a template that can be rendered"),
            error.what,
        )
        .why(error.why)
        .instead(error.instead);
        let problem = match named {
            Some(named) => problem.and(named, "named here"),
            None => problem,
        };
        // A template of the defaults is wrong once, however many mappings take it.
        if !self.problems.contains(&problem) {
            self.problems.add(problem);
        }
    }
}

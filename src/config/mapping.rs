//! `[[mapping]]`: each one compiled, and what contradicts itself within one reported.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::compile::Compiler;
use super::diagnostics::{At, Problem};
use super::file::{Access, Mapping, MappingOptions};
use super::options::{Form, Options, Template};
use super::reader::Written;
use crate::hub::Mode;
use crate::keyspace::EventName;
use crate::mapping::MappingId;
use crate::pattern::{BoundChannel, ChannelTemplate, KeyPattern, PatternError};
use crate::payload::{self, Renderer, TemplateError};
use crate::relay::Rule;

/// A mapping that could be compiled, with the places that later checks point to.
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    /// The channels that it can give.
    pub(crate) bound: BoundChannel,
    pub(crate) key: Written<String>,
    /// Where the channel's template stands: of a default one, the key pattern.
    pub(crate) channel: At,
    /// Where the options stand in which mappings of one channel must agree; the header where nothing is written.
    pub(crate) mode: At,
    pub(crate) event_name: At,
    pub(crate) retain: At,
    pub(crate) snapshot: At,
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
        self.access(mapping);
        let mut options = self.options("", own, defaults);
        self.contradictions(own, &options);
        if options.mode == Mode::Events {
            self.settle_linger(own, &mut options);
        }
        let patterns = self.patterns(mapping);
        let payload = self.payload(
            mapping,
            &options,
            patterns.as_ref().map_or(&[], |(pattern, ..)| pattern.captures()),
        );
        let (pattern, channel, bound) = patterns?;
        let key = mapping.key.clone()?;
        let file = files
            .entry(mapping.at.source)
            .or_insert_with(|| self.problems.sources[mapping.at.source].path.as_path().into())
            .clone();
        let events = options.mode == Mode::Events;
        let rule = Rule {
            id,
            pattern,
            channel,
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
            min_interval: if events {
                std::time::Duration::ZERO
            } else {
                options.min_interval
            },
            expires: options.expires,
            payload: payload?,
            file,
            line: self.problems.line(mapping.at),
        };
        let place = |at: Option<At>| at.unwrap_or(mapping.at);
        Some(Compiled {
            rule,
            bound,
            channel: mapping.channel.as_ref().map_or(key.at, |channel| channel.at),
            key,
            mode: place(own.mode.as_ref().map(|mode| mode.at)),
            event_name: place(own.event_name.as_ref().map(|name| name.at)),
            retain: place(own.retain.as_ref().map(|retain| retain.at)),
            snapshot: place(own.snapshot.as_ref().map(|snapshot| snapshot.at)),
        })
    }

    fn access(&mut self, mapping: &Mapping) {
        const WHY: &str =
            "access control comes with a later release; until then a mapping is either open to everyone or not there";
        const INSTEAD: &str = "write access = \"public\" if everyone who can reach keyrelay may read these keys; otherwise leave the mapping out";
        let refuse = |title: &str, at: At, label: &str| Problem::new(at, title, label).why(WHY).instead(INSTEAD);
        let problem = match &mapping.access {
            None => refuse("the mapping does not say who may read it", mapping.at, "no `access`"),
            Some(Written {
                value: Access::Wrong, ..
            }) => return,
            Some(Written {
                value: Access::Rules,
                at,
                ..
            }) => refuse(
                "rules over tokens are not in this release",
                *at,
                "cannot be checked yet",
            ),
            Some(Written {
                value: Access::Word(word),
                at,
                ..
            }) => match word.as_str() {
                "public" => return,
                "signed-in" | "listed" => refuse(
                    &format!("access = \"{word}\" is not in this release"),
                    *at,
                    "cannot be checked yet",
                ),
                _ => refuse(
                    "not a kind of access",
                    *at,
                    "the only one in this release is \"public\"",
                ),
            },
        };
        self.problems.add(problem);
    }

    /// The key pattern and the channel template of a mapping, if both are sound and fit together.
    fn patterns(&mut self, mapping: &Mapping) -> Option<(KeyPattern, ChannelTemplate, BoundChannel)> {
        let written = mapping.channel.as_ref().map(|channel| {
            ChannelTemplate::parse(&channel.value)
                .map_err(|error| self.pattern("channel", channel, error))
                .ok()
        });
        let Some(key) = &mapping.key else {
            if !mapping.has_key {
                self.problems.add(
                    Problem::new(mapping.at, "a mapping without `key`", "which keys?")
                        .why("a mapping says which keys go to which channel")
                        .instead("add e.g. key = \"cart:{user}\""),
                );
            }
            return None;
        };
        let pattern = KeyPattern::parse(&key.value).map_err(|error| self.pattern("key", key, error));
        let channel = match written {
            Some(channel) => channel,
            None => pattern.as_ref().ok().map(KeyPattern::default_channel),
        };
        let (pattern, channel) = (pattern.ok()?, channel?);
        match channel.bind(&pattern) {
            Ok(bound) => Some((pattern, channel, bound)),
            Err(error) => {
                match &mapping.channel {
                    Some(written) => self.pattern("channel", written, error),
                    // The default is the key pattern itself, whose text need not be that of the template.
                    None => self.pattern(
                        "key",
                        key,
                        PatternError {
                            at: 0..key.value.len(),
                            ..error
                        },
                    ),
                }
                None
            }
        }
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

    /// Options of one mapping that cannot go together. Only what the mapping itself says can contradict: a default
    /// that does not fit simply does not apply.
    fn contradictions(&mut self, own: &MappingOptions, options: &Options) {
        let only = |option: &str, at: At, mode: &str, why: &str, instead: &str| {
            Problem::new(at, format!("`{option}` is for {mode} mode"), "has no effect here")
                .why(why)
                .instead(instead)
        };
        let events = options.mode == Mode::Events;
        if let (false, Some(on)) = (events, &own.on) {
            self.problems.add(only(
                "on",
                on.at,
                "events",
                "in state mode a key is sent whenever its value differs, whatever the event was called",
                "leave it out, or add mode = \"events\"",
            ));
        }
        if let (false, Some(retain)) = (events, &own.retain) {
            self.problems.add(only(
                "retain",
                retain.at,
                "events",
                "in state mode the newest value of each key is kept, and nothing older",
                "leave it out, or add mode = \"events\"",
            ));
        }
        if let (true, Some(snapshot)) = (events, &own.snapshot) {
            self.problems.add(only(
                "snapshot",
                snapshot.at,
                "state",
                "an events channel has no current value that could be sent first",
                "leave it out",
            ));
        }
        if let (true, Some(interval)) = (events, &own.min_interval) {
            self.problems.add(only(
                "min_interval",
                interval.at,
                "state",
                "in events mode every event is delivered, however close it follows another",
                "leave it out",
            ));
        }
        self.form(own, options);
    }

    fn form(&mut self, own: &MappingOptions, options: &Options) {
        let word = match options.form {
            Form::Json => "json",
            Form::Raw => "raw",
            Form::Template => "template",
        };
        let given = own
            .template
            .as_ref()
            .or(own.template_file.as_ref())
            .map(|template| template.at);
        if let (Form::Json | Form::Raw, Some(at)) = (options.form, given) {
            self.problems.add(
                Problem::new(at, "a template that is not used", format!("the format is {word}"))
                    .why("a template renders a change only with format = \"template\"")
                    .instead("add format = \"template\""),
            );
        }
        if let (Form::Template, None, None, Some(format)) =
            (options.form, &options.template, given, own.format.as_ref())
        {
            self.problems.add(
                Problem::new(
                    format.at,
                    "a template is missing",
                    "needs `template` or `template_file`",
                )
                .why("this format sends what a template makes of a change")
                .instead("add e.g. template = \"<li id=\\\"{{ key }}\\\">{{ value }}</li>\""),
            );
        }
        for (option, written) in [("absent", &own.absent), ("on_reset", &own.on_reset)] {
            if let (Form::Json, Some(written)) = (options.form, written) {
                self.problems.add(
                    Problem::new(written.at, format!("`{option}` is not used"), "the format is json")
                        .why("JSON says by itself that a key is gone: its value is null; and clients hear keyrelay.reset")
                        .instead("leave it out, or choose format = \"template\" or \"raw\""),
                );
            }
        }
        if options.form != Form::Raw {
            return;
        }
        let not_raw = |option: &str, at: At| {
            Problem::new(
                at,
                format!("`{option}` and format = \"raw\" do not go together"),
                "has no effect here",
            )
            .why("raw sends a string as it is, without looking into it")
            .instead("leave it out, or leave `format` out to send JSON")
        };
        if let Some(fields) = &own.fields {
            self.problems.add(not_raw("fields", fields.at));
        }
        if let Some(decode) = own.decode.as_ref().filter(|decode| decode.value == "json") {
            self.problems.add(not_raw("decode", decode.at));
        }
        if let Some(expires) = own.expires.as_ref().filter(|expires| expires.value) {
            self.problems.add(not_raw("expires", expires.at));
        }
    }

    /// An events channel must stay as long as what it keeps, or those who come back would find nothing.
    fn settle_linger(&mut self, own: &MappingOptions, options: &mut Options) {
        let age = options.retain.age;
        if let Some(linger) = own.linger.as_ref().filter(|_| options.linger < age) {
            let shown = super::units::show_duration(age);
            let problem = Problem::new(
                linger.at,
                "`linger` is shorter than `retain.age`",
                format!("less than {shown}"),
            );
            let written = own.retain.as_ref().and_then(|retain| retain.age.as_ref());
            let problem = match written {
                Some(age) => problem.and(age.at, "messages are kept this long"),
                None => problem.why(format!("messages are kept {shown} unless `retain` says otherwise")),
            };
            self.problems.add(
                problem
                    .why("a channel that goes before its messages do would lose them for those who come back")
                    .instead(format!(
                        "write linger = \"{shown}\" or more, leave it out, or shorten `retain.age`"
                    )),
            );
        }
        options.linger = options.linger.max(age);
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
        let (true, Some(key)) = (uses_templates && options.form != Form::Json, &mapping.key) else {
            return true;
        };
        let mut free = true;
        for name in captures.iter().filter(|name| payload::RESERVED.contains(&&***name)) {
            let start = key.value.find(&format!("{{{name}")).map_or(0, |brace| brace + 1);
            self.problems.add(
                Problem::new(
                    key.part(start..start + name.len()),
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
        let (option, at, place) = match template {
            Some(Template { text, file: Some(file) }) => (
                "template_file",
                text.at,
                format!("{file}:{}: {}", error.line, error.what),
            ),
            Some(Template { text, file: None }) => (error.which, text.part(error.at), error.what),
            None => (error.which, mapping.at, error.what),
        };
        self.problems.add(
            Problem::new(at, format!("`{option}` is not a template that can be rendered"), place)
                .why(error.why)
                .instead(error.instead),
        );
    }
}

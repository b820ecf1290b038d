//! Options of one mapping that contradict each other.

use super::compile::Compiler;
use super::diagnostics::{At, Problem};
use super::file::{Mapping, MappingOptions};
use super::options::{Form, Options};
use super::units;
use crate::hub::Mode;
use crate::pattern::ChannelTemplate;
use crate::payload::Decode;

impl Compiler<'_> {
    /// Options of one mapping that cannot go together. Only what the mapping itself says can contradict: a default
    /// that does not fit simply does not apply.
    pub(crate) fn contradictions(&mut self, mapping: &Mapping, options: &Options) {
        let own = &mapping.options;
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
        if let (true, Some(poll)) = (events, &own.poll) {
            self.problems.add(only(
                "poll",
                poll.at,
                "state",
                "what a poll finds is a value and no event: nobody knows what happened to the key, nor how often",
                "leave it out",
            ));
        }
        self.form(mapping, options);
    }

    /// What is published has no state, no event's name and no expiry; what it is decided by stands in the message.
    pub(crate) fn of_topics(&mut self, mapping: &Mapping, options: &mut Options) {
        let own = &mapping.options;
        let template = mapping
            .channel
            .as_ref()
            .map(|channel| ChannelTemplate::parse(&channel.value));
        let by_field = template.is_some_and(|template| template.is_ok_and(|template| template.has_fields()));
        if own.decode.is_none() && (by_field || options.fields.is_some()) {
            options.decode = Decode::Json;
        }
        let refused = |option: &str, at: At, why: &str| {
            Problem::new(
                at,
                format!("`{option}` and `subscribe` do not go together"),
                "has no effect here",
            )
            .why(why)
            .instead("leave it out")
        };
        if let Some(mode) = own.mode.as_ref().filter(|mode| mode.value == "state") {
            self.problems.add(
                Problem::new(mode.at, "`subscribe` is always in events mode", "cannot be a state")
                    .why("what is published is gone once it was heard: there is no value that could be read again")
                    .instead("leave `mode` out, or write the message to a key as well and map that"),
            );
        }
        if let Some(on) = &own.on {
            let why = "a published message has no event's name by which it could be chosen";
            self.problems.add(refused("on", on.at, why));
        }
        if let Some(expires) = own.expires.as_ref().filter(|expires| expires.value) {
            let why = "a published message does not expire";
            self.problems.add(refused("expires", expires.at, why));
        }
        if let Some(absent) = &own.absent {
            let why = "a published message is never told to be gone";
            self.problems.add(refused("absent", absent.at, why));
        }
        if let (Some(fields), Some(decode)) = (&own.fields, own.decode.as_ref().filter(|word| word.value == "none")) {
            self.problems.add(
                Problem::new(decode.at, "`fields` of a message that is not decoded", "leaves it text")
                    .and(fields.at, "chosen here")
                    .why("a message is text, and has fields only if it is read as JSON")
                    .instead("leave `decode` out"),
            );
        }
        options.mode = Mode::Events;
        options.on = None;
        options.expires = false;
    }

    fn form(&mut self, mapping: &Mapping, options: &Options) {
        let own = &mapping.options;
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
        if options.form == Form::Template && !options.has_template {
            let at = own.format.as_ref().map_or(mapping.at, |format| format.at);
            self.problems.add(
                Problem::new(at, "a template is missing", "needs `template` or `template_file`")
                    .why("format = \"template\" sends what a template makes of a change")
                    .instead("add e.g. template = \"<li id=\\\"{{ key }}\\\">{{ value }}</li>\""),
            );
        }
        for (option, written) in [("absent", &own.absent), ("on_reset", &own.on_reset)] {
            if let (Form::Json, Some(written)) = (
                options.form,
                written.as_ref().filter(|it| !self.problems.concern(it.at)),
            ) {
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
        if let Some(expires) = own
            .expires
            .as_ref()
            .filter(|it| it.value && !self.problems.concern(it.at))
        {
            self.problems.add(not_raw("expires", expires.at));
        }
        if let Some(heard) = own.heard.as_ref().filter(|it| it.value) {
            self.problems.add(not_raw("heard", heard.at));
        }
    }

    /// An events channel must stay as long as what it keeps, or those who come back would find nothing.
    pub(crate) fn settle_linger(&mut self, own: &MappingOptions, options: &mut Options) {
        let age = options.retain.age;
        if let Some(linger) = own.linger.as_ref().filter(|_| options.linger < age) {
            let shown = units::show_duration(age);
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

    /// A message that is larger than all that a channel may keep would be dropped as soon as it came.
    pub(crate) fn room_for_a_message(&mut self, mapping: &Mapping, options: &Options) {
        let bytes = options.retain.bytes as u64;
        if options.max_value <= bytes {
            return;
        }
        let (largest, kept) = (units::show_size(options.max_value), units::show_size(bytes));
        let max_value = mapping.options.max_value.as_ref().map(|size| size.at);
        let retain = mapping
            .options
            .retain
            .as_ref()
            .and_then(|retain| retain.bytes.as_ref())
            .map(|size| size.at);
        let title = "`max_value` is larger than `retain.bytes`";
        let problem = match (max_value, retain) {
            (Some(value), Some(retain)) => Problem::new(value, title, "a message may be as large as this")
                .and(retain, "and a channel keeps no more than this"),
            (Some(value), None) => Problem::new(value, title, format!("a channel keeps no more than {kept}")),
            (None, Some(retain)) => Problem::new(retain, title, format!("a message may be as large as {largest}")),
            (None, None) => Problem::new(mapping.at, title, format!("by the defaults: {largest} and {kept}")),
        };
        self.problems.add(
            problem
                .why("a message that does not fit into what is kept would be lost at once")
                .instead(format!(
                    "write retain = {{ bytes = \"{largest}\" }} or more, or max_value = \"{kept}\" or less"
                )),
        );
    }
}

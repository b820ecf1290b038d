//! `access` of a mapping: in which ways one may be allowed to read its channels.

use std::sync::Arc;

use super::compile::Compiler;
use super::diagnostics::Problem;
use super::file::{Claim, Mapping, WrittenAccess};
use super::reader::Written;
use super::words;
use crate::hub::Way;
use crate::pattern::{ChannelTemplate, PatternError};

const WORDS: [&str; 3] = ["public", "signed-in", "listed"];

/// What can be written, for those who wrote something else.
const FORMS: &str = "\"public\" (everyone), \"signed-in\" (any valid token), \"listed\" (the token lists the channel), \
                     { sub = \"{user}\" } (the token's claims), or a list of these, of which one suffices";

impl Compiler<'_> {
    /// The ways of a mapping; none if it says nothing, and nobody may read it then. `channel`: the template of its
    /// channels, if it is sound.
    pub(crate) fn ways(&mut self, mapping: &Mapping, channel: Option<&ChannelTemplate>) -> Vec<Way<ChannelTemplate>> {
        let Some(access) = &mapping.access else {
            return Vec::new();
        };
        let mut ways = Vec::new();
        self.gather(access, channel, &mut ways);
        ways
    }

    fn gather(
        &mut self,
        access: &Written<WrittenAccess>,
        channel: Option<&ChannelTemplate>,
        ways: &mut Vec<Way<ChannelTemplate>>,
    ) {
        match &access.value {
            WrittenAccess::Wrong => {}
            WrittenAccess::Word(word) => ways.extend(self.way(access, word)),
            WrittenAccess::Claims(claims) if claims.is_empty() => self.problems.add(
                Problem::new(access.at, "`access` asks for no claim", "an empty table")
                    .why("every token would have all of no claims")
                    .instead("write \"signed-in\" for any valid token, or name a claim: { sub = \"{user}\" }"),
            ),
            WrittenAccess::Claims(claims) => {
                let claims = claims.iter().filter_map(|claim| self.claim(claim, channel)).collect();
                ways.push(Way::Claims(claims));
            }
            WrittenAccess::AnyOf(list) if list.is_empty() => self.problems.add(
                Problem::new(access.at, "`access` is an empty list", "no way in")
                    .why("each entry is a way to be allowed to read; where there is none, nobody may")
                    .instead(format!("write {FORMS}; or leave `access` out, and nobody may read")),
            ),
            WrittenAccess::AnyOf(list) => list.iter().for_each(|access| self.gather(access, channel, ways)),
        }
    }

    fn way(&mut self, access: &Written<WrittenAccess>, word: &str) -> Option<Way<ChannelTemplate>> {
        match word {
            "public" => return Some(Way::Public),
            "signed-in" => return Some(Way::SignedIn),
            "listed" => return Some(Way::Listed),
            _ => {}
        }
        let problem = Problem::new(access.at, "`access` does not take this word", "not a kind of access");
        self.problems.add(match words::nearest(word, WORDS) {
            Some(near) => problem.instead(format!("did you mean \"{near}\"?")),
            None => problem.instead(format!("write {FORMS}")),
        });
        None
    }

    fn claim(&mut self, claim: &Claim, channel: Option<&ChannelTemplate>) -> Option<(Arc<str>, ChannelTemplate)> {
        let text = &claim.text;
        let template = ChannelTemplate::parse(&text.value)
            .map_err(|PatternError { at, what, why, instead }| {
                let problem = Problem::new(text.part(at), "what a claim must hold cannot be understood", what);
                self.problems.add(problem.why(why).instead(instead));
            })
            .ok()?;
        let channel = channel?;
        let told: Vec<&str> = channel.captures().map(|name| &**name).collect();
        let missing = template.captures().find(|name| !told.contains(&&***name)).cloned();
        if missing.is_none() && !template.has_fields() {
            return Some((claim.name.as_str().into(), template));
        }
        let (title, label) = match missing {
            Some(name) => (
                format!("`{name}` is not part of the channel's name"),
                "a claim is compared with what the name of a channel tells",
            ),
            None => (
                "a claim cannot be compared with a field of a message".to_owned(),
                "messages come after a client was let in",
            ),
        };
        self.problems.add(
            Problem::new(text.at, title, label)
                .why(match told.as_slice() {
                    [] => format!("the channel `{channel}` has no captures"),
                    _ => format!("the channel `{channel}` tells {}", braces(&told)),
                })
                .instead(
                    "use one of these, put the capture into `channel`, or write access = \"listed\" and have the \
                          token list its channels",
                ),
        );
        None
    }
}

fn braces(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
    names.join(", ")
}

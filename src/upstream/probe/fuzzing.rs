//! Replies to what a check asks.

use redis_protocol::resp3::types::OwnedFrame;

use super::{Answer, rights::Refusal, server};
use crate::upstream::{Info, link::answer};

/// What a check says of each of them is one line.
pub(in crate::upstream) fn answers(replies: impl Iterator<Item = OwnedFrame>) {
    for reply in replies {
        let text = match answer(reply) {
            Err(message) => {
                Refusal::of(&message);
                continue;
            }
            Ok(reply) => Answer::Reply(reply).text(),
        };
        let Some(text) = text else { continue };
        let info = Info::from_bytes(text.as_bytes());
        let mut findings = server::account(&info, true);
        findings.extend(server::account(&info, false));
        findings.push(server::buffer(Some(&text), "redis-cli"));
        for finding in findings {
            assert!(!finding.says.contains('\n'), "{:?}", finding.says);
        }
    }
}

//! Replies to what a feed asks.

use std::{collections::VecDeque, time::Duration};

use redis_protocol::resp3::types::OwnedFrame;
use tokio::time::Instant;

use super::{
    look,
    watch::{Connection, Finding, Watch},
};
use crate::{keyspace::flags, upstream::link::answer};

/// Takes the replies as those to one look after the other.
pub(in crate::upstream) fn answers(replies: impl Iterator<Item = OwnedFrame>) {
    let mut now = Instant::now();
    let connection = Connection {
        run_id: "run".into(),
        id: 5,
        signalled: false,
        setting: true,
    };
    let mut watch = Watch::new(connection, now);
    let mut open = VecDeque::new();
    for reply in replies {
        look::connection_id(reply.clone());
        if open.is_empty() {
            // Late enough that what was refused is asked again.
            now += Duration::from_secs(61);
            open = watch.look(now).into();
        }
        let question = open.pop_front().expect("there is always something to ask");
        for finding in watch.take(question, answer(reply), now + Duration::from_millis(1)) {
            if let Finding::Setting(setting) = &finding
                && let Some(united) = flags::missing(setting)
            {
                assert_eq!(flags::missing(&united), None);
            }
        }
        assert_eq!(watch.next().is_some(), open.is_empty());
    }
}

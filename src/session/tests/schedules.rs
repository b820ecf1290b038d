//! Random schedules of writes, blocks, resumes and changes of the list, against a plain model.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Write { channel: usize, key: u8, absent: bool },
    Commit,
    Pull(usize),
    Block,
    Reconnect,
    AddChannel,
    DropChannel,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0usize..3, 0u8..6, prop::bool::weighted(0.3)).prop_map(|(channel, key, absent)| Act::Write { channel, key, absent }),
        4 => Just(Act::Commit),
        6 => (0usize..5).prop_map(Act::Pull),
        2 => Just(Act::Block),
        1 => Just(Act::Reconnect),
        1 => Just(Act::AddChannel),
        1 => Just(Act::DropChannel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However a client is cut off, blocked, or changes its channels: at rest it shows what is there, no key went back,
    /// nothing came twice on one connection, no happening was passed over.
    #[test]
    fn every_schedule_ends_with_the_truth(acts in prop::collection::vec(act(), 1..120)) {
        const NAMES: [&str; 3] = ["a", "b", "e"];
        let mut world = World::new();
        let keep: Vec<Subscription> = NAMES.iter().map(|name| world.open(name)).collect();
        let logs: Vec<Arc<Log>> = keep.iter().map(|s| s.log().clone()).collect();
        let mut truth: Vec<BTreeMap<String, String>> = vec![BTreeMap::new(); 3];
        let mut happened: Vec<u64> = Vec::new();
        let mut listed: Vec<&str> = vec!["a", "e"];
        let mut client = Client::default();
        let mut watermark = world.commit();
        let mut session = Session::new(7);
        let from = world.appender.hub().watermark();
        for name in &listed {
            session.subscribe(world.hub.subscribe(name, true).unwrap(), Start::New, watermark, None);
        }
        let (mut value, mut unknown) = (0, 0);
        for act in acts {
            match act {
                Act::Write { channel, key, absent } => {
                    value += 1;
                    let absent = absent && channel != 2;
                    world.put(&logs[channel], &key.to_string(), (!absent).then_some(value));
                    match absent {
                        true => truth[channel].remove(&key.to_string()),
                        false => truth[channel].insert(key.to_string(), value.to_string()),
                    };
                }
                Act::Commit => watermark = world.commit(),
                Act::Pull(most) => {
                    client.pull(&mut session, watermark, most);
                }
                Act::Block => session.fall_behind(session.cursor()),
                Act::Reconnect => {
                    session = Session::new(7);
                    client.shown.clear();
                    client.last_id = 0;
                    if let Some(seen) = client.events.get_mut("e") {
                        // What came without id comes again: the client resumes from its cursor.
                        let cursor = client.cursor.as_deref().and_then(Cursor::parse).map_or(0, |c| c.sequence);
                        seen.retain(|&sequence| sequence <= cursor);
                    }
                    let start = start(&client, &listed);
                    // A `ready` from before the list changed is of another set: the channels are reset and told whole.
                    unknown += usize::from(start == Start::Unknown);
                    for name in &listed {
                        if !matches!(start, Start::Resume(_)) {
                            client.events.remove(*name);
                        }
                        if start == Start::New {
                            client.state.remove(*name);
                        }
                        session.subscribe(world.hub.subscribe(name, true).unwrap(), start, watermark, None);
                    }
                }
                Act::AddChannel if !listed.contains(&"b") => {
                    listed.push("b");
                    let subscription = world.hub.subscribe("b", true).unwrap();
                    session.subscribe(subscription, Start::New, session.cursor(), Some(1));
                    client.cursor = None;
                    client.shown.retain(|(channel, _), _| channel != "b");
                }
                Act::DropChannel if listed.contains(&"b") => {
                    listed.retain(|name| *name != "b");
                    session.unsubscribe("b");
                    session.announce_rest(session.cursor(), None);
                    client.state.remove("b");
                    client.cursor = None;
                }
                Act::AddChannel | Act::DropChannel => {}
            }
        }
        watermark = world.commit();
        client.pull(&mut session, watermark, usize::MAX);
        prop_assert!(session.is_live());
        for (at, name) in NAMES[..2].iter().enumerate().filter(|(_, name)| listed.contains(name)) {
            prop_assert_eq!(client.state.get(*name).cloned().unwrap_or_default(), truth[at].clone(), "{}", name);
        }
        logs[2].view().since(from, u64::MAX, |message| happened.push(message.sequence));
        let seen = client.events.get("e").cloned().unwrap_or_default();
        prop_assert!(happened.ends_with(&seen), "{:?} of {:?}", seen, happened);
        prop_assert!(client.gaps <= unknown, "a gap is told only for an unknown cursor");
    }
}

//! State channels: one read per change, none forgotten, none for those who do not listen.

use super::*;

#[test]
fn a_key_is_read_when_somebody_comes_and_when_it_changes() {
    let mut world = World::new(&[("cart:{user}", "cart:{user}")]);
    world.hold("cart:1", "a");
    world.set("cart:2", "nobody listens");
    assert_eq!(world.asked(), [""; 0]);

    let mut client = world.subscribe("cart:1");
    assert!(!client.is_filled(&world));
    world.answer();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["cart:1=a"]);

    world.pass(5);
    world.set("cart:1", "b");
    world.answer();
    assert_eq!(client.news(&world), ["cart:1=b!set"]);
    world.pass(5);
    world.del("cart:1");
    world.answer();
    assert_eq!(client.news(&world), ["cart:1=-!del"]);
    assert_eq!(world.asked(), ["cart:1"; 3]);
}

#[test]
fn an_absent_key_is_part_of_a_one_key_channel() {
    let mut world = World::new(&[("cart:{user}", "cart:{user}")]);
    let mut client = world.subscribe("cart:1");
    world.run();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["cart:1=-"]);
    world.set("cart:1", "a");
    world.run();
    assert_eq!(client.news(&world), ["cart:1=a!set"]);
}

#[test]
fn an_equal_value_is_not_sent_again() {
    let mut world = World::new(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    client.news(&world);
    world.set("k", "a");
    world.run();
    assert_eq!(client.news(&world), [""; 0]);
}

#[test]
fn an_event_during_the_read_means_one_more_read() {
    let mut world = World::new(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    // The read in flight has seen "a".
    world.set("k", "b");
    world.set("k", "c");
    assert_eq!(world.asked(), ["k"]);
    world.answer();
    world.pass(1);
    world.answer();
    assert_eq!(client.news(&world), ["k=c!set"]);
    assert_eq!(world.asked(), ["k"]);
    assert!(world.reads.is_empty());
}

#[test]
fn reads_of_a_key_keep_their_distance_and_the_last_value_comes() {
    let mut rule = rule(0, "k", "k");
    rule.min_interval = Duration::from_millis(100);
    let mut world = World::of(vec![rule]);
    world.up();
    let mut client = world.subscribe("k");
    world.answer();
    world.set("k", "a");
    world.set("k", "b");
    world.pass(99);
    assert_eq!(world.asked(), ["k"]);
    assert_eq!(
        world.mirror.next_wake(),
        Some(world.now.mono + Duration::from_millis(1))
    );
    world.pass(1);
    world.answer();
    assert_eq!(client.news(&world), ["k=b!set"]);
}

#[test]
fn a_type_that_cannot_be_read_voids_the_slot() {
    let mut world = World::new(&[("k", "k")]);
    world.hold("k", "a");
    let mut client = world.subscribe("k");
    world.run();
    assert_eq!(client.news(&world), ["k=a"]);
    world.broken = Some(ReadErrorKind::Unsupported);
    world.set("k", "x");
    world.run();
    assert_eq!(
        client.news(&world),
        ["k=-!set"],
        "or the client would go on showing the old one"
    );
    assert!(client.is_filled(&world));
    world.broken = None;
    world.set("k", "a");
    world.run();
    assert_eq!(client.news(&world), ["k=a!set"]);
}

#[test]
fn who_lingers_is_not_read_for_until_somebody_returns() {
    let mut world = World::new(&[("k", "k")]);
    world.hold("k", "a");
    let client = world.subscribe("k");
    let log = client.subscription.log().clone();
    world.run();
    drop(client);
    world.step();
    world.set("k", "b");
    world.set("k", "c");
    world.run();
    assert_eq!(world.asked(), ["k"]);

    let mut client = world.subscribe("k");
    assert!(Arc::ptr_eq(client.subscription.log(), &log));
    assert!(!client.is_filled(&world), "what was put off must be read first");
    world.run();
    assert!(client.is_filled(&world));
    assert_eq!(client.news(&world), ["k=c!set"]);
    assert_eq!(world.asked(), ["k"]);
}

#[test]
fn who_returns_before_it_was_noticed_is_served_at_once() {
    let mut world = World::new(&[("k", "k")]);
    let client = world.subscribe("k");
    world.run();
    drop(client);
    let client = world.subscribe("k");
    assert!(client.is_filled(&world));
}

#[test]
fn after_the_linger_everything_is_forgotten() {
    let mut world = World::new(&[("k", "k"), ("many:{id}", "many")]);
    world.hold("many:1", "a");
    let clients = [world.subscribe("k"), world.subscribe("many")];
    world.run();
    drop(clients);
    world.step();
    world.pass(29_999);
    assert_eq!(world.hub.channels(), 2);
    world.pass(2);
    world.pass(2);
    assert_eq!(world.hub.channels(), 0);
    assert!(world.mirror.logs.is_empty() && world.mirror.keys.is_empty() && world.mirror.by_name.is_empty());
    world.asked();
    world.set("k", "b");
    assert_eq!(world.asked(), [""; 0]);
}

#[test]
fn an_evicted_channel_is_forgotten_and_its_successor_is_heard() {
    let mut world = World::new(&[("k:{id}", "k:{id}")]);
    let names: Vec<String> = (0..1000).map(|id| format!("k:{id}")).collect();
    drop(world.subscribe("k:0"));
    let _all: Vec<Client> = names[1..].iter().map(|name| world.subscribe(name)).collect();
    world.run();
    let _more = world.subscribe("k:x");
    world.run();
    assert_eq!(world.mirror.logs.len(), 1000);
    assert!(!world.mirror.by_name.contains_key("k:0"));
}

#[test]
fn one_key_in_two_channels_is_read_once_and_shown_in_both() {
    let mut world = World::new(&[("cart:{user}", "cart:{user}"), ("cart:{user}", "carts")]);
    world.hold("cart:1", "a");
    let mut one = world.subscribe("cart:1");
    world.run();
    world.asked();
    let mut all = world.subscribe("carts");
    world.run();
    assert_eq!(world.asked(), ["cart:1"], "a new channel needs the value too");
    world.set("cart:1", "b");
    world.run();
    assert_eq!(world.asked(), ["cart:1"]);
    assert_eq!(one.news(&world), ["cart:1=b!set"]);
    assert_eq!(all.news(&world), ["cart:1=b!set"]);
    // Two keys that come and go in the second only.
    world.set("cart:2", "c");
    world.run();
    world.del("cart:2");
    world.run();
    assert_eq!(all.news(&world), ["cart:2=-!del"]);
    assert_eq!(one.news(&world), [""; 0]);
    world.pass(10);
    assert_eq!(world.mirror.keys.len(), 1);
    world.set("cart:2", "d");
    world.run();
    assert_eq!(all.news(&world), ["cart:2=d!set"]);
}

#[test]
fn a_key_that_goes_and_comes_during_its_read_keeps_its_place() {
    let mut world = World::new(&[("many:{id}", "many")]);
    world.hold("many:1", "a");
    let mut client = world.subscribe("many");
    world.run();
    client.news(&world);
    world.del("many:1");
    world.set("many:1", "b");
    world.run();
    assert_eq!(client.news(&world), ["many:1=b!set"]);
}

#[test]
fn changes_come_before_what_only_needs_to_be_known() {
    let mut world = World::new(&[("k:{id}", "k:{id}")]);
    world.broken = None;
    let _held = world.subscribe("k:hot");
    world.run();
    world.asked();
    let _many: Vec<Client> = (0..8).map(|id| world.subscribe(&format!("k:{id}"))).collect();
    world.set("k:hot", "x");
    while !world.reads.is_empty() {
        world.answer();
    }
    let asked = world.asked();
    // Four are in flight already when it changes; it is in the next batch, first.
    assert_eq!(asked[4], "k:hot", "{asked:?}");
}

#[test]
fn what_cannot_be_sent_takes_back_what_was() {
    let mut rules = vec![rule(0, "k", "k"), rule(1, "h:{id}", "all")];
    for rule in &mut rules {
        let options = Options {
            format: Format::Json,
            decode: Decode::Json,
            fields: Some(vec!["name".into()]),
            expires: false,
            heard: false,
            max_value: 1000,
        };
        rule.payload = Renderer::new(options, rule.pattern.captures()).unwrap();
    }
    let mut world = World::of(rules);
    world.up();
    world.hold("k", r#"{"name":"a"}"#);
    world.hold("h:1", r#"{"name":"b"}"#);
    world.hold("h:2", "no fields here");
    let mut one = world.subscribe("k");
    let mut all = world.subscribe("all");
    world.run();
    assert_eq!(one.values(&world), [r#"{"name":"a"}"#]);
    assert_eq!(
        all.values(&world),
        [r#"{"name":"b"}"#],
        "what was never sent need not be taken back"
    );

    world.set("k", "text");
    world.set("h:1", "text");
    world.set("h:2", "other text");
    world.run();
    assert_eq!(
        (one.values(&world), all.values(&world)),
        (vec!["null".into()], vec!["null".into()])
    );
    assert_eq!(one.subscription.log().view().len(), 0);
    world.set("k", "again without fields");
    world.set("h:1", "again without fields");
    world.del("h:2");
    world.run();
    assert_eq!(
        (one.values(&world), all.values(&world)),
        (vec![], vec![]),
        "once is enough"
    );

    world.set("k", r#"{"name":"c"}"#);
    world.set("h:1", r#"{"name":"d"}"#);
    world.run();
    assert_eq!(one.values(&world), [r#"{"name":"c"}"#]);
    assert_eq!(all.values(&world), [r#"{"name":"d"}"#]);
}

/// Whoever asks for it is told when a change was heard of, of several the last; a comparison heard of nothing.
#[test]
fn when_a_change_was_heard_of_comes_with_what_was_read_for_it() {
    let mut rules = vec![rule(0, "k", "k"), rule(1, "k", "log"), rule(2, "pub", "log:pub")];
    for rule in &mut rules {
        let options = Options {
            format: Format::Json,
            decode: Decode::None,
            fields: None,
            expires: false,
            heard: true,
            max_value: 1000,
        };
        rule.payload = Renderer::new(options, rule.pattern.captures()).unwrap();
    }
    let mut world = World::of(rules);
    world.up();
    world.hold("k", "a");
    let mut clients = ["k", "log", "log:pub"].map(|channel| world.subscribe(channel));
    world.run();
    let mut heard_at = |world: &World| -> Vec<Option<f64>> {
        let of = |client: &mut Client| client.members(world, "heard_at").pop().and_then(|at| at.as_f64());
        clients.iter_mut().map(of).collect()
    };
    assert_eq!(heard_at(&world), [None; 3], "a snapshot");

    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0;
    world.set("k", "b");
    // The last one, however far apart they were.
    let before = now();
    world.set("k", "c");
    world.intake.published(b"pub", b"news");
    let after = now();
    world.run();
    for at in heard_at(&world) {
        let at = at.expect("a time");
        assert!((before - 0.01..=after + 0.01).contains(&at), "{before} {at} {after}");
    }

    world.lost();
    world.hold("k", "d");
    world.up();
    world.run();
    assert_eq!(heard_at(&world), [None; 3], "found by a comparison");
}

/// What a claim must hold is what the name says, byte for byte; a capture that is no text no claim can hold.
#[test]
fn access_is_asked_of_every_mapping_with_the_captures_of_the_name() {
    let claim = |text: &str| {
        let text = crate::pattern::ChannelTemplate::parse(text).unwrap();
        Way::Claims(vec![("sub".into(), text)])
    };
    let mut owned = rule(0, "cart:{user}", "cart:{user}");
    owned.access = vec![claim("u-{user}"), Way::Listed];
    let mut shared = rule(1, "extra:{rest...}", "cart:{rest...}");
    shared.access = vec![Way::SignedIn];
    let mut closed = rule(2, "closed:{id}", "closed:{id}");
    closed.access = Vec::new();
    let rules = [owned, shared, closed].map(Arc::new);
    let catalog = Catalog::new(
        Table::new(rules.into(), &crate::relay::Stats::default())
            .unwrap()
            .into(),
    );
    let access = |name: &str| hub::Catalog::access(&catalog, name);
    let held = |text: &'static [u8]| Way::Claims(vec![("sub".into(), Bytes::from_static(text))]);
    assert_eq!(
        access("cart:a%25b"),
        Some(vec![vec![held(b"u-a%b"), Way::Listed], vec![Way::SignedIn]])
    );
    assert_eq!(access("cart:a:b"), Some(vec![vec![Way::SignedIn]]));
    assert_eq!(
        access("cart:%FF"),
        Some(vec![vec![held(b"u-\xff"), Way::Listed], vec![Way::SignedIn]])
    );
    assert_eq!(access("closed:1"), Some(vec![vec![]]));
    assert_eq!(access("other:1"), None);
}

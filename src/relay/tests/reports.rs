//! What operators are told: it follows what clients are told, and it ends although nobody listens any more.

use super::*;

/// Why the node's keys cannot be read.
fn trouble(world: &mut World) -> Option<&'static str> {
    world.mirror.report(world.now);
    let node = world.shared.stats.nodes().remove(0);
    node.readable.trouble.map(|trouble| trouble.reason)
}

/// Lets `milliseconds` pass in steps of ten, everything being answered at once.
fn live(world: &mut World, milliseconds: u64) {
    for _ in 0..milliseconds / 10 {
        world.pass(10);
        while !world.reads.is_empty() {
            world.answer();
        }
        world.mirror.report(world.now);
    }
}

#[test]
fn without_a_connection_nothing_is_read() {
    let mut world = World::away(&[("k", "k")]);
    assert_eq!(trouble(&mut world), Some("upstream-lost"));
    world.up();
    world.run();
    assert_eq!(trouble(&mut world), None);
    world.mirror.unlinked(NODE, world.now);
    assert_eq!(trouble(&mut world), Some("upstream-lost"));
    world.step();
    assert_eq!(trouble(&mut world), None);
}

#[test]
fn what_clients_are_told_is_reported_until_it_is_over() {
    for (kind, word) in [
        (ReadErrorKind::NoPermission, "no-permission"),
        (ReadErrorKind::Busy, "busy"),
    ] {
        let mut world = World::new(&[("k:{id}", "k:{id}")]);
        let clients: Vec<Client> = (0..3).map(|id| world.subscribe(&format!("k:{id}"))).collect();
        world.run();
        world.broken = Some(kind);
        for id in 0..3 {
            world.set(["k:0", "k:1", "k:2"][id], "a");
        }
        live(&mut world, 900);
        assert_eq!(trouble(&mut world), None, "{word}");
        live(&mut world, 2000);
        assert_eq!(trouble(&mut world), Some(word));
        assert_eq!(world.shared.stats.stale.load(std::sync::atomic::Ordering::Relaxed), 3);
        world.broken = None;
        live(&mut world, 2000);
        assert_eq!(trouble(&mut world), None, "{word}");
        assert_eq!(world.shared.stats.stale.load(std::sync::atomic::Ordering::Relaxed), 0);
        drop(clients);
    }
}

/// Else a relay that is left for not being ready would never be ready again.
#[test]
fn what_nobody_waits_for_any_more_is_no_trouble() {
    for (kind, word) in [
        (ReadErrorKind::NoPermission, "no-permission"),
        (ReadErrorKind::Busy, "busy"),
    ] {
        let mut world = World::new(&[("k", "k")]);
        let client = world.subscribe("k");
        world.run();
        world.broken = Some(kind);
        world.set("k", "a");
        live(&mut world, 3000);
        assert_eq!(trouble(&mut world), Some(word));
        drop(client);
        live(&mut world, 3000);
        assert_eq!(trouble(&mut world), None, "{word}");
        let wake = world.mirror.next_wake();
        assert!(
            wake.is_none_or(|wake| wake > world.now.mono),
            "nothing is left to be done at once"
        );
        // Who returns is told again.
        let mut client = world.subscribe("k");
        live(&mut world, 3000);
        assert_eq!(trouble(&mut world), Some(word));
        world.broken = None;
        live(&mut world, 3000);
        assert!(client.is_filled(&world));
        let news = client.news(&world);
        assert_eq!(news.last(), Some(&format!("fresh {word}")), "{news:?}");
    }
}

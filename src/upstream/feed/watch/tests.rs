//! What is found between two looks.

use super::*;
use crate::upstream::Address;

const PLAIN: &str = "role:master\r\n";
const REPLICA_UP: &str = "role:slave\r\nmaster_link_status:up\r\n";
const REPLICA_DOWN: &str = "role:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:7\r\n";
const SECOND: Duration = Duration::from_secs(1);

/// A server that answers what it is.
struct World {
    watch: Watch,
    now: Instant,
    run_id: &'static str,
    /// Its clock minus ours.
    offset: i64,
    links: &'static str,
    primaries: &'static str,
    counters: &'static str,
    setting: &'static str,
    refuses: Vec<Question>,
}

impl World {
    /// The first look is done.
    fn new() -> World {
        World::with(true, REPLICA_UP)
    }

    fn with(signalled: bool, links: &'static str) -> World {
        let now = Instant::now();
        let connection = Connection {
            run_id: "one".into(),
            id: 50,
            signalled,
            setting: true,
        };
        let mut world = World {
            watch: Watch::new(connection, now),
            now,
            run_id: "one",
            offset: 1_700_000_000_000_000,
            links,
            primaries: "id=7 addr=a\nid=9 addr=b\n",
            counters: "cmdstat_swapdb:calls=3,usec=1\r\ncmdstat_flushdb:calls=1,usec=1\r\n",
            setting: "KA",
            refuses: Vec::new(),
        };
        let first = world.look();
        let role = Finding::Role(Role::Replica);
        assert_eq!(
            first,
            match links {
                REPLICA_DOWN => vec![Finding::Behind(Some(7 * SECOND)), role],
                _ => vec![role],
            }
        );
        world
    }

    /// One look, a second after the last.
    fn look(&mut self) -> Vec<Finding> {
        let found = self.take(SECOND / 1000);
        self.now += SECOND;
        found
    }

    /// One look now, each of whose answers takes so long.
    fn take(&mut self, delay: Duration) -> Vec<Finding> {
        let mut found = Vec::new();
        let begun = self.now;
        for question in self.watch.look(begun) {
            assert_eq!(found, [], "all is told with the last answer");
            self.now += delay;
            let answer = match question {
                _ if self.refuses.contains(&question) => Err("NOPERM no".to_owned()),
                Question::Setting => Ok(map("notify-keyspace-events", self.setting)),
                question => Ok(blob(&self.text(question))),
            };
            found = self.watch.take(question, answer, self.now);
        }
        self.now = begun;
        found
    }

    fn text(&self, question: Question) -> String {
        match question {
            Question::Server => {
                let time = self.offset + (self.now - self.watch.origin).as_micros() as i64;
                format!("run_id:{}\r\nserver_time_usec:{time}\r\n", self.run_id)
            }
            Question::Links => self.links.into(),
            Question::Primaries => self.primaries.into(),
            Question::Counters => self.counters.into(),
            Question::Setting => self.setting.into(),
        }
    }
}

fn blob(text: &str) -> OwnedFrame {
    OwnedFrame::BlobString {
        data: text.into(),
        attributes: None,
    }
}

fn map(name: &str, value: &str) -> OwnedFrame {
    OwnedFrame::Map {
        data: [(blob(name), blob(value))].into_iter().collect(),
        attributes: None,
    }
}

#[test]
fn a_look_is_taken_each_second_and_never_two_at_once() {
    let mut world = World::new();
    let due = world.watch.next().unwrap();
    assert_eq!(world.watch.look(due - SECOND / 1000), []);
    assert_eq!(world.watch.look(due).len(), 5);
    assert_eq!(world.watch.next(), None);
    assert_eq!(world.watch.look(due + 5 * SECOND), []);
}

#[test]
fn nothing_new_finds_nothing() {
    let mut world = World::new();
    for _ in 0..3 {
        assert_eq!(world.look(), []);
    }
}

#[test]
fn a_new_link_is_a_full_synchronization_and_a_returning_one_is_none() {
    let mut world = World::new();
    world.primaries = "id=9 addr=b\n";
    assert_eq!(world.look(), []);
    world.primaries = "";
    assert_eq!(world.look(), []);
    world.primaries = "id=9 addr=b\nid=7 addr=a\n";
    assert_eq!(world.look(), [], "both have gone on where they were");
    world.primaries = "id=9 addr=b\nid=51 addr=a\n";
    assert_eq!(world.look(), [Finding::Changed(Cause::FullSync)]);
    assert_eq!(world.look(), []);
    world.primaries = "id=51 addr=a\nid=60 addr=b\n";
    assert_eq!(world.look(), [Finding::Changed(Cause::FullSync)]);
}

#[test]
fn a_replica_is_behind_until_what_it_missed_is_there() {
    let mut world = World::with(true, REPLICA_DOWN);
    assert_eq!(world.look(), []);
    world.links = REPLICA_UP;
    world.primaries = "id=52 addr=a\n";
    assert_eq!(world.look(), [Finding::Changed(Cause::FullSync)]);
    assert_eq!(world.look(), [Finding::Behind(None)], "it had a second to catch up");
    assert_eq!(world.look(), []);
    world.links = REPLICA_DOWN;
    assert_eq!(world.look(), [Finding::Behind(Some(7 * SECOND))]);
    world.links = PLAIN;
    let promoted = [Finding::Behind(None), Finding::Role(Role::Primary)];
    assert_eq!(world.look(), promoted, "a primary is behind nobody");
}

#[test]
fn an_active_replica_that_has_lost_peers_is_not_behind() {
    let mut world = World::new();
    world.links = "role:active-replica\r\nmaster_global_link_status:down\r\nmaster_host:a\r\nmaster_link_status:up\r\n\
                   master_1_host:b\r\nmaster_1_port:1\r\nmaster_1_link_status:down\r\n\
                   master_2_host:::1\r\nmaster_2_port:2\r\nmaster_2_link_status:down\r\n";
    let found = world.look();
    let [Finding::Role(role)] = found.as_slice() else {
        panic!("{found:?}");
    };
    let down: Vec<String> = role.peers_down().iter().map(Address::to_string).collect();
    assert_eq!(
        (role.word(), down.join(" ").as_str()),
        ("active-replica", "b:1 [::1]:2")
    );
    assert_eq!(world.look(), []);
    world.links = "role:active-replica\r\nmaster_link_status:up\r\nmaster_1_link_status:up\r\n";
    let all_are_there = Role::ActiveReplica { peers_down: Vec::new() };
    assert_eq!(world.look(), [Finding::Role(all_are_there)]);
}

#[test]
fn swaps_are_counted_and_flushes_where_there_is_no_signal() {
    for signalled in [true, false] {
        let mut world = World::with(signalled, REPLICA_UP);
        world.counters = "cmdstat_swapdb:calls=4,usec=1\r\ncmdstat_flushdb:calls=1,usec=1\r\n";
        assert_eq!(world.look(), [Finding::Changed(Cause::Swapped)]);
        world.counters =
            "cmdstat_swapdb:calls=4,usec=1\r\ncmdstat_flushdb:calls=1,usec=1\r\ncmdstat_flushall:calls=1\r\n";
        let flushed = (!signalled).then_some(Finding::Changed(Cause::Flushed));
        assert_eq!(world.look(), flushed.into_iter().collect::<Vec<_>>());
        world.counters = "";
        assert_eq!(
            world.look(),
            [Finding::Changed(Cause::Swapped)],
            "set back, they hide what happened"
        );
        assert_eq!(world.look(), []);
    }
}

#[test]
fn a_clock_that_is_set_is_noticed_and_a_slow_answer_is_no_clock() {
    let mut world = World::new();
    assert_eq!(world.take(SECOND), [], "an answer may take as long as it wants");
    world.now += SECOND;
    world.offset += 10_000;
    assert_eq!(world.look(), []);
    world.offset += 60_000;
    let found = world.look();
    assert!(matches!(found[..], [Finding::ClockSet(70..=80)]), "{found:?}");
    assert_eq!(world.look(), []);
    world.offset -= 3_600_000_000;
    let found = world.look();
    assert!(
        matches!(found[..], [Finding::ClockSet(-3_600_000..=-3_599_990)]),
        "{found:?}"
    );
    let mut jumps = 0;
    for _ in 0..100 {
        world.offset += 1000;
        jumps += world.look().len();
    }
    assert!((3..=5).contains(&jumps), "100 ms of drift were {jumps} jumps");
}

#[test]
fn missing_letters_are_found_each_time_until_they_are_back() {
    let mut world = World::new();
    world.setting = "";
    for _ in 0..2 {
        assert_eq!(world.look(), [Finding::Setting(String::new())]);
    }
    world.setting = "AKE";
    assert_eq!(world.look(), [Finding::Setting("AKE".into())], "it is right again");
    assert_eq!(world.look(), []);
    let due = world.watch.next().unwrap();
    world.watch.put_off(due + FOR_OTHERS);
    assert_eq!(world.watch.look(due + INTERVAL), [], "all others have looked meanwhile");
    assert_eq!(world.watch.next(), Some(due + FOR_OTHERS));
}

#[test]
fn another_process_is_noticed() {
    let mut world = World::new();
    world.run_id = "two";
    assert_eq!(world.look(), [Finding::Replaced]);
}

#[test]
fn what_is_refused_is_said_once_and_asked_again_after_a_minute() {
    let mut world = World::new();
    world.refuses = vec![Question::Primaries, Question::Setting];
    let refused = Finding::Refused(world.refuses.clone(), "NOPERM no".into());
    assert_eq!(world.look(), [refused]);
    assert_eq!(world.look(), []);
    world.now += 60 * SECOND;
    assert_eq!(world.look(), [], "refused again, it is not said again");
    world.refuses.clear();
    // What happened meanwhile is not lost.
    world.primaries = "id=51 addr=a\n";
    assert_eq!(world.look(), []);
    world.now += 60 * SECOND;
    assert_eq!(
        world.look(),
        [
            Finding::Changed(Cause::FullSync),
            Finding::Answered(Question::Primaries),
            Finding::Answered(Question::Setting)
        ]
    );
}

#[test]
fn a_server_that_refuses_everything_is_asked_no_more() {
    let mut world = World::new();
    world.refuses = Question::ALL.to_vec();
    assert_eq!(world.look().len(), 1);
    assert_eq!(world.watch.look(world.now), []);
    assert!(world.watch.next().is_some_and(|next| next > world.now));
}

#[test]
fn a_busy_server_is_not_an_unwilling_one() {
    let mut world = World::new();
    for question in world.watch.look(world.now) {
        let busy = Err("BUSY Redis is busy running a script".to_owned());
        assert_eq!(world.watch.take(question, busy, world.now), []);
    }
    world.now += SECOND;
    assert_eq!(world.watch.look(world.now).len(), 5);
}

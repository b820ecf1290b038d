//! A relay on a single core, where one thread does everything.

use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::harness::{Data, Relay, Server, eventually, mapping};
use crate::{both, redis};

/// What is started by this has one core.
fn on_one_core<T>(start: impl FnOnce() -> T) -> T {
    let all = sched_getaffinity(None).expect("a set of cores");
    let first = (0..CpuSet::MAX_CPU).find(|&core| all.is_set(core)).expect("a core");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("one of our cores");
    let started = start();
    sched_setaffinity(None, &all).expect("our own cores");
    started
}

both! {
    fn it_delivers_survives_and_drains<C>() {
        let mut server = Server::start();
        let mut relay = on_one_core(|| Relay::start(&server, &mapping("key = \"v:{id}\"\nchannel = \"v\"")));
        let mut clients: Vec<C> = (0..10).map(|_| C::open(&relay, &["v"])).collect();
        for client in &mut clients {
            client.ready();
        }
        let tasks = std::fs::read_dir(format!("/proc/{}/task", relay.pid())).expect("the relay runs");
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        assert!(!names.iter().any(|name| ["feed", "relay", "shard-1"].contains(&&**name)), "{names:?}");
        redis!(server, "SET", "v:1", "before");
        for client in &mut clients {
            client.until("the value", |memory| memory.state.values().any(|value| value == "before"));
        }
        server.kill();
        for client in &mut clients {
            client.control("stale");
        }
        server.restart(Data::Lost);
        redis!(server, "SET", "v:1", "after");
        for client in &mut clients {
            client.until("the other value", |memory| memory.state.values().any(|value| value == "after"));
        }
        relay.signal(Signal::TERM);
        for client in &mut clients {
            client.control("end");
        }
        let (status, took) = relay.wait();
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(6), "the drain is 4 s, the relay took {took:?}");
        eventually("the log tells of the drain", || relay.log().contains("drained").then_some(()));
        assert!(!relay.log().contains("cannot go on"), "{}", relay.log());
    }
}

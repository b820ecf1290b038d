//! The shard's future: waits for whatever comes first, and lets the [`Core`] do its work slice by slice.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use futures_util::stream::{self, LocalBoxStream, select_all};
use futures_util::{FutureExt, StreamExt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::hub::Hub;
use crate::switches::Switch;
use crate::turns::{IDLE, Turns};

use super::Options;
use super::core::{Core, SLICE};
use super::handle::Handle;
use super::stats::Stats;

/// News of the hub that are served in a row, before the sockets and the other tasks of the thread get their turn: where
/// the next is always there already, they would wait for ever.
const NEWS: usize = 8;

/// Answers of gates that are taken between two slices.
const ANSWERS: usize = 64;

/// Owns the sockets of many clients. Made by [`shard`].
pub struct Shard {
    core: Core,
    /// The set of all sockets; readable while any of them has something.
    epoll: AsyncFd<Rc<OwnedFd>>,
    turns: Arc<Turns>,
}

/// A shard, and the handle that gives it clients. To be called within the runtime of the thread that it is to run on; the
/// hub allows 64. `seed`: random, for moments that are spread.
///
/// # Errors
/// If the system grants no further epoll set.
pub fn shard(options: Options, hub: &Hub, stats: Arc<Stats>, seed: u64) -> io::Result<(Shard, Handle)> {
    let turns = stats.loops.add(thread::current().name().unwrap_or("shard"));
    let core = Core::new(options, hub, stats, seed, Instant::now())?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types that are no real descriptors"
    )]
    let epoll = AsyncFd::with_interest(core.books.epoll.clone(), Interest::READABLE)?;
    let handle = core.handle.clone();
    Ok((Shard { core, epoll, turns }, handle))
}

impl Shard {
    /// Serves its clients until it was drained ([`Handle::drain`]).
    pub async fn run(self) {
        let Shard { mut core, epoll, turns } = self;
        let inbox = core.inbox.clone();
        let handle = core.handle.clone();
        let mut seldom = select_all([
            follow(core.books.stats.crowded.subscribe(), |()| Seldom::Crowded),
            follow(core.judging.verdicts.clone(), |_| Seldom::Judge),
            follow(core.books.stats.behind.follow(), |number| Seldom::Behind(*number)),
        ]);
        let mut news = 0;
        let mut alarm = Alarm::default();
        loop {
            turns.next(Switch::ShardTurns);
            let now = Instant::now();
            let more = core.slice(now);
            if core.is_over(now) {
                return;
            }
            if more || news == NEWS {
                // Other tasks of the thread, and the sockets, get their turn between two slices, and so do answers that came.
                news = 0;
                for _ in 0..ANSWERS {
                    let Some(Some(answer)) = core.asking.next().now_or_never() else {
                        break;
                    };
                    core.answered(answer);
                }
                if let Some(Some(heard)) = seldom.next().now_or_never() {
                    core.learn(heard);
                }
                tokio::task::yield_now().await;
                core.poll();
                continue;
            }
            let idle = now + IDLE;
            alarm.set(core.wake(now).map_or(idle, |at| at.min(idle)));
            tokio::select! {
                biased;
                () = inbox.bell().rung() => {
                    news += 1;
                    core.take();
                }
                ready = poll_fn(|context| epoll.poll_read_ready(context)) => match ready {
                    Ok(mut guard) => {
                        // An event that comes after the last answer makes the set readable anew; one that was left in
                        // the set, as there was no room for it, does not.
                        if core.poll() < SLICE {
                            guard.clear_ready();
                        }
                    }
                    // Only where the runtime goes down.
                    Err(_) => return,
                },
                Some(answer) = core.asking.next(), if !core.asking.is_empty() => {
                    core.answered(answer);
                }
                () = handle.bell().rung() => {}
                Some(heard) = seldom.next() => core.learn(heard),
                () = alarm.gone_off() => {}
            }
        }
    }
}

/// What a shard is told now and then. One stream that looks only at what has come costs a turn less than three that are
/// looked at each time.
enum Seldom {
    /// Slow clients hold too much: the next turn ends some.
    Crowded,
    /// Verdicts on credentials may have become others.
    Judge,
    /// A question of this number, who is behind.
    Behind(u64),
}

/// What the changes of a value mean, as long as there is who changes it.
fn follow<T: 'static>(receiver: watch::Receiver<T>, meaning: fn(&T) -> Seldom) -> LocalBoxStream<'static, Seldom> {
    let next = move |mut receiver: watch::Receiver<T>| async move {
        receiver.changed().await.ok()?;
        let heard = meaning(&receiver.borrow_and_update());
        Some((heard, receiver))
    };
    stream::unfold(receiver, next).boxed_local()
}

impl Core {
    fn learn(&mut self, heard: Seldom) {
        match heard {
            Seldom::Crowded => {}
            Seldom::Judge => self.judge_all(),
            Seldom::Behind(number) => self.tell_behind(number, Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use bytes::Bytes;

    use crate::hub::{self, Access, Catalog, Channel, Payload, SlotKey, Snapshot, Way};
    use crate::session::{Session, Start};

    use super::super::{Bounds, Client, Socket, Transport, Until};
    use super::*;

    struct One;

    impl Catalog for One {
        fn access(&self, name: &str) -> Option<Vec<Access>> {
            self.describe(name).map(|_| vec![vec![Way::Public]])
        }

        fn describe(&self, name: &str) -> Option<Channel> {
            Some(Channel::of_state(name))
        }
    }

    fn options() -> Options {
        Options {
            heartbeat: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(4),
            bounds: Bounds::default(),
            pinned: 64 << 20,
        }
    }

    fn client(hub: &Arc<Hub>, socket: UnixStream) -> Client {
        socket.set_nonblocking(true).unwrap();
        let mut session = Session::new(hub.epoch);
        let subscription = hub.subscribe("a", false).unwrap();
        session.subscribe(subscription, Start::New, hub.watermark(), None);
        Client {
            socket: Socket::Unix(socket),
            transport: Transport::Sse { chunked: true },
            head: Bytes::from_static(b"HEAD\r\n\r\n"),
            read_ahead: Bytes::new(),
            permits: Box::default(),
            session,
            until: Until::default(),
            gate: None,
            judged: 0,
        }
    }

    fn put(appender: &mut hub::Appender, log: &Arc<hub::Log>, value: String) {
        let payload = Payload {
            live: Bytes::from(value),
            snapshot: Snapshot::Same,
            json: false,
            absent: false,
        };
        let key = SlotKey {
            source: 0,
            name: Bytes::from_static(b"k"),
        };
        appender.put(log, key, false, Some(payload), std::time::Instant::now());
        appender.commit();
    }

    /// However quickly one message follows the other, other tasks of the thread get their turn between them.
    #[tokio::test]
    async fn a_hub_that_never_rests_does_not_take_the_thread_for_itself() {
        const CLIENTS: usize = 8;
        let (hub, mut appender) = hub::Hub::new(hub::Options::channels(10), 7, One);
        let stats = Arc::new(Stats::default());
        let (shard, handle) = shard(options(), &hub, stats.clone(), 1).unwrap();
        let subscription = hub.subscribe("a", false).unwrap();
        appender.activate(subscription.log());
        appender.fill(subscription.log());
        appender.commit();
        let mut readers = Vec::new();
        for _ in 0..CLIENTS {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            handle.adopt(client(&hub, ours));
            readers.push(thread::spawn(move || {
                std::io::copy(&mut theirs, &mut std::io::sink()).unwrap()
            }));
        }
        let sent = stats.clone();
        let writer = thread::spawn(move || {
            let begun = std::time::Instant::now();
            for round in 0.. {
                put(&mut appender, subscription.log(), round.to_string());
                // Leaves the lock to others.
                for _ in 0..1_000 {
                    std::hint::spin_loop();
                }
                if sent.messages.load(Ordering::Relaxed) > 10_000 || begun.elapsed() > Duration::from_secs(5) {
                    break;
                }
            }
        });
        let other = async {
            let (mut last, mut longest) = (0, 0);
            while !writer.is_finished() {
                tokio::task::yield_now().await;
                let sent = stats.messages.load(Ordering::Relaxed);
                longest = longest.max(sent - last);
                last = sent;
            }
            handle.drain();
            longest
        };
        let ((), longest) = tokio::join!(shard.run(), other);
        assert!(longest as usize <= 4 * NEWS * CLIENTS, "{longest} messages in a row");
        for reader in readers {
            reader.join().unwrap();
        }
    }

    /// Clients on a thread of their own, messages from another, and the shard between them.
    #[tokio::test]
    async fn it_runs_until_it_was_drained() {
        let (hub, mut appender) = hub::Hub::new(hub::Options::channels(10), 7, One);
        let (shard, handle) = shard(options(), &hub, Arc::default(), 1).unwrap();
        let subscription = hub.subscribe("a", false).unwrap();
        appender.activate(subscription.log());
        appender.fill(subscription.log());
        appender.commit();
        let done = Arc::new(AtomicUsize::new(0));
        let mut readers = Vec::new();
        for _ in 0..20 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            handle.adopt(client(&hub, ours));
            let done = done.clone();
            readers.push(thread::spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
                let mut told = false;
                loop {
                    let size = theirs.read(&mut buffer).unwrap();
                    if size == 0 {
                        return String::from_utf8(all).unwrap();
                    }
                    all.extend_from_slice(&buffer[..size]);
                    if !told && memchr::memmem::find(&all, b"round 999.").is_some() {
                        told = true;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        let writer = thread::spawn(move || {
            for round in 0..1_000 {
                put(&mut appender, subscription.log(), format!("round {round}."));
            }
            (appender, subscription)
        });
        let feed = async {
            while !writer.is_finished() || done.load(Ordering::Relaxed) < 20 {
                tokio::task::yield_now().await;
            }
            handle.drain();
        };
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(shard.run(), feed) })
            .await
            .expect("the shard ends");
        for reader in readers {
            let all = reader.join().unwrap();
            assert!(
                all.starts_with("HEAD\r\n\r\n") && all.ends_with("\r\n0\r\n\r\n"),
                "{all}"
            );
            assert!(all.contains("round 999.") && all.contains("keyrelay.end"), "{all}");
        }
    }
}

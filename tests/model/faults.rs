//! What is done to connections, server and relays, each fault with its end.

use std::time::{Duration, Instant};

use keyrelay::switches::Switch;
use tokio::time::sleep;

use super::keys::KEYS;
use super::redis::Redis;
use super::rng::Rng;
use super::run::Run;
use crate::harness::{BOTH, Cut, Data, Drip, FEED, Place, READER, Reply, Side};

/// One fault.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connections of one relay end.
    Cut {
        relay: usize,
        sides: &'static [Side],
        how: Cut,
    },
    /// One connection ends in the middle of an answer.
    CutWithin {
        relay: usize,
        side: &'static [Side],
        place: Place,
        how: Cut,
    },
    /// Connections end, and for a while no new one comes about: refused, or led nowhere.
    Away {
        relay: usize,
        sides: &'static [Side],
        swallowed: bool,
        lasts: Duration,
    },
    /// What the server sends is held back, or comes late, or a few bytes at a time.
    Slow {
        relay: usize,
        sides: &'static [Side],
        how: Slowness,
        lasts: Duration,
    },
    /// The server ends connections of a type.
    KillClients(&'static str),
    /// The server stands still.
    Freeze(Duration),
    /// The server is killed and started again.
    Restart {
        data: Remains,
        away: Duration,
    },
    /// More is published than the server's output buffer for a subscriber may hold.
    OutputBuffer,
    Flush(&'static str),
    /// Another database takes the place of this one.
    Swap,
    Reload,
    /// Nobody is told of key events any more, until a relay says that they are wanted.
    Unset,
    /// A right is taken from the user, and given back.
    Revoke {
        right: &'static str,
        back: &'static str,
        lasts: Duration,
    },
    /// A script keeps the server busy.
    Busy(Duration),
    /// Memory is at its limit.
    Memory {
        policy: &'static str,
        lasts: Duration,
    },
    /// No new client is let in, and the feed's connection ends.
    MaxClients {
        relay: usize,
        lasts: Duration,
    },
    /// The server itself lets nothing expire until it is asked.
    LazyExpiry,
    /// The relay is killed and started again.
    RelayRestart(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum Slowness {
    Held,
    Late(Duration),
    Drip(Drip),
}

/// What a server has when it is back.
#[derive(Clone, Copy, Debug)]
pub enum Remains {
    /// All it had.
    All,
    /// What it had some time before.
    Older,
    Nothing,
}

/// When a fault was there, and whom it concerned.
#[derive(Clone, Debug)]
pub struct Span {
    pub from: Instant,
    pub to: Instant,
    pub relays: [bool; 2],
    /// Events were certainly lost to these relays, from this moment on.
    pub loss: Option<([bool; 2], Instant)>,
    /// What is shown of a state did not go back by it: only who hears of happenings must be told.
    pub events_only: bool,
}

/// At least three faults within `length`. `long`: one that takes more than ten seconds to be noticed.
pub fn choose(rng: &mut Rng, length: Duration, long: bool, focus: Option<Switch>) -> Vec<(Duration, Fault)> {
    let count = rng.between(3..6);
    let last = length.as_millis() as u64 * 9 / 10;
    let mut faults: Vec<(Duration, Fault)> = (0..count)
        .map(|n| {
            let at = if long {
                rng.ms(300..1500)
            } else {
                rng.ms(last / 10..last)
            };
            let fault = match focus {
                Some(switch) if n != 1 => focused(rng, switch),
                _ => any(rng),
            };
            (at, fault)
        })
        .collect();
    if focus == Some(Switch::Deadlines) {
        faults[0] = (Duration::ZERO, Fault::LazyExpiry);
    }
    if long {
        let relay = rng.index(2);
        let how = Cut::Vanish;
        faults[0].1 = match rng.between(0..4) {
            0 => Fault::Freeze(rng.ms(10_500..11_500)),
            1 => Fault::Cut {
                relay,
                sides: FEED,
                how,
            },
            2 => Fault::Cut {
                relay,
                sides: READER,
                how,
            },
            _ => Fault::Cut {
                relay,
                sides: BOTH,
                how,
            },
        };
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn any(rng: &mut Rng) -> Fault {
    let relay = usize::from(rng.percent(30));
    let how = rng.pick(&[Cut::Reset, Cut::Close]);
    let lasts = rng.ms(20..300);
    match rng.between(0..100) {
        0..=11 => Fault::Cut {
            relay,
            sides: rng.pick(&[FEED, READER, BOTH]),
            how,
        },
        12..=19 => cut_within(rng, relay, how),
        20..=26 => Fault::Away {
            relay,
            sides: rng.pick(&[FEED, READER, BOTH]),
            swallowed: false,
            lasts,
        },
        27..=38 => slow(rng, relay),
        39..=42 => Fault::KillClients(rng.pick(&["pubsub", "normal"])),
        43..=49 => Fault::Freeze(rng.ms(20..400)),
        50..=60 => Fault::Restart {
            data: rng.pick(&[Remains::All, Remains::Older, Remains::Nothing]),
            away: rng.ms(1..200),
        },
        61..=64 => Fault::OutputBuffer,
        65..=73 => Fault::Flush(rng.pick(&["FLUSHALL", "FLUSHDB", "FLUSHDB ASYNC", "other"])),
        74..=75 => Fault::Reload,
        76..=77 => Fault::Swap,
        78 => Fault::Unset,
        79..=81 => revoke(rng),
        82..=86 => Fault::Busy(if rng.percent(10) {
            rng.ms(1100..1500)
        } else {
            rng.ms(30..300)
        }),
        87..=89 => Fault::Memory {
            policy: rng.pick(&["noeviction", "allkeys-random"]),
            lasts: rng.ms(10..80),
        },
        90..=92 => Fault::MaxClients { relay, lasts },
        93..=95 => Fault::LazyExpiry,
        _ => Fault::RelayRestart(relay),
    }
}

/// What shows that a mechanism is missing.
fn focused(rng: &mut Rng, switch: Switch) -> Fault {
    let (relay, how) = (0, Cut::Reset);
    match switch {
        Switch::Resync => match rng.between(0..2) {
            0 => Fault::Away {
                relay,
                sides: FEED,
                swallowed: false,
                lasts: rng.ms(50..200),
            },
            _ => Fault::Restart {
                data: Remains::Older,
                away: rng.ms(1..50),
            },
        },
        Switch::FlushSignal => Fault::Flush(rng.pick(&["FLUSHALL", "FLUSHDB"])),
        Switch::SilentWatch => match rng.percent(70) {
            true => Fault::Swap,
            false => Fault::Unset,
        },
        Switch::PutBack => match rng.between(0..3) {
            0 => Fault::Busy(rng.ms(50..200)),
            1 => Fault::Slow {
                relay,
                sides: READER,
                how: Slowness::Late(rng.ms(5..20)),
                lasts: rng.ms(50..200),
            },
            _ => Fault::Cut {
                relay,
                sides: READER,
                how,
            },
        },
        Switch::ReadAgain => Fault::Slow {
            relay,
            sides: READER,
            how: Slowness::Late(rng.ms(5..20)),
            lasts: rng.ms(200..400),
        },
        // What shows these is what subscribers do; a fault on the other relay is out of the way.
        _ => Fault::Cut {
            relay: 1,
            sides: READER,
            how: Cut::Close,
        },
    }
}

fn cut_within(rng: &mut Rng, relay: usize, how: Cut) -> Fault {
    let bytes = rng.between(0..200);
    let (side, place) = match rng.between(0..5) {
        0 => (FEED, Place::Bytes(bytes)),
        1 => (READER, Place::Bytes(bytes)),
        2 => (
            READER,
            Place::Answer {
                command: "SCAN",
                nth: 1,
                bytes,
            },
        ),
        3 => (
            FEED,
            Place::Answer {
                command: "INFO",
                nth: 1,
                bytes,
            },
        ),
        _ => (
            READER,
            Place::Answer {
                command: "PTTL",
                nth: rng.between(1..20) as u32,
                bytes,
            },
        ),
    };
    Fault::CutWithin {
        relay,
        side,
        place,
        how,
    }
}

fn slow(rng: &mut Rng, relay: usize) -> Fault {
    let sides = rng.pick(&[FEED, READER, BOTH]);
    let how = match rng.between(0..3) {
        0 => Slowness::Held,
        1 => Slowness::Late(rng.ms(1..30)),
        _ => Slowness::Drip(Drip {
            bytes: rng.between(1..40) as usize,
            every: Duration::from_millis(1),
        }),
    };
    let lasts = rng.ms(20..400);
    Fault::Slow {
        relay,
        sides,
        how,
        lasts,
    }
}

fn revoke(rng: &mut Rng) -> Fault {
    let (right, back) = rng.pick(&[
        ("-get -hgetall -lrange", "+get +hgetall +lrange"),
        ("-scan", "+scan"),
        ("resetchannels", "allchannels"),
        ("-psubscribe", "+psubscribe"),
    ]);
    Fault::Revoke {
        right,
        back,
        lasts: rng.ms(20..200),
    }
}

impl Fault {
    /// Faults of one lane come one after the other, those of different lanes at the same time.
    pub fn lane(&self) -> usize {
        match self {
            Fault::Cut { relay, .. }
            | Fault::CutWithin { relay, .. }
            | Fault::Away { relay, .. }
            | Fault::Slow { relay, .. }
            | Fault::RelayRestart(relay) => *relay,
            _ => 2,
        }
    }

    /// Does it, and undoes it.
    pub async fn happen(&self, run: &Run<'_>) {
        let from = Instant::now();
        let loss = self.act(run).await;
        let only = |relay: &usize| [*relay == 0, *relay == 1];
        let relays = match self {
            Fault::Cut { relay, .. }
            | Fault::CutWithin { relay, .. }
            | Fault::Away { relay, .. }
            | Fault::Slow { relay, .. }
            | Fault::RelayRestart(relay) => only(relay),
            _ => [true; 2],
        };
        let mut to = Instant::now();
        if matches!(self, Fault::Cut { how: Cut::Vanish, .. }) {
            // It ends when it can be known: lost after ten seconds without a word, two more for the PING.
            to += Duration::from_secs(12);
        }
        run.spans.borrow_mut().push(Span {
            from,
            to,
            relays,
            loss,
            events_only: matches!(self, Fault::Unset),
        });
    }

    /// Gives the relays that have certainly lost events, and from when on.
    async fn act(&self, run: &Run<'_>) -> Option<([bool; 2], Instant)> {
        let stand = run.stand;
        let feeds = || [0, 1].map(|relay| stand.proxies[relay].open(Side::Feed) > 0);
        let feed_of = |relay: usize, sides: &[Side]| {
            let mut lost = [false; 2];
            lost[relay] = sides.contains(&Side::Feed) && stand.proxies[relay].open(Side::Feed) > 0;
            lost
        };
        let now = Instant::now();
        match self {
            Fault::Cut { relay, sides, how } => {
                let lost = feed_of(*relay, sides);
                stand.proxies[*relay].cut(sides, *how);
                (*how != Cut::Vanish).then_some((lost, now))
            }
            Fault::CutWithin {
                relay,
                side,
                place,
                how,
            } => {
                stand.proxies[*relay].cut_at(side, *place, *how);
                if matches!(place, Place::Answer { command: "INFO", .. }) {
                    stand.proxies[*relay].cut(side, *how);
                }
                sleep(Duration::from_millis(150)).await;
                stand.proxies[*relay].calm();
                None
            }
            Fault::Away {
                relay,
                sides,
                swallowed,
                lasts,
            } => {
                let proxy = &stand.proxies[*relay];
                let lost = feed_of(*relay, sides);
                match swallowed {
                    true => proxy.swallow(sides, true),
                    false => proxy.refuse(sides, true),
                }
                proxy.cut(sides, Cut::Reset);
                sleep(*lasts).await;
                proxy.calm();
                Some((lost, now))
            }
            Fault::Slow {
                relay,
                sides,
                how,
                lasts,
            } => {
                let proxy = &stand.proxies[*relay];
                match how {
                    Slowness::Held => proxy.hold(sides, true),
                    Slowness::Late(time) => proxy.delay(sides, *time),
                    Slowness::Drip(drip) => proxy.drip(sides, Some(*drip)),
                }
                sleep(*lasts).await;
                proxy.calm();
                None
            }
            Fault::KillClients(kind) => {
                let lost = if *kind == "pubsub" { feeds() } else { [false; 2] };
                stand.admin(&format!("CLIENT KILL TYPE {kind} SKIPME yes")).await;
                Some((lost, now))
            }
            Fault::Freeze(time) => {
                stand.freeze();
                sleep(*time).await;
                stand.thaw();
                None
            }
            Fault::Restart { data, away } => {
                let pause = match data {
                    Remains::All => Some(run.writing.write().await),
                    _ => None,
                };
                if !matches!(data, Remains::Nothing) {
                    stand.admin("SAVE").await;
                }
                if matches!(data, Remains::Older) {
                    sleep(Duration::from_millis(60)).await;
                }
                let (lost, now) = (feeds(), Instant::now());
                stand.kill().await;
                sleep(*away).await;
                let data = if matches!(data, Remains::Nothing) {
                    Data::Lost
                } else {
                    Data::Kept
                };
                stand.restart(data).await;
                drop(pause);
                Some((lost, now))
            }
            Fault::OutputBuffer => {
                stand
                    .admin("CONFIG SET client-output-buffer-limit pubsub\u{a0}1mb\u{a0}0\u{a0}0")
                    .await;
                let lost = feeds();
                let script =
                    "for n = 1, 40 do redis.call('PUBLISH', '__keyspace@0__:room:zz:none', string.rep('x', 65536)) end";
                stand.admin_words(&["EVAL", script, "0"]).await;
                stand
                    .admin("CONFIG SET client-output-buffer-limit pubsub\u{a0}32mb\u{a0}8mb\u{a0}60")
                    .await;
                Some((lost, now))
            }
            Fault::Flush("other") => {
                if let Ok(mut redis) = Redis::connect(stand.address).await {
                    let other = [vec!["SELECT", "1"], vec!["SET", "x", "y"], vec!["FLUSHDB"]];
                    let _ = redis.pipeline(&other).await;
                }
                None
            }
            Fault::Flush(command) => {
                stand.admin(command).await;
                run.flushes.borrow_mut().push(Instant::now());
                None
            }
            Fault::Swap => {
                let _pause = run.writing.write().await;
                if let Ok(mut redis) = Redis::connect(stand.address).await {
                    let mut swap = vec![vec![b"SELECT".to_vec(), b"1".to_vec()], vec![b"FLUSHDB".to_vec()]];
                    for key in KEYS.iter().step_by(2) {
                        let value = format!("#{} from the other database", run.stamp());
                        swap.push(vec![b"SET".to_vec(), key.bytes.clone(), value.into_bytes()]);
                    }
                    swap.push(["SWAPDB", "0", "1"].map(|word| word.as_bytes().to_vec()).to_vec());
                    let _ = redis.pipeline(&swap).await;
                    run.swaps.set(run.swaps.get() + 1);
                }
                None
            }
            Fault::Reload => {
                stand.admin("DEBUG RELOAD").await;
                None
            }
            Fault::Unset => {
                // It would set what the other one is to find missing.
                stand.kill_relay(1).await;
                stand.admin("CONFIG SET notify-keyspace-events ").await;
                let from = Instant::now();
                stand.wait_for_setting().await;
                stand.restart_relay(1).await;
                Some(([true; 2], from))
            }
            Fault::Revoke { right, back, lasts } => {
                let before = feeds();
                stand.admin(&format!("ACL SETUSER default {right}")).await;
                sleep(*lasts).await;
                // Redis ends subscriptions that are no longer allowed, KeyDB lets them be.
                let after = feeds();
                stand.admin(&format!("ACL SETUSER default {back}")).await;
                Some(([0, 1].map(|relay| before[relay] && !after[relay]), now))
            }
            Fault::Busy(time) => {
                stand.admin("CONFIG SET lua-time-limit 5").await;
                let script = format!(
                    "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
                     local till = now() + {} while now() < till do end",
                    time.as_micros()
                );
                stand.admin_words(&["EVAL", &script, "0"]).await;
                None
            }
            Fault::Memory { policy, lasts } => {
                stand.admin(&format!("CONFIG SET maxmemory-policy {policy}")).await;
                stand.admin("CONFIG SET maxmemory 1").await;
                sleep(*lasts).await;
                stand.admin("CONFIG SET maxmemory 0").await;
                stand.admin("CONFIG SET maxmemory-policy noeviction").await;
                None
            }
            Fault::MaxClients { relay, lasts } => {
                let lost = feed_of(*relay, FEED);
                let Ok(mut redis) = Redis::connect(stand.address).await else {
                    return None;
                };
                let _ = redis.words("CONFIG SET maxclients 2").await;
                stand.proxies[*relay].cut(FEED, Cut::Close);
                sleep(*lasts).await;
                let answer = redis.words("CONFIG SET maxclients 4000").await;
                if !matches!(answer, Ok(Reply::Status(_))) {
                    run.fail(format!("the server does not take its clients back: {answer:?}"));
                }
                Some((lost, now))
            }
            Fault::LazyExpiry => {
                stand.admin("DEBUG SET-ACTIVE-EXPIRE 0").await;
                None
            }
            Fault::RelayRestart(relay) => {
                // One that another fault keeps down must stay so.
                if !stand.runs(*relay) {
                    return None;
                }
                stand.restart_relay(*relay).await;
                let mut lost = [false; 2];
                lost[*relay] = true;
                Some((lost, now))
            }
        }
    }
}

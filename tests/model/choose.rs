//! Which faults a schedule has.

use std::time::Duration;

use keyrelay::switches::Switch;

use super::faults::{Fault, Remains, Slowness};
use super::rng::Rng;
use super::stand::Kind;
use crate::harness::{BOTH, Cut, Drip, FEED, Place, READER};

/// How long the effects of a fault may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Short,
    /// Now and then until a connection that leads nowhere is given up.
    Some,
    /// Once more than ten seconds.
    Long,
}

/// At least three faults within `length`.
pub fn choose(
    rng: &mut Rng,
    kind: Kind,
    length: Duration,
    patience: Patience,
    focus: Option<Switch>,
) -> Vec<(Duration, Fault)> {
    let long = patience == Patience::Long;
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
                // The first is one that only such servers know.
                _ if kind != Kind::Plain && (n == 0 || rng.percent(20)) => of_servers(rng, kind),
                _ => any(rng, kind, patience),
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
        faults[0].1 = match rng.between(0..5) {
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
            3 => Fault::Away {
                relay,
                sides: rng.pick(&[FEED, READER, BOTH]),
                swallowed: true,
                lasts: rng.ms(100..6_500),
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

/// What is done between servers.
fn of_servers(rng: &mut Rng, kind: Kind) -> Fault {
    let apart = |rng: &mut Rng| Fault::Apart {
        lasts: rng.ms(20..800),
        masterdown: kind == Kind::Replica && rng.percent(40),
        outrun: kind == Kind::Pair && rng.percent(50),
    };
    match rng.between(0..10) {
        _ if kind == Kind::Pair => apart(rng),
        0..=2 => apart(rng),
        3..=4 => Fault::KillLink,
        5..=7 => Fault::FullSync {
            promoted: rng.percent(50),
            away: rng.ms(1..300),
        },
        _ => Fault::PrimaryRestart {
            data: rng.pick(&[Remains::All, Remains::Older, Remains::Nothing]),
            away: rng.ms(1..300),
        },
    }
}

fn any(rng: &mut Rng, kind: Kind, patience: Patience) -> Fault {
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
            swallowed: patience == Patience::Some && rng.percent(8),
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
        // What an active node loads is merged, a replica that loads its own data takes nothing from its primary meanwhile, and
        // nodes have no databases to swap.
        74..=77 if kind == Kind::Pair => of_servers(rng, kind),
        74..=75 if kind == Kind::Replica => of_servers(rng, kind),
        74..=75 => Fault::Reload,
        76..=77 => Fault::Swap,
        78 => Fault::Unset,
        79..=81 => revoke(rng),
        82..=87 => Fault::Busy(if rng.percent(10) {
            rng.ms(1100..1500)
        } else {
            rng.ms(30..300)
        }),
        88..=90 => Fault::Memory {
            policy: rng.pick(&["noeviction", "allkeys-random"]),
            lasts: rng.ms(10..80),
        },
        91..=92 => Fault::MaxClients { relay, lasts },
        93..=94 => Fault::LazyExpiry,
        95..=97 => Fault::Elsewhere {
            relay,
            side: rng.pick(&[FEED, READER]),
            lasts: rng.ms(20..1500),
        },
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

//! How faults are done, and undone.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::faults::{Fault, Remains, Slowness};
use super::keys::KEYS;
use super::redis::Redis;
use super::run::Run;
use crate::harness::{Cut, Data, FEED, Place, Reply, Side};

impl Fault {
    /// Gives the relays that have certainly lost events, and from when on.
    pub(super) async fn act(&self, run: &Run<'_>) -> Option<([bool; 2], Instant)> {
        let stand = run.stand;
        // Those of the server to which it is done.
        let feeds = || {
            let of_first = stand.relays_of_first();
            [0, 1].map(|relay| of_first[relay] && stand.proxies[relay].open(Side::Feed) > 0)
        };
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
                let lost = restart(run, 0, *data, *away, feeds).await;
                self.join(run).await;
                Some(lost)
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
                if let Ok(mut redis) = Redis::connect(stand.source()).await {
                    let other = [vec!["SELECT", "1"], vec!["SET", "x", "y"], vec!["FLUSHDB"]];
                    let _ = redis.pipeline(&other).await;
                }
                None
            }
            Fault::Flush(command) => {
                stand.admin_at(stand.source(), command).await;
                run.flushes.borrow_mut().push(Instant::now());
                None
            }
            Fault::Swap => {
                let _pause = run.writing.write().await;
                if let Ok(mut redis) = Redis::connect(stand.source()).await {
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
                let heard = feeds();
                stand.admin("CONFIG SET notify-keyspace-events ").await;
                let from = Instant::now();
                stand.wait_for_setting().await;
                run.events_on.set(Some(Instant::now()));
                Some((heard, from))
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
                let set = |line: String| async move { stand.admin_at(stand.source(), &line).await };
                set(format!("CONFIG SET maxmemory-policy {policy}")).await;
                set("CONFIG SET maxmemory 1".into()).await;
                sleep(*lasts).await;
                set("CONFIG SET maxmemory 0".into()).await;
                set("CONFIG SET maxmemory-policy noeviction".into()).await;
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
                stand.admin_at(stand.source(), "DEBUG SET-ACTIVE-EXPIRE 0").await;
                None
            }
            Fault::RelayRestart(relay) => {
                stand.restart_relay(*relay).await;
                let mut lost = [false; 2];
                lost[*relay] = true;
                Some((lost, now))
            }
            Fault::Elsewhere { relay, side, lasts } => {
                let elsewhere = stand.elsewhere().await;
                let proxy = &stand.proxies[*relay];
                let (lost, now) = (feed_of(*relay, side), Instant::now());
                proxy.lead(side, elsewhere);
                proxy.cut(side, Cut::Close);
                sleep(*lasts).await;
                // What is heard to happen there is told between two gaps; no value of it is.
                for key in KEYS.iter().filter(|key| key.events.is_none()) {
                    stand.write_elsewhere(elsewhere, &key.bytes).await;
                }
                proxy.lead(side, stand.mirrored(*relay));
                proxy.cut(side, Cut::Close);
                Some((lost, now))
            }
            Fault::Apart {
                lasts,
                masterdown,
                outrun,
            } => {
                if *masterdown {
                    stand.admin("CONFIG SET replica-serve-stale-data no").await;
                }
                stand.part(true);
                if *outrun {
                    let fill = "for i = 1, 2000 do redis.call('SET', 'other:' .. i % 10, string.rep('x', 100)) end";
                    stand.admin_words(&["EVAL", fill, "0"]).await;
                }
                sleep(*lasts).await;
                stand.part(false);
                self.join(run).await;
                if *masterdown {
                    stand.admin("CONFIG SET replica-serve-stale-data yes").await;
                }
                None
            }
            Fault::KillLink => {
                stand.admin("CLIENT KILL TYPE master").await;
                self.join(run).await;
                None
            }
            Fault::FullSync { promoted, away } => {
                match promoted {
                    true => {
                        stand.admin("REPLICAOF NO ONE").await;
                        sleep(*away).await;
                        stand.follow().await;
                    }
                    false => {
                        stand.part(true);
                        stand.admin_at(stand.source(), "DEBUG CHANGE-REPL-ID").await;
                        sleep(*away).await;
                        stand.part(false);
                    }
                }
                self.join(run).await;
                Some(([true; 2], now))
            }
            Fault::PrimaryRestart { data, away } => {
                restart(run, 1, *data, *away, feeds).await;
                self.join(run).await;
                None
            }
        }
    }

    /// The servers are together again.
    async fn join(&self, run: &Run<'_>) {
        if !run.stand.is_joined().await {
            run.fail(format!("the servers do not find each other after {self:?}"));
        }
    }
}

/// Kills a server and starts it again; gives which relays heard it when it was killed.
async fn restart(
    run: &Run<'_>,
    server: usize,
    data: Remains,
    away: Duration,
    feeds: impl Fn() -> [bool; 2],
) -> ([bool; 2], Instant) {
    let stand = run.stand;
    let _pause = match data {
        Remains::All => Some(run.writing.write().await),
        Remains::Older | Remains::Nothing => None,
    };
    if !matches!(data, Remains::Nothing) {
        stand.admin_at(stand.addresses()[server], "SAVE").await;
    }
    if matches!(data, Remains::Older) {
        sleep(Duration::from_millis(60)).await;
    }
    let killed = (feeds(), Instant::now());
    stand.kill(server).await;
    sleep(away).await;
    let data = match data {
        Remains::Nothing => Data::Lost,
        Remains::All | Remains::Older => Data::Kept,
    };
    stand.restart(server, data).await;
    killed
}

//! A subscriber: it connects, reads as its script says, goes away, comes back.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::picture::Picture;
use super::schedule::{Act, Script};
use super::wire::{Ask, Connection, Transport};

/// Between two attempts to connect, as an impatient page would.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two things that a crawling reader takes.
const CRAWL: Duration = Duration::from_millis(4);

pub struct Subscriber<'a> {
    script: &'a Script,
    relays: &'a [SocketAddr; 2],
    pub picture: RefCell<Picture>,
    /// The script is over, and the connection stands.
    pub settled: Cell<bool>,
    /// Times it came back.
    pub resumes: Cell<u64>,
}

/// What one connection goes on with.
struct Page {
    relay: usize,
    list: Vec<String>,
    /// The cursor in an EventSource's URL.
    query: Option<String>,
    opened: bool,
}

impl<'a> Subscriber<'a> {
    pub fn new(script: &'a Script, relays: &'a [SocketAddr; 2]) -> Subscriber<'a> {
        Subscriber {
            script,
            relays,
            picture: RefCell::default(),
            settled: Cell::new(false),
            resumes: Cell::new(0),
        }
    }

    /// Whether all that it listens to was said to be complete and true.
    pub fn is_ready(&self) -> bool {
        let picture = self.picture.borrow();
        let mut all = picture.channels.values();
        !picture.channels.is_empty() && all.all(|status| status.ready && !status.stale)
    }

    /// Whether it reads through a small window.
    pub fn is_narrow(&self) -> bool {
        self.script.narrow
    }

    pub fn describe(&self) -> String {
        format!("{:?}", self.script)
    }

    /// Follows the script, which begins when `start` is known, and then goes on reading for ever.
    pub async fn run(&self, mut start: watch::Receiver<Option<Instant>>) {
        let mut page = Page {
            relay: self.script.relay,
            list: self.script.channels.clone(),
            query: None,
            opened: false,
        };
        let mut acts = self.script.acts.iter();
        let mut next = acts.next();
        loop {
            let Some(mut connection) = self.connect(&mut page).await else {
                sleep(PAUSE).await;
                continue;
            };
            loop {
                self.settled.set(next.is_none());
                let due = async {
                    let Ok(Some(start)) = start.wait_for(Option::is_some).await.map(|start| *start) else {
                        return std::future::pending().await;
                    };
                    match next {
                        Some((at, act)) => {
                            sleep_until((start + *at).into()).await;
                            act
                        }
                        None => std::future::pending().await,
                    }
                };
                let act = tokio::select! {
                    biased;
                    act = due => act,
                    heard = connection.next() => match heard {
                        Ok(heard) => {
                            self.picture.borrow_mut().hear(heard, Instant::now());
                            continue;
                        }
                        Err(error) => {
                            let mut picture = self.picture.borrow_mut();
                            picture.note(Instant::now(), format!("- the connection is over: {error}"));
                            break;
                        }
                    },
                };
                next = acts.next();
                if self.act(act, &mut page, &mut connection).await {
                    break;
                }
            }
            self.settled.set(false);
            self.picture.borrow_mut().part(Instant::now());
        }
    }

    /// Does what the script says; whether the connection is to be given up.
    async fn act(&self, act: &Act, page: &mut Page, connection: &mut Connection) -> bool {
        self.picture.borrow_mut().note(Instant::now(), format!("- {act:?}"));
        match act {
            Act::Drop { away, other, forget } => {
                let away = sleep(*away);
                self.picture.borrow_mut().part(Instant::now());
                // Closed at once, not after the pause.
                drop(std::mem::replace(connection, Connection::Gone));
                away.await;
                if *other {
                    page.relay = 1 - page.relay;
                }
                page.opened &= !forget;
                true
            }
            Act::Change(list) => {
                page.list.clone_from(list);
                let mut picture = self.picture.borrow_mut();
                if self.script.transport == Transport::Sse {
                    // Another URL is another EventSource, which has no id of its own yet.
                    page.query = picture.cursor();
                    picture.last_id = None;
                }
                true
            }
            Act::Stall(time) => {
                self.picture.borrow_mut().pause(Instant::now());
                sleep(*time).await;
                self.picture.borrow_mut().go_on(Instant::now());
                false
            }
            Act::Crawl(time) => {
                let end = Instant::now() + *time;
                self.picture.borrow_mut().pause(Instant::now());
                while Instant::now() < end {
                    sleep(CRAWL).await;
                    tokio::select! {
                        heard = connection.next() => match heard {
                            Ok(heard) => self.picture.borrow_mut().hear(heard, Instant::now()),
                            Err(_) => return true,
                        },
                        () = sleep_until(end.into()) => {}
                    }
                    self.picture.borrow_mut().pause(Instant::now());
                }
                self.picture.borrow_mut().go_on(Instant::now());
                false
            }
            Act::Add(channel) => {
                page.list.push(channel.clone());
                self.picture.borrow_mut().join(channel);
                let subscribe = json!({"type": "subscribe", "channels": [channel]});
                connection.send(subscribe).await.is_err()
            }
            Act::Remove(channel) => {
                page.list.retain(|each| each != channel);
                self.picture.borrow_mut().remove(channel);
                let unsubscribe = json!({"type": "unsubscribe", "channels": [channel]});
                connection.send(unsubscribe).await.is_err()
            }
        }
    }

    async fn connect(&self, page: &mut Page) -> Option<Connection> {
        let ask = {
            let mut picture = self.picture.borrow_mut();
            let (last_id, cursor) = match self.script.transport {
                Transport::Sse => (picture.last_id.clone(), page.query.clone()),
                Transport::Ws => (None, picture.cursor()),
            };
            let known = last_id.is_some() || cursor.is_some();
            if page.opened && known {
                picture.resume(page.relay, &page.list, Instant::now());
                Ask {
                    channels: page.list.clone(),
                    last_id,
                    cursor,
                    narrow: self.script.narrow,
                }
            } else {
                // A page without a cursor can only begin anew.
                page.query = None;
                picture.forget(page.relay, &page.list, Instant::now());
                Ask {
                    channels: page.list.clone(),
                    last_id: None,
                    cursor: None,
                    narrow: self.script.narrow,
                }
            }
        };
        match Connection::open(self.relays[page.relay], self.script.transport, &ask).await {
            Ok(connection) => {
                self.resumes
                    .set(self.resumes.get() + u64::from(ask.last_id.is_some() || ask.cursor.is_some()));
                page.opened = true;
                Some(connection)
            }
            Err(error) => {
                self.picture
                    .borrow_mut()
                    .note(Instant::now(), format!("- cannot connect: {error}"));
                None
            }
        }
    }
}

//! Which channels are opened, where a client begins in them, and what is said of those that are not.

use std::sync::Mutex;

use super::*;
use crate::hub::{Access, Catalog, Channel, Cursor, Log, Options, Revision, Way};
use crate::limits;
use crate::server::credentials::Places;
use crate::server::testing::{EPOCH, hub};

const NAMES: [&str; 2] = ["a", "b"];

fn text(epoch: u64, set: Option<u64>) -> String {
    Cursor {
        epoch,
        sequence: 42,
        set,
    }
    .to_string()
}

fn start(header: Option<&str>, parameter: Option<&str>) -> Start {
    gate(hub(10).0).start(&owned(&NAMES), true, header.map(str::as_bytes), parameter)
}

fn gate(hub: Arc<Hub>) -> Gate {
    Gate::new(
        hub,
        Live::default(),
        Limits::new(limits::Options::default(), Arc::default()),
    )
}

fn is_kept(log: &Log) -> bool {
    let view = log.view();
    view.subscribers() > 0 || view.lingers()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn no_cursor_or_an_empty_one_is_a_new_client() {
    assert_eq!(start(None, None), Start::New);
    assert_eq!(start(Some(""), Some("")), Start::New);
    assert_eq!(
        start(Some(""), Some(&text(EPOCH, Some(set_of(NAMES))))),
        Start::Resume(42)
    );
}

#[test]
fn only_the_header_is_believed_without_a_set() {
    assert_eq!(start(Some(&text(EPOCH, None)), None), Start::Resume(42));
    assert_eq!(start(None, Some(&text(EPOCH, None))), Start::Unknown);
    let fits = text(EPOCH, Some(set_of(["b", "a"])));
    assert_eq!(start(Some(&fits), Some("garbage")), Start::Resume(42));
    assert_eq!(start(None, Some(&fits)), Start::Resume(42));
    let other = text(EPOCH, Some(set_of(["a"])));
    assert_eq!(start(Some(&other), Some(&fits)), Start::Unknown);
    assert_eq!(start(None, Some(&other)), Start::Unknown);
    assert_eq!(start(Some(&text(EPOCH + 1, None)), Some(&fits)), Start::Unknown);
    assert_eq!(
        gate(hub(10).0).start(&owned(&NAMES), true, Some(b"\xff"), Some(&fits)),
        Start::Unknown
    );
}

/// Where the token names the channels, the same URL may stand for others next time.
#[test]
fn the_header_needs_a_set_where_the_url_does_not_name_the_channels() {
    let start = |cursor: &str| gate(hub(10).0).start(&owned(&NAMES), false, Some(cursor.as_bytes()), None);
    assert_eq!(start(&text(EPOCH, None)), Start::Unknown);
    assert_eq!(start(&text(EPOCH, Some(set_of(NAMES)))), Start::Resume(42));
}

#[test]
fn each_reason_is_logged_once() {
    let denials = [Denial::Unknown, Denial::Closed, Denial::Unknown];
    let denied = denials.into_iter().zip(["a", "b", "c"]);
    let denied = denied.map(|(denial, name)| (name.to_owned(), denial)).collect();
    assert_eq!(reasons(&denied), "closed, unknown");
}

#[test]
fn a_line_of_the_log_names_what_is_refused() {
    let denied = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Denial::Unknown)).collect();
    assert_eq!(listed(&denied(&["a", "b\nc"])), r#""a" (unknown), "b\nc" (unknown)"#);
    let long = "ü".repeat(1000);
    let many: Vec<String> = (0..1000).map(|number| format!("{number}{long}")).collect();
    let line = listed(&denied(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(line.len() < LOGGED + 100, "{}", line.len());
    assert!(line.ends_with("… (unknown), …"), "{line}");
}

#[tokio::test]
async fn all_are_opened_or_none() {
    let (hub, _appender) = hub(2);
    let gate = gate(hub.clone());
    let holder = gate.holder(gate.terms(), Credentials::default(), Visitor::default(), None);
    let holder = Arc::new(holder.unwrap());
    let open = async |names: &[&str]| {
        let deadline = Deadline::from_now();
        gate.open(&holder, &owned(names), true, deadline).await
    };
    let Err(Refused::ForGood(denied)) = open(&["a", "no:1", "", "no:2"]).await else {
        panic!("unknown channels are refused");
    };
    assert_eq!(denied.keys().collect::<Vec<_>>(), ["", "no:1", "no:2"]);
    assert_eq!((denied["no:1"].word(), denied[""].word()), ("unknown", "invalid"));
    assert_eq!(hub.channels(), 0, "nothing was opened");
    assert_eq!(
        open(&["a", "b", "c"]).await.unwrap_err(),
        Refused::Full(Limit::Channels)
    );
    let told = hub.interest();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|log| !is_kept(log)), "nothing of it is kept");
    assert_eq!(open(&["a", "b"]).await.unwrap().subscriptions.len(), 2);
}

/// A session may have gathered more names than one who waits may hold.
#[test]
fn a_renewal_is_judged_in_parts() {
    let names = |lengths: &[usize]| -> Vec<Name> { lengths.iter().map(|length| "x".repeat(*length).into()).collect() };
    let lengths = |lengths: &[usize]| -> Vec<usize> { parts(&names(lengths)).map(<[Name]>::len).collect() };
    assert!(lengths(&[]).is_empty());
    assert_eq!(lengths(&[1; 1_000]), [1_000]);
    assert_eq!(lengths(&[1_024; 64]), [64]);
    assert_eq!(lengths(&[1_024; 130]), [64, 64, 2]);
    assert_eq!(lengths(&[JUDGED_AT_ONCE, 1, JUDGED_AT_ONCE - 1, 1]), [1, 2, 1]);
}

/// A catalog that becomes another thing right after it was asked: the narrowest place for a reload to come in.
struct Turning {
    /// The ways to every channel.
    now: Arc<Mutex<Option<Vec<Access>>>>,
    /// Makes it another thing, once.
    turn: Turn,
}

type Turn = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

impl Catalog for Turning {
    fn access(&self, _: &str) -> Option<Vec<Access>> {
        let answer = self.now.lock().unwrap().clone();
        let turn = self.turn.lock().unwrap().take();
        if let Some(turn) = turn {
            turn();
        }
        answer
    }

    fn describe(&self, name: &str) -> Option<Channel> {
        let open = self.now.lock().unwrap().is_some();
        open.then(|| Channel::of_state(name))
    }
}

/// A gate whose catalog says `before` when it is first asked, and `after` from then on: the reload comes between the verdict
/// and the opening. `again`: nothing but the terms is another thing then, and credentials are judged again.
fn turning(before: Option<Vec<Access>>, after: Option<Vec<Access>>, again: Option<Live>) -> (Gate, Turn, Arc<Hub>) {
    let (now, turn) = (Arc::new(Mutex::new(before)), Turn::default());
    let catalog = Turning {
        now: now.clone(),
        turn: turn.clone(),
    };
    let (hub, mut appender) = Hub::new(Options::channels(10), EPOCH, catalog);
    let live = again.clone().unwrap_or_default();
    let limits = Limits::new(limits::Options::default(), Arc::default());
    let gate = Gate::new(hub.clone(), live, limits);
    *turn.lock().unwrap() = Some(Box::new(move || {
        appender.revise(Revision {
            concerned: |_: &str| true,
            change: || {
                *now.lock().unwrap() = after;
                if let Some(live) = again {
                    let places = Places {
                        cookie: Some("other".into()),
                        ..Places::default()
                    };
                    live.put(Live::letting(&[], places).terms().next(&options()));
                }
            },
            judge_again: true,
        });
    }));
    (gate, turn, hub)
}

fn options() -> super::super::Options {
    super::super::Options {
        listen: Vec::new(),
        path: String::new(),
        origins: Vec::new(),
        places: Places {
            cookie: Some("other".into()),
            ..Places::default()
        },
        access: crate::access::Options::default(),
        visitors: Default::default(),
        head: super::super::Head::default(),
        limits: limits::Options::default(),
        tls: None,
    }
}

async fn opened(gate: &Gate, credentials: Credentials) -> Result<Grant, Refused> {
    let holder = gate
        .holder(gate.terms(), credentials, Visitor::default(), None)
        .unwrap();
    gate.open(&Arc::new(holder), &owned(&["a"]), true, Deadline::from_now())
        .await
}

/// It was open when it was judged, and is not when it would be opened.
#[tokio::test]
async fn a_verdict_opens_nothing_that_became_another_thing_since() {
    let (open, shut) = (vec![vec![Way::Public]], vec![vec![]]);
    let (gate, turn, hub) = turning(Some(open.clone()), Some(shut), None);
    let Err(Refused::ForGood(denied)) = opened(&gate, Credentials::default()).await else {
        panic!("it is closed now");
    };
    assert_eq!(denied["a"].word(), "closed");
    assert!(turn.lock().unwrap().is_none(), "the reload came in between");
    assert!(hub.interest().iter().all(|log| !is_kept(log)), "nobody is left in it");
    // It went.
    let (gate, ..) = turning(Some(open.clone()), None, None);
    assert!(matches!(
        opened(&gate, Credentials::default()).await,
        Err(Refused::ForGood(denied)) if denied["a"].word() == "unknown"
    ));
    // It was closed, and opens: a browser that was refused would not ask again.
    let (gate, _, hub) = turning(Some(vec![vec![]]), Some(open), None);
    let grant = opened(&gate, Credentials::default()).await.unwrap();
    assert_eq!((grant.judged, grant.is_public), (hub.revision(), true));
    assert_eq!(grant.subscriptions[0].log().view().ended(), None);
}

/// What was shown may not be what would be looked for now.
#[tokio::test]
async fn who_has_shown_something_else_than_is_asked_for_now_is_to_come_back() {
    let open = Some(vec![vec![Way::Public]]);
    let (gate, ..) = turning(open.clone(), open.clone(), Some(Live::default()));
    let shown = Credentials {
        token: Some("text".into()),
        ..Credentials::default()
    };
    assert_eq!(opened(&gate, shown).await.unwrap_err(), Refused::Unavailable(CHANGED));
    let (gate, ..) = turning(open.clone(), open, Some(Live::default()));
    assert!(opened(&gate, Credentials::default()).await.is_ok(), "nothing was shown");
}

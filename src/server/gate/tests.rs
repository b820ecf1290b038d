//! Which channels are opened, where a client begins in them, and what is said of those that are not.

use super::*;
use crate::hub::{Cursor, Log};
use crate::limits;
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

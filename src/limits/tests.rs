//! Places are given, and come back when they are dropped.

use super::*;

fn limits(connections: usize, per_address: usize, per_subject: usize) -> Arc<Limits> {
    let options = Options {
        connections,
        connections_per_address: per_address,
        connections_per_subject: per_subject,
        ..Options::default()
    };
    Limits::new(options, Arc::default())
}

fn reached(limits: &Limits) -> Vec<(&'static str, u64)> {
    limits.counts().all().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn connections_are_counted_in_all() {
    let limits = limits(2, 100, 100);
    let (first, _second) = (limits.connection().unwrap(), limits.connection().unwrap());
    assert_eq!(limits.connection().unwrap_err(), Limit::Connections);
    assert_eq!(reached(&limits), [("connections", 1)]);
    drop(first);
    let third = limits.connection();
    assert!(third.is_ok() && limits.connection().is_err());
}

#[test]
fn few_are_told_at_once() {
    let limits = limits(1, 1, 1);
    let mut told: Vec<Permit> = (0..TOLD).map(|_| limits.told().unwrap()).collect();
    assert!(limits.told().is_none());
    told.pop();
    assert!(limits.told().is_some());
}

#[test]
fn an_address_holds_its_own() {
    let limits = limits(100, 1, 100);
    let [one, same, other] =
        ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse::<IpAddr>().unwrap());
    let held = limits.address(one).unwrap();
    assert_eq!(limits.address(same).unwrap_err().limit, Limit::ConnectionsPerAddress);
    assert!(limits.address(other).is_ok());
    drop(held);
    assert!(limits.address(same).is_ok());
    assert_eq!(reached(&limits), [("connections_per_address", 1)]);
}

#[test]
fn further_requests_count_as_connects() {
    let options = Options {
        connects: Rate {
            per_second: 1,
            burst: 3,
        },
        ..Options::default()
    };
    let limits = Limits::new(options, Arc::default());
    let address = "192.0.2.1".parse().unwrap();
    let _held = limits.address(address).unwrap();
    assert!(limits.again(address).is_ok() && limits.again(address).is_ok());
    assert_eq!(limits.again(address), Err(Limit::ConnectsPerSecond));
    assert_eq!(limits.address(address).unwrap_err().limit, Limit::ConnectsPerSecond);
    assert_eq!(reached(&limits), [("connects_per_second", 2)]);
}

#[test]
fn a_subject_holds_its_own_and_is_then_forgotten() {
    let limits = limits(100, 100, 2);
    let subject = |issuer: Option<&str>, name: &str| {
        limits.subject(Subject {
            issuer: issuer.map(str::to_owned),
            name: name.to_owned(),
        })
    };
    let ada = || subject(None, "ada");
    let held = [ada().unwrap(), ada().unwrap()];
    assert_eq!(ada().unwrap_err(), Limit::ConnectionsPerSubject);
    let others = [(None, "bob"), (Some("here"), "ada"), (Some("there"), "ada")];
    let others = others.map(|(issuer, name)| subject(issuer, name).unwrap());
    drop(held);
    assert_eq!(lock(&limits.subjects).len(), 3);
    drop(others);
    assert_eq!(lock(&limits.subjects).len(), 0);
    assert_eq!(reached(&limits), [("connections_per_subject", 1)]);
}

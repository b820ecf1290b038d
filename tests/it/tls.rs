//! TLS to the server: who is trusted, and what is said when nobody is.

use std::fs;

use crate::harness::{Authority, Client, Relay, Sse, TlsServer, eventually, mapping};
use crate::redis;

const MAPPING: &str = "key = \"v:{id}\"\nchannel = \"v\"";

/// A relay that gets the values and the changes of a server.
#[track_caller]
fn relays(tls: &TlsServer, upstream: &str) -> Relay {
    redis!(tls.server, "SET", "v:1", "one");
    let relay = Relay::reaching(upstream, "", &mapping(MAPPING));
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    client.sees("v", "v:1", "one");
    redis!(tls.server, "SET", "v:2", "two");
    client.sees("v", "v:2", "two");
    assert_eq!(
        encrypted_clients(tls),
        2,
        "feed and reader: {}",
        redis!(tls.server, "CLIENT", "LIST").text()
    );
    relay
}

/// The connections to the TLS port.
fn encrypted_clients(tls: &TlsServer) -> usize {
    let clients = redis!(tls.server, "CLIENT", "LIST").text();
    let there = format!("laddr={}", tls.address());
    let by_name = clients.lines().filter(|line| line.contains("name=keyrelay "));
    // KeyDB does not say at which port; there every connection of the relay is one to the TLS port.
    by_name
        .filter(|line| line.contains(&there) || !line.contains("laddr="))
        .count()
}

/// A relay that does not, and what it says of that.
#[track_caller]
fn refused(upstream: &str, words: &[&str]) {
    let relay = Relay::reaching(upstream, "", &mapping(MAPPING));
    eventually("the log says what is wrong", || {
        let log = relay.log();
        let line = log.lines().find(|line| line.contains("WARN"))?.to_owned();
        if let Some(missing) = words.iter().find(|word| !line.contains(*word)) {
            panic!("`{missing}` is not in: {line}");
        }
        Some(())
    });
    let mut client = Sse::open(&relay, &["v"]);
    client.control("stale");
}

#[test]
fn a_private_authority_is_trusted() {
    let tls = TlsServer::start();
    relays(&tls, &tls.upstream(&tls.authority.file()));
}

#[test]
fn a_server_is_known_by_its_name_in_the_url() {
    let tls = TlsServer::start();
    let ca = tls.authority.file();
    let upstream = tls.upstream(&ca).replace("127.0.0.1", "localhost");
    relays(&tls, &upstream);
}

#[test]
fn another_authority_is_not() {
    let tls = TlsServer::start();
    let stranger = Authority::new("a stranger");
    refused(
        &tls.upstream(&stranger.file()),
        &["not from an authority that is trusted", "ca_file"],
    );
    refused(
        &format!("url = \"rediss://{}\"", tls.address()),
        &["not from an authority that is trusted", "ca_file"],
    );
}

#[test]
fn another_name_is_not_unless_it_is_named() {
    let authority = Authority::new("keyrelay test authority");
    let shown = authority.issue("server", &["redis.internal"]);
    let tls = TlsServer::showing(authority, &shown, "tls-auth-clients no");
    let upstream = tls.upstream(&tls.authority.file());
    refused(
        &upstream,
        &["is for redis.internal, and not for 127.0.0.1", "server_name"],
    );
    relays(&tls, &upstream.replace(" }", ", server_name = \"redis.internal\" }"));
}

#[test]
fn an_expired_certificate_is_not() {
    let authority = Authority::new("keyrelay test authority");
    let shown = authority.issue_expired("server", &["127.0.0.1"]);
    let tls = TlsServer::showing(authority, &shown, "tls-auth-clients no");
    refused(
        &tls.upstream(&tls.authority.file()),
        &["the server's certificate has expired", "clock"],
    );
}

/// What `openssl req -x509` makes unless told otherwise.
#[test]
fn the_certificate_of_an_authority_is_no_servers() {
    let authority = Authority::new("keyrelay test authority");
    let upstream = |tls: &TlsServer| tls.upstream(&tls.authority.file());
    let tls = TlsServer::showing_itself(authority);
    refused(&upstream(&tls), &["itself that of an authority", "CA:TRUE"]);
}

#[test]
fn a_client_certificate_is_shown() {
    let authority = Authority::new("keyrelay test authority");
    let shown = authority.issue("server", &["127.0.0.1"]);
    let own = authority.issue("keyrelay", &[]);
    let stranger = Authority::new("a stranger");
    let foreign = stranger.issue("keyrelay", &[]);
    let tls = TlsServer::showing(authority, &shown, "tls-auth-clients yes");
    let upstream = tls.upstream(&tls.authority.file());
    let with = |certificate: &str, key: &str| {
        upstream.replace(
            " }",
            &format!(", certificate_file = \"{certificate}\", key_file = \"{key}\" }}"),
        )
    };
    let path = |path: &std::path::Path| path.display().to_string();
    refused(
        &upstream,
        &["wants a client certificate", "certificate_file and key_file"],
    );
    refused(
        &with(&path(&foreign.certificate), &path(&foreign.key)),
        &["does not accept our certificate", "certificate_file"],
    );
    relays(&tls, &with(&path(&own.certificate), &path(&own.key)));
}

/// Certificates that are replaced count from the next connection on.
#[test]
fn files_are_read_at_each_connect() {
    let authority = Authority::new("keyrelay test authority");
    let shown = authority.issue("server", &["127.0.0.1"]);
    let own = authority.issue("keyrelay", &[]);
    let tls = TlsServer::showing(authority, &shown, "tls-auth-clients yes");
    let upstream = tls.upstream(&tls.authority.file()).replace(
        " }",
        &format!(
            ", certificate_file = \"{}\", key_file = \"{}\" }}",
            own.certificate.display(),
            own.key.display()
        ),
    );
    let relay = relays(&tls, &upstream);
    let mut client = Sse::open(&relay, &["v"]);
    client.ready();
    let good = fs::read(&own.certificate).unwrap();
    fs::write(&own.certificate, "not a certificate").unwrap();
    redis!(tls.server, "CLIENT", "KILL", "TYPE", "pubsub");
    client.control("stale");
    eventually("the log says which file is of no use", || {
        relay.log().contains("keyrelay.pem holds no certificate").then_some(())
    });
    fs::write(&own.certificate, good).unwrap();
    client.control("fresh");
}

#[test]
fn tls_to_a_plain_port_and_the_other_way_round() {
    let tls = TlsServer::start();
    let ca = tls.authority.file();
    let plain = tls
        .upstream(&ca)
        .replace(&tls.address().to_string(), &tls.server.address().to_string());
    refused(&plain, &["redis:// in place of rediss://"]);
    refused(
        &format!("url = \"redis://{}\"", tls.address()),
        &["TLS port", "rediss:// in place of redis://"],
    );
}

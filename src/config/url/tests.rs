//! What a URL means, where a mistake in it is, and that its secrets stay in it.

use super::*;
use crate::upstream::Sentinels;

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp {
        host: host.into(),
        port,
    }
}

#[test]
fn urls_are_understood() {
    let url = parse("redis://127.0.0.1:6379/0").unwrap();
    assert_eq!(
        url,
        Url {
            address: tcp("127.0.0.1", 6379),
            topology: Topology::Server,
            tls: false,
            db: 0,
            username: None,
            password: None
        }
    );
    let url = parse("redis://app:p%40ss@db.internal/3").unwrap();
    assert_eq!(url.address, tcp("db.internal", 6379));
    assert_eq!(
        (url.username.as_deref(), url.password.as_deref(), url.db),
        (Some("app"), Some("p@ss"), 3)
    );
    let url = parse("redis://:a@b@[::1]:7000").unwrap();
    assert_eq!((url.address, url.password.as_deref()), (tcp("::1", 7000), Some("a@b")));
    let url = parse("rediss://cache.example.com/1").unwrap();
    assert_eq!(
        (url.address, url.tls, url.db),
        (tcp("cache.example.com", 6379), true, 1)
    );
    let url = parse("redis+unix:///run/redis/my%20redis.sock?db=2").unwrap();
    assert_eq!(
        (url.address, url.db),
        (Address::Unix("/run/redis/my redis.sock".into()), 2)
    );
    assert_eq!(
        parse("redis+unix://:secret@/run/r.sock").unwrap().password.as_deref(),
        Some("secret")
    );
}

#[test]
fn several_servers_are_understood() {
    let url =
        parse("redis-sentinel://app:p@a,b:7,[::1]/my%20keys?db=3&sentinelUsername=w&sentinelPassword=h%26h").unwrap();
    assert_eq!(
        (url.username.as_deref(), url.password.as_deref(), url.db),
        (Some("app"), Some("p"), 3)
    );
    let sentinels = Sentinels {
        name: "my keys".into(),
        addresses: vec![tcp("a", 26379), tcp("b", 7), tcp("::1", 26379)],
        username: Some("w".into()),
        password: Some("h&h".into()),
    };
    assert_eq!(url.topology, Topology::Sentinel(sentinels));
    assert_eq!(
        url.to_string(),
        "redis-sentinel://app:(secret)@a:26379,b:7,[::1]:26379/my keys?db=3"
    );
    let url = parse("rediss-cluster://a,b:7/0").unwrap();
    assert_eq!(
        (&url.topology, url.tls),
        (&Topology::Cluster(vec![tcp("a", 6379), tcp("b", 7)]), true)
    );
    assert_eq!(url.to_string(), "rediss-cluster://a:6379,b:7");
}

#[test]
fn mistakes_are_pointed_at() {
    for (text, at) in [
        ("127.0.0.1:6379", "127.0.0.1:6379"),
        ("http://host", "http"),
        ("redis-sentinel://host", ""),
        ("redis-sentinel://a,b:0/keys", "0"),
        ("redis-sentinel://a,b/keys/1", "/keys/1"),
        ("redis-sentinel://a/keys?db=x", "x"),
        ("redis-sentinel://a/keys?db=1&name=keys", "name"),
        ("redis-sentinel://a/keys?sentinelUsername=me", "?sentinelUsername=me"),
        ("redis-cluster://a,,b", ""),
        ("redis-cluster://a,b/1", "1"),
        ("redis-cluster://a,b?node=c", "?node=c"),
        ("redis+sentinel://a/keys", "redis+sentinel"),
        ("redis+tls://host", "redis+tls"),
        ("redis://", ""),
        ("redis://host:99999", "99999"),
        ("redis://host:0", "0"),
        ("redis://::1:6379", "::1"),
        ("redis://[::1:6379", "[::1"),
        ("redis://a b/0", "a b"),
        ("redis://host/one", "one"),
        ("redis://host?db=1", "?db=1"),
        ("redis+unix://run/redis.sock", "run/redis.sock"),
        ("redis+unix:///r.sock?database=1", "database=1"),
        ("redis://:%ff@host", "%ff"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(&text[error.at.clone()], at, "{error:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let url = parse("redis://app:hush@host:1/2").unwrap();
    assert_eq!(url.to_string(), "redis://app:(secret)@host:1/2");
    let url = parse("rediss://:hush@host").unwrap();
    assert_eq!(url.to_string(), "rediss://:(secret)@host:6379/0");
    assert_eq!(parse(&Url::default().to_string()), Ok(Url::default()));
}

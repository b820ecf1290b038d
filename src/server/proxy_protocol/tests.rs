//! Headers of both versions, whole, cut, and wrong.

use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::server::listen::Accepted;

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn v6(address: &str) -> [u8; 16] {
    address.parse::<Ipv6Addr>().unwrap().octets()
}

fn client(text: &str) -> Origin {
    Origin::Client(text.parse().unwrap())
}

/// Headers and who they name.
fn right() -> Vec<(Vec<u8>, Origin)> {
    let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 1, 187];
    let mut six = v6("2001:db8::9").to_vec();
    six.extend(v6("2001:db8::1"));
    six.extend([0x12, 0x34, 1, 187]);
    let mut with_more = v4.to_vec();
    with_more.extend([0xea, 0, 3, 1, 2, 3]);
    vec![
        (
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 443\r\n".to_vec(),
            client("203.0.113.9"),
        ),
        (
            b"PROXY TCP6 2001:db8::9 2001:db8::1 0 65535\r\n".to_vec(),
            client("2001:db8::9"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Proxy),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Origin::Proxy),
        (v2(0x21, 0x11, &v4), client("203.0.113.9")),
        (v2(0x21, 0x21, &six), client("2001:db8::9")),
        (v2(0x21, 0x11, &with_more), client("203.0.113.9")),
        (v2(0x20, 0x00, &[]), Origin::Proxy),
        (v2(0x20, 0x11, &v4), Origin::Proxy),
        (v2(0x20, 0x11, &[]), Origin::Proxy),
        (v2(0x21, 0x00, &[1, 2, 3]), Origin::Proxy),
        (v2(0x21, 0x31, &[0; 216]), Origin::Proxy),
        (v2(0x21, 0x00, &vec![7; MAX_BINARY - FIXED]), Origin::Proxy),
    ]
}

#[test]
fn a_header_is_read_wherever_it_is_cut() {
    for (header, origin) in right() {
        for cut in 0..header.len() {
            assert_eq!(parse(&header[..cut]), Ok(None), "{cut} of {}", header.escape_ascii());
        }
        for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"\r\n", b"PROXY "] {
            let bytes = [&header, behind].concat();
            assert_eq!(
                parse(&bytes),
                Ok(Some((origin, header.len()))),
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let mut wrong: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 203.0.113.9 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 1 2\n",
        "PROXY TCP4  203.0.113.9 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 1\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 1 65536\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 01 2\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 +1 2\r\n",
        "PROXY TCP4 203.0.113.09 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0 1 2\r\n",
        "PROXY TCP4 2001:db8::9 2001:db8::1 1 2\r\n",
        "PROXY TCP6 203.0.113.9 10.0.0.1 1 2\r\n",
        "PROXY UDP4 203.0.113.9 10.0.0.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "\r\n\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    wrong.push([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat());
    wrong.push(v2(0x11, 0x11, &[0; 12]));
    wrong.push(v2(0x22, 0x11, &[0; 12]));
    wrong.push(v2(0x21, 0x12, &[0; 12]));
    wrong.push(v2(0x21, 0x41, &[0; 12]));
    wrong.push(v2(0x21, 0x11, &[0; 11]));
    wrong.push(v2(0x21, 0x21, &[0; 35]));
    wrong.push(v2(0x21, 0x00, &vec![0; MAX_BINARY - FIXED + 1]));
    for bytes in wrong {
        assert_eq!(parse(&bytes), Err(Malformed), "{}", bytes.escape_ascii());
    }
    let line = |length: usize| [b"PROXY UNKNOWN ".as_slice(), &vec![b'x'; length - 16], b"\r\n"].concat();
    assert_eq!(parse(&line(MAX_LINE)), Ok(Some((Origin::Proxy, MAX_LINE))));
    assert_eq!(parse(&line(MAX_LINE + 1)), Err(Malformed));
}

/// A connection, and the client's end of it.
fn pair() -> (Io, UnixStream) {
    let (ours, theirs) = StdStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let io = Io::new(Accepted::Unix(ours), Duration::from_secs(30));
    (io, UnixStream::from_std(theirs).unwrap())
}

#[tokio::test]
async fn nothing_behind_the_header_is_taken() {
    for (header, origin) in right() {
        for size in [1, 7, header.len(), header.len() + 3] {
            let (mut io, mut client) = pair();
            let all = [header.as_slice(), b"GET /"].concat();
            let writing = async {
                for piece in all.chunks(size) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let (read, ()) = tokio::join!(read(&mut io), writing);
            assert_eq!(read.unwrap(), origin);
            let mut rest = String::new();
            io.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "GET /", "in pieces of {size}");
        }
    }
}

#[tokio::test]
async fn half_a_header_is_an_error() {
    let (mut io, mut client) = pair();
    client.write_all(b"PROXY TCP4 203.0").await.unwrap();
    drop(client);
    let error = read(&mut io).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Something near a header.
fn near() -> impl Strategy<Value = Vec<u8>> {
    let changed = (0..right().len(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(which, at, byte)| {
        let mut bytes = right().swap_remove(which).0;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let words = "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f.:]{0,12}){0,5}\r?\n?.{0,9}".prop_map(String::into_bytes);
    prop_oneof![changed, words, prop::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    /// No bytes panic; and what was decided stays so, whatever follows.
    #[test]
    fn more_bytes_change_no_decision(bytes in near(), more in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut decided = None;
        for end in 0..=bytes.len() {
            match (parse(&bytes[..end]), &decided) {
                (Ok(None), None) => {}
                (Ok(None), Some(_)) => prop_assert!(false, "a decision was taken back"),
                (result, None) => decided = Some(result),
                (result, Some(before)) => prop_assert_eq!(&result, before),
            }
        }
        let all = [bytes.as_slice(), &more].concat();
        if let Some(decided) = decided {
            prop_assert_eq!(parse(&all), decided);
            if let Ok(Some((_, length))) = decided {
                prop_assert!(length <= bytes.len());
            }
        }
        prop_assert!(bytes.len() < MAX_BINARY || decided.is_some());
    }
}

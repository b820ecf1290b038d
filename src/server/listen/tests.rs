//! Addresses, real sockets, and sockets of others.

use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::*;

fn tcp(address: &str) -> Listener {
    Listener::bind(&Address::Tcp(address.parse().unwrap())).unwrap()
}

fn port(listener: &Listener) -> u16 {
    match listener.address() {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => unreachable!("a TCP listener has a TCP address"),
    }
}

#[test]
fn any_free_port_is_taken_and_told() {
    let mut listener = tcp("127.0.0.1:0");
    assert_ne!(port(&listener), 0);
    let _client = std::net::TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
    let Accepted::Tcp { stream, peer } = listener.accept().unwrap() else {
        panic!("a TCP listener accepts TCP");
    };
    assert_eq!(peer, Some(Ipv4Addr::LOCALHOST.into()));
    assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Those of a socket that another process has bound do so, too; and those that came before are no exception.
#[test]
fn connections_inherit_how_they_treat_slow_clients() {
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited = Listener::inherit(Socket::from(OwnedFd::from(kept))).unwrap();
    for mut listener in [tcp("127.0.0.1:0"), inherited] {
        let address = ("127.0.0.1", port(&listener));
        let check = |listener: &mut Listener| {
            let Accepted::Tcp { stream, .. } = listener.accept().unwrap() else {
                panic!("a TCP listener accepts TCP");
            };
            let socket = SockRef::from(&stream);
            assert!(socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 64 << 10);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        };
        let _early = TcpStream::connect(address).unwrap();
        listener.limit_sends(Duration::from_secs(30)).unwrap();
        check(&mut listener);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(address).unwrap();
        check(&mut listener);
    }
}

#[test]
fn both_families_reach_the_unspecified_ipv6_address() {
    let Ok(listener) = Listener::bind(&Address::Tcp("[::]:0".parse().unwrap())) else {
        assert!(std::net::TcpListener::bind("[::1]:0").is_err(), "this machine has IPv6");
        return;
    };
    std::net::TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
}

#[test]
fn a_taken_port_is_an_error_with_a_remedy() {
    let listener = tcp("127.0.0.1:0");
    let error = Listener::bind(listener.address()).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}", port(&listener))), "{error}");
    assert!(error.contains("ss -ltnp"), "{error}");
}

#[test]
fn a_dead_servers_socket_file_is_replaced_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.sock");
    let address = Address::Unix(path.clone());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file");

    let listener = Listener::bind(&address).unwrap();
    let error = Listener::bind(&address).unwrap_err().to_string();
    assert!(error.contains("another process answers"), "{error}");
    drop(listener);
    assert!(!path.exists(), "the file goes with the listener");
}

#[test]
fn a_file_that_is_not_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.sock");
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&Address::Unix(path.clone())).unwrap_err().to_string();
    assert!(error.contains("not a socket"), "{error}");
    std::fs::remove_file(&path).unwrap();

    let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn what_another_process_keeps_is_not_closed_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.sock");
    let kept = UnixListener::bind(&path).unwrap();
    let mut listener = Listener::inherit(Socket::from(OwnedFd::from(kept.try_clone().unwrap()))).unwrap();
    assert_eq!(*listener.address(), Address::Unix(path.clone()));
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(listener);
    UnixStream::connect(&path).unwrap();

    let kept = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = kept.local_addr().unwrap();
    let mut listener = Listener::inherit(Socket::from(OwnedFd::from(kept.try_clone().unwrap()))).unwrap();
    assert_eq!(*listener.address(), Address::Tcp(address));
    let _client = std::net::TcpStream::connect(address).unwrap();
    assert!(matches!(listener.accept().unwrap(), Accepted::Tcp { .. }));
}

#[test]
fn a_socket_without_a_file_has_a_name() {
    let name = format!("keyrelay-test-listen-{}", std::process::id());
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
    let unready = Listener::inherit(socket.try_clone().unwrap()).unwrap_err();
    assert!(unready.to_string().contains("does not listen"), "{unready}");
    socket.listen(1).unwrap();
    let listener = Listener::inherit(socket).unwrap();
    assert_eq!(listener.address().to_string(), format!("unix:@{name}"));
}

#[test]
fn a_path_that_cannot_be_is_an_error_with_a_remedy() {
    let long = Address::Unix(format!("/run/{}", "x".repeat(120)).into());
    let error = Listener::bind(&long).unwrap_err().to_string();
    assert!(error.contains("107") && error.contains("shorter"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let missing = Address::Unix(dir.path().join("no/relay.sock"));
    let error = Listener::bind(&missing).unwrap_err().to_string();
    assert!(error.contains("create the directory"), "{error}");
}

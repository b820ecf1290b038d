//! Whether a request opens a WebSocket (RFC 6455 §4.2.1).

use hyper::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, StatusCode, Version};

use super::answer::Refusal;
use super::credentials::TOKEN_PROTOCOL;
use crate::transport::ws::SUBPROTOCOL;

/// The one version there is.
const VERSION: &str = "13";

/// What the answer is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// The client's `Sec-WebSocket-Key`.
    pub key: &'a [u8],
    /// The subprotocol to name in the answer: ours, if it was offered. A browser ends a connection that names another, and one
    /// that names none is fine with it.
    pub subprotocol: Option<&'static str>,
}

impl Handshake<'_> {
    /// Checks the request's head.
    pub fn parse(version: Version, headers: &HeaderMap) -> Result<Handshake<'_>, Refusal> {
        if !lists(headers, UPGRADE, "websocket") {
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "this URL speaks WebSocket: open it with `new WebSocket(…)`, and let proxies pass the headers Upgrade and \
                 Connection on",
            )
            .with(UPGRADE, "websocket")
            .with(CONNECTION, "Upgrade"));
        }
        if version != Version::HTTP_11 || !lists(headers, CONNECTION, "upgrade") {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "a WebSocket is opened with HTTP/1.1 and the header `Connection: Upgrade`: let proxies pass it on",
            ));
        }
        if headers
            .get(SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != VERSION)
        {
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "only version 13 of the WebSocket protocol is spoken here",
            )
            .with(SEC_WEBSOCKET_VERSION, VERSION)
            .with(UPGRADE, "websocket")
            .with(CONNECTION, "Upgrade"));
        }
        // 16 random bytes in base64; what is in them is the client's business.
        let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes());
        let Some(key) = key.filter(|key| key.len() == 24 && key.ends_with(b"==")) else {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "the header Sec-WebSocket-Key must hold 16 bytes in base64",
            ));
        };
        let offered = lists(headers, SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if !offered && offers_token(headers) {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "a token is offered beside the subprotocol: new WebSocket(url, [\"keyrelay.v1.json\", \"keyrelay.token.…\"])",
            ));
        }
        Ok(Handshake {
            key,
            subprotocol: offered.then_some(SUBPROTOCOL),
        })
    }
}

/// Whether a header's comma-separated list, in one line or in several, has this item.
fn lists(headers: &HeaderMap, name: HeaderName, item: &str) -> bool {
    let lines = headers.get_all(name);
    let mut items = lines
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    items.any(|offered| offered.trim().eq_ignore_ascii_case(item))
}

/// Whether a token is offered among the subprotocols. It cannot be the one that is answered, and a browser ends a connection
/// whose answer names none of those that it offered.
fn offers_token(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut items = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    items.any(|item| item.trim().starts_with(TOKEN_PROTOCOL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(changes: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let all = [
            (UPGRADE, "WebSocket"),
            (CONNECTION, "keep-alive, Upgrade"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in all.iter().chain(changes) {
            headers.insert(name, value.parse().unwrap());
        }
        headers
    }

    fn status(version: Version, changes: &[(HeaderName, &'static str)]) -> u16 {
        Handshake::parse(version, &request(changes)).map_or_else(|refusal| refusal.status.as_u16(), |_| 101)
    }

    #[test]
    fn a_browsers_request_is_taken() {
        let headers = request(&[]);
        let handshake = Handshake::parse(Version::HTTP_11, &headers).unwrap();
        assert_eq!(handshake.key, b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(handshake.subprotocol, None);
    }

    #[test]
    fn our_subprotocol_is_answered_among_others_and_no_other_is() {
        for (offered, chosen) in [
            ("keyrelay.v1.json", Some(SUBPROTOCOL)),
            ("graphql-ws, keyrelay.v1.json", Some(SUBPROTOCOL)),
            ("graphql-ws", None),
        ] {
            let mut headers = request(&[(SEC_WEBSOCKET_PROTOCOL, offered)]);
            assert_eq!(
                Handshake::parse(Version::HTTP_11, &headers).unwrap().subprotocol,
                chosen
            );
            headers.append(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL.parse().unwrap());
            assert!(
                Handshake::parse(Version::HTTP_11, &headers)
                    .unwrap()
                    .subprotocol
                    .is_some()
            );
        }
    }

    #[test]
    fn what_is_not_a_handshake_is_told_what_is_missing() {
        let v11 = Version::HTTP_11;
        assert_eq!(status(v11, &[]), 101);
        assert_eq!(status(Version::HTTP_10, &[]), 400);
        assert_eq!(status(v11, &[(UPGRADE, "h2c")]), 426);
        assert_eq!(status(v11, &[(CONNECTION, "close")]), 400);
        assert_eq!(status(v11, &[(SEC_WEBSOCKET_VERSION, "8")]), 426);
        assert_eq!(status(v11, &[(SEC_WEBSOCKET_KEY, "short==")]), 400);
        let headers = request(&[(SEC_WEBSOCKET_VERSION, "8")]);
        let refusal = Handshake::parse(v11, &headers).unwrap_err();
        assert!(refusal.headers.contains(&(SEC_WEBSOCKET_VERSION, "13")));
    }
}

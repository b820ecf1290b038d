//! What a client shows of itself in its request: explicit before ambient.
//!
//! The header `Authorization` counts before what a WebSocket offers as a subprotocol, that before the URL, and that
//! before a cookie: what a page has chosen to send says more than what its browser sends with everything.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use super::query::Query;
use crate::access::Credential;
use crate::access::jwt::MAX_TOKEN;

/// What stands before a token that is offered as a WebSocket subprotocol: a page cannot set headers there.
pub const TOKEN_PROTOCOL: &str = "keyrelay.token.";

/// Where credentials are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The cookie that holds a token; none is looked at without it.
    pub cookie: Option<String>,
    /// The parameter of the URL that holds a token.
    pub parameter: String,
    /// Whether the app is asked, so that any cookie and any `Authorization` may count.
    pub asks: bool,
}

impl Default for Places {
    /// No cookie, and the parameter `token`.
    fn default() -> Places {
        Places {
            cookie: None,
            parameter: "token".to_owned(),
            asks: false,
        }
    }
}

/// What a client shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token that counts, from the first place that has one.
    pub token: Option<String>,
    /// Whether it came as a cookie, which the app may renew without the page's doing.
    pub ambient: bool,
    /// There was a cookie, but it does not count: nothing says that a page of an allowed origin has sent it.
    pub untrusted: bool,
    /// Signed names of channels.
    pub signed: Vec<String>,
    /// For the app, if it is asked: `Authorization` as it came, or as it would be with the token that counts, and `Cookie` as it
    /// came, if cookies count. Boxed, as a WebSocket keeps it and most have none.
    pub for_app: Option<Box<Credential>>,
}

impl fmt::Debug for Credentials {
    /// Tells what there is, and nothing of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.is_some())
            .field("signed", &self.signed.len())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of a request. `trusts_cookies`: a page of an allowed origin has sent it, or no page.
    pub fn of(headers: &HeaderMap, query: &Query, places: &Places, trusts_cookies: bool) -> Credentials {
        let header = headers.get(AUTHORIZATION);
        let explicit = header
            .and_then(bearer)
            .or_else(|| offered(headers))
            .or_else(|| query.token.clone());
        let wanted = places.cookie.as_deref();
        let cookie = wanted.and_then(|name| cookie(headers, name));
        let counts = cookie.is_some() || places.asks && headers.contains_key(COOKIE);
        let untrusted = explicit.is_none() && !trusts_cookies && counts;
        let ambient = explicit.is_none() && trusts_cookies && cookie.is_some();
        let token = explicit.or_else(|| cookie.filter(|_| trusts_cookies)).map(cut);
        // Only the app looks at them. They are copied, for the request's own would keep all of its head.
        let copied = |bytes: &[u8]| HeaderValue::from_bytes(bytes).ok();
        let made = token.as_ref().filter(|_| !ambient);
        let made = || made.and_then(|token| copied(format!("Bearer {token}").as_bytes()));
        let authorization = || header.and_then(|header| copied(header.as_bytes())).or_else(made);
        let cookies = || {
            let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            copied(&lines.join(&b"; "[..])).filter(|joined| !joined.is_empty())
        };
        Credentials {
            ambient,
            untrusted,
            signed: query.signed.clone(),
            for_app: places
                .asks
                .then(|| for_app(authorization(), trusts_cookies.then(cookies).flatten()))
                .flatten(),
            token,
        }
    }

    /// Whether there is anything that was looked for in [`Places`].
    pub fn is_personal(&self) -> bool {
        self.token.is_some() || self.for_app.is_some()
    }

    /// Those of a client that shows this token in a message.
    pub fn of_token(token: String) -> Credentials {
        let token = cut(token);
        Credentials {
            for_app: for_app(HeaderValue::try_from(format!("Bearer {token}")).ok(), None),
            token: Some(token),
            ..Credentials::default()
        }
    }
}

fn for_app(authorization: Option<HeaderValue>, cookie: Option<HeaderValue>) -> Option<Box<Credential>> {
    (authorization.is_some() || cookie.is_some()).then(|| Credential { authorization, cookie }.into())
}

/// What is longer is no token, and need not be kept to be told so.
fn cut(mut token: String) -> String {
    if token.len() > MAX_TOKEN {
        token.truncate((0..=MAX_TOKEN + 1).rfind(|&at| token.is_char_boundary(at)).unwrap_or(0));
        token.push('…');
        token.shrink_to_fit();
    }
    token
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); other schemes are the app's business.
fn bearer(header: &HeaderValue) -> Option<String> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn offered(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut items = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    items.find_map(|item| item.trim().strip_prefix(TOKEN_PROTOCOL).map(str::to_owned))
}

/// The value of the first cookie of this name (RFC 6265 §5.4).
fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    let mut pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.trim() == wanted).then(|| bare.unwrap_or(value).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            cookie: Some("relay".into()),
            asks: true,
            ..Places::default()
        }
    }

    fn shown(headers: &[(&'static str, &str)], query: &str, trusts_cookies: bool) -> Credentials {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let query = Query::parse(None, query, "token", 10).unwrap();
        Credentials::of(&map, &query, &places(), trusts_cookies)
    }

    #[test]
    fn explicit_counts_before_ambient() {
        let header = ("authorization", "bearer  H");
        let protocol = ("sec-websocket-protocol", "keyrelay.v1.json, keyrelay.token.P");
        let cookie = ("cookie", "a=b; relay=\"C\"; relay=D");
        let token = |headers: &[(&'static str, &str)], query| {
            let shown = shown(headers, query, true);
            (shown.token.unwrap_or_default(), shown.ambient)
        };
        let all = [header, protocol, cookie];
        assert_eq!(token(&all, "token=Q"), ("H".into(), false));
        assert_eq!(token(&all[1..], "token=Q"), ("P".into(), false));
        assert_eq!(token(&all[2..], "token=Q"), ("Q".into(), false));
        assert_eq!(token(&all[2..], ""), ("C".into(), true));
        assert_eq!(token(&[("cookie", "xrelay=1; relay2=2")], ""), (String::new(), false));
        assert_eq!(token(&[("authorization", "Basic abc")], "token=Q"), ("Q".into(), false));
    }

    #[test]
    fn a_cookie_that_is_not_trusted_is_neither_used_nor_passed_on() {
        let all = [("cookie", "relay=C"), ("authorization", "Basic abc")];
        let nothing = shown(&all, "", false);
        let for_app = nothing.for_app.unwrap();
        assert!(nothing.untrusted && nothing.token.is_none() && for_app.cookie.is_none());
        assert_eq!(for_app.authorization.unwrap(), "Basic abc");
        assert!(!shown(&all, "token=Q", false).untrusted);
        assert_eq!(shown(&all, "token=Q", false).token.as_deref(), Some("Q"));
        assert_eq!(shown(&[], "", false), Credentials::default());
    }

    #[test]
    fn nothing_is_kept_that_nobody_looks_at() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1".parse().unwrap());
        headers.append(COOKIE, "b=2".parse().unwrap());
        headers.insert(AUTHORIZATION, "Basic abc".parse().unwrap());
        let query = Query::parse(None, &format!("token={}", "x".repeat(60_000)), "token", 10).unwrap();
        let kept = Credentials::of(&headers, &query, &Places::default(), true);
        assert!(kept.for_app.is_none());
        assert!(kept.token.unwrap().len() < MAX_TOKEN + 10);
        let asked = Credentials::of(&headers, &query, &places(), true);
        assert_eq!(asked.for_app.unwrap().cookie.unwrap(), "a=1; b=2");
        let shown = Credentials::of_token("x".repeat(60_000));
        assert!(shown.token.unwrap().capacity() < MAX_TOKEN + 10);
        assert!(shown.for_app.unwrap().authorization.unwrap().len() < MAX_TOKEN + 20);
    }

    #[test]
    fn nothing_of_a_credential_is_told() {
        let text = format!(
            "{:?}",
            shown(&[("cookie", "relay=sesame")], "token=sesame&signed=sesame", true)
        );
        assert!(!text.contains("sesame"), "{text}");
    }
}

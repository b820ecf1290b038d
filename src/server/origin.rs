//! Which web pages may read what is served here: the pages of the server's own origin, and those listed.
//!
//! A page of another origin is refused whatever it asks for. Its browser would keep most answers from it anyway, for want of
//! `Access-Control-Allow-Origin`; but it does not ask that for a WebSocket, and what is not sent cannot leak.

use hyper::HeaderMap;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HOST, HeaderValue, ORIGIN, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};

/// The request headers that pages may set: those of an authorised `fetch` of a stream, and those that htmx and Datastar
/// put on every request.
const ALLOWED_HEADERS: &str = "authorization, cache-control, content-type, last-event-id, x-requested-with, \
     datastar-request, hx-request, hx-source, hx-target, hx-current-url, hx-request-type, hx-boosted";

/// Seconds for which a browser need not ask again: 10 minutes, so that a changed list of origins is soon seen.
const MAX_AGE: &str = "600";

/// The configured origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    listed: Vec<String>,
    any: bool,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not from a page, or from one of the server's own origin on a request where browsers name none.
    None,
    /// A page of the server's own origin.
    Same,
    /// A page of a listed origin; it may send credentials.
    Listed,
    /// A page of any other origin, and all are allowed; credentials are not.
    Any,
    /// A page that may not read this.
    Foreign,
}

impl Origins {
    /// `*` allows every origin, without credentials.
    pub fn new(origins: &[String]) -> Origins {
        let (any, listed) = origins.iter().cloned().partition::<Vec<_>, _>(|origin| origin == "*");
        Origins {
            listed,
            any: !any.is_empty(),
        }
    }

    /// Judges the request with these headers.
    pub fn judge(&self, headers: &HeaderMap) -> Verdict {
        let Some(origin) = headers.get(ORIGIN) else {
            return Verdict::None;
        };
        let text = origin.to_str().unwrap_or_default();
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        // A page cannot set the header Sec-Fetch-Site; its browser does, and knows the origin even where a proxy has
        // changed Host, and the scheme, which Host does not tell.
        let fetch_site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        if self.listed.iter().any(|listed| covers(listed, text)) {
            Verdict::Listed
        } else if fetch_site.map_or_else(|| is_same(text, host), |site| site == b"same-origin") {
            Verdict::Same
        } else if self.any {
            Verdict::Any
        } else {
            Verdict::Foreign
        }
    }

    /// Judges a page of another origin than the server's own.
    pub fn of_page(&self, origin: &HeaderValue) -> Verdict {
        let text = origin.to_str().unwrap_or_default();
        match self.listed.iter().any(|listed| covers(listed, text)) {
            true => Verdict::Listed,
            false if self.any => Verdict::Any,
            false => Verdict::Foreign,
        }
    }

    /// The headers of any answer to a request with these headers.
    pub fn headers(&self, request: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // A token may stand in the URL, which is nobody else's business.
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        match (self.judge(request), request.get(ORIGIN)) {
            (Verdict::Listed, Some(origin)) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
            (Verdict::Any, _) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            _ => {}
        }
        headers
    }
}

/// Whether the cookies of a request count. Browsers send them with whatever any page asks for, so there must be a word of
/// the browser that it was a page that may read this: its origin; without one, that no other site is behind the request.
/// Any page may open a WebSocket, so there only the origin counts.
pub fn trusts_cookies(verdict: Verdict, headers: &HeaderMap, is_web_socket: bool) -> bool {
    match verdict {
        Verdict::Same | Verdict::Listed => true,
        Verdict::Any | Verdict::Foreign => false,
        Verdict::None if is_web_socket => false,
        Verdict::None => {
            let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
            matches!(site, None | Some(b"same-origin" | b"none"))
        }
    }
}

/// What an answer to `OPTIONS` has beyond [`Origins::headers`].
pub fn preflight(headers: &mut HeaderMap, methods: &'static str) {
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
}

/// Whether a listed origin is this one. `https://*.example.com` is every host below example.com, and not that one itself;
/// `http://localhost:*` is that host with every port, its own among them.
fn covers(listed: &str, origin: &str) -> bool {
    if let Some(listed) = listed.strip_suffix(":*") {
        let port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        return match origin.rsplit_once(':') {
            Some((host, text)) if port(text) => covers(listed, host),
            _ => covers(listed, origin),
        };
    }
    let Some((scheme, domain)) = listed.split_once("*.") else {
        return listed.eq_ignore_ascii_case(origin);
    };
    let origin = origin.to_ascii_lowercase();
    let host = origin.strip_prefix(scheme).and_then(|rest| rest.strip_suffix(domain));
    let below = host.and_then(|host| host.strip_suffix('.'));
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    below.is_some_and(|below| !below.is_empty() && below.bytes().all(name))
}

/// Whether an origin's host and port are those that the request was sent to. The scheme cannot be compared: a proxy in
/// front may have taken TLS away.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let (Some((scheme, authority)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    let default = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let bare = |authority: &str| {
        authority
            .strip_suffix(default)
            .unwrap_or(authority)
            .to_ascii_lowercase()
    };
    !authority.is_empty() && bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(origin: &str, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if !origin.is_empty() {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn own_and_listed_origins_are_told_from_foreign_ones() {
        let origins = Origins::new(&["https://app.example.com".into(), "http://localhost:3000".into()]);
        let judge = |origin, host| origins.judge(&request(origin, host));
        assert_eq!(judge("", "relay"), Verdict::None);
        assert_eq!(judge("https://app.example.com", "relay"), Verdict::Listed);
        assert_eq!(judge("http://localhost:3000", "relay"), Verdict::Listed);
        assert_eq!(judge("https://relay", "relay"), Verdict::Same);
        assert_eq!(judge("https://Relay", "relay:443"), Verdict::Same);
        assert_eq!(judge("http://relay:80", "relay"), Verdict::Same);
        assert_eq!(judge("http://[::1]:7400", "[::1]:7400"), Verdict::Same);
        for foreign in [
            "http://app.example.com",
            "https://app.example.com.evil.com",
            "https://evil.com",
            "http://relay:8080",
            "https://relay:80",
            "null",
            "relay",
            "file://relay",
            "https://",
        ] {
            assert_eq!(judge(foreign, "relay"), Verdict::Foreign, "{foreign}");
        }
        assert_eq!(origins.judge(&request("null", "")), Verdict::Foreign);
    }

    #[test]
    fn a_pattern_covers_the_hosts_below_a_domain() {
        let origins = Origins::new(&["https://*.example.com".into(), "http://*.test.local:3000".into()]);
        for listed in [
            "https://app.example.com",
            "https://a.b.Example.com",
            "http://x.test.local:3000",
        ] {
            assert_eq!(origins.judge(&request(listed, "relay")), Verdict::Listed, "{listed}");
        }
        for foreign in [
            "https://example.com",
            "https://.example.com",
            "http://app.example.com",
            "https://appexample.com",
            "https://app.example.com.evil.org",
            "https://evil.org/.example.com",
            "https://evil.org:1.example.com",
            "https://evil.org@x.example.com",
            "https://app.example.com:444",
            "http://x.test.local",
        ] {
            assert_eq!(origins.judge(&request(foreign, "relay")), Verdict::Foreign, "{foreign}");
        }
    }

    #[test]
    fn a_host_may_be_listed_with_every_port() {
        let listed = [
            "http://localhost:*",
            "https://localhost:*",
            "http://[::1]:*",
            "http://127.0.0.1:*",
        ];
        let origins = Origins::new(&listed.map(str::to_owned));
        for listed in [
            "http://localhost",
            "http://localhost:5173",
            "https://LocalHost:8443",
            "http://[::1]:3000",
            "http://[::1]",
            "http://127.0.0.1:80",
        ] {
            assert_eq!(origins.judge(&request(listed, "relay")), Verdict::Listed, "{listed}");
        }
        for foreign in [
            "http://localhost.evil.com",
            "http://localhost:5173.evil.com",
            "http://localhost:",
            "http://evil.com:5173",
            "http://evil.com/http://localhost:1",
            "http://x@localhost:1",
            "https://[::1]:3000",
            "http://[::1:3000",
            "http://127.0.0.10:80",
            "null",
        ] {
            assert_eq!(origins.judge(&request(foreign, "relay")), Verdict::Foreign, "{foreign}");
        }
    }

    #[test]
    fn cookies_count_where_the_browser_vouches_for_the_page() {
        let trusts = |verdict, site: &str, is_web_socket| {
            let mut headers = HeaderMap::new();
            if !site.is_empty() {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            trusts_cookies(verdict, &headers, is_web_socket)
        };
        assert!(trusts(Verdict::Same, "", true) && trusts(Verdict::Listed, "cross-site", true));
        assert!(!trusts(Verdict::Any, "", false) && !trusts(Verdict::Foreign, "", false));
        assert!(trusts(Verdict::None, "", false) && trusts(Verdict::None, "same-origin", false));
        assert!(trusts(Verdict::None, "none", false), "the address bar");
        assert!(!trusts(Verdict::None, "cross-site", false) && !trusts(Verdict::None, "same-site", false));
        assert!(
            !trusts(Verdict::None, "same-origin", true),
            "a browser names the origin of a WebSocket"
        );
    }

    #[test]
    fn a_browser_may_vouch_for_a_page_behind_a_proxy_that_changes_host() {
        let mut headers = request("https://shop.example", "10.0.0.7:7400");
        assert_eq!(Origins::new(&[]).judge(&headers), Verdict::Foreign);
        headers.insert("sec-fetch-site", "same-site".parse().unwrap());
        assert_eq!(Origins::new(&[]).judge(&headers), Verdict::Foreign);
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        assert_eq!(Origins::new(&[]).judge(&headers), Verdict::Same);
        // The page of the same host without TLS, which whoever sits in between can write.
        let mut headers = request("http://relay", "relay");
        headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
        assert_eq!(Origins::new(&[]).judge(&headers), Verdict::Foreign);
    }

    #[test]
    fn only_a_listed_origin_may_send_credentials() {
        let origins = Origins::new(&["*".into(), "https://app.example.com".into()]);
        let headers = origins.headers(&request("https://app.example.com", "relay"));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        let headers = origins.headers(&request("https://other.example", "relay"));
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        for (list, origin) in [
            (vec!["*".into()], ""),
            (vec![], "https://other.example"),
            (vec![], "https://relay"),
        ] {
            let headers = Origins::new(&list).headers(&request(origin, "relay"));
            assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin}");
            assert_eq!(headers[VARY], "Origin");
        }
    }
}

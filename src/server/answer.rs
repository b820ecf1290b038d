//! Answers that are whole at once: JSON, refusals, preflights.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Serialize;

use crate::transport::sse;

/// Bytes of an answer that a client reads in a second, on the whole: a bad mobile line does. The largest, which is half of all
/// that bodies may take together, is let go after some four minutes; who is slower can read the same as a stream.
const LEAST_RATE: u64 = 256 << 10;

/// A whole answer.
pub type Answer = Response<Full<Bytes>>;

/// What a client is told that gets no stream and no state.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// The status code.
    #[serde(skip)]
    pub status: StatusCode,
    /// What is wrong, and what to do instead.
    pub error: String,
    /// The channels that are refused, each with why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, String>,
    /// After how long it may go better.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// Headers that the status requires.
    #[serde(skip)]
    pub headers: Vec<(HeaderName, &'static str)>,
}

impl Refusal {
    /// A refusal for good.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal {
            status,
            error: error.into(),
            channels: BTreeMap::new(),
            retry_after: None,
            headers: Vec::new(),
        }
    }

    /// A refusal for now.
    pub fn for_now(error: impl Into<String>, retry_after: Duration) -> Refusal {
        Refusal {
            retry_after: Some(retry_after),
            ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }

    /// The wrong method for this URL.
    pub fn method(allow: &'static str) -> Refusal {
        let error = format!("this URL takes {allow} only");
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error).with(ALLOW, allow)
    }

    /// With one more header.
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Refusal {
        self.headers.push((name, value));
        self
    }

    /// As a response; `headers` are those that every answer to this request has.
    pub fn answer(&self, headers: HeaderMap) -> Answer {
        let body = serde_json::to_vec(self).expect("strings become JSON");
        let mut answer = json(self.status, body.into(), headers);
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: 0 would invite the client back at once.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        for (name, value) in &self.headers {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// A JSON body. Nothing that is served here may be cached: it is true now only, and perhaps for this client only.
pub fn json(status: StatusCode, body: Bytes, mut headers: HeaderMap) -> Answer {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    whole(status, body, headers)
}

/// No body.
pub fn empty(status: StatusCode, headers: HeaderMap) -> Answer {
    whole(status, Bytes::new(), headers)
}

/// A stream that ends at once: any status but 200 would end a browser's EventSource for good, so this is how it is told to
/// come back later.
pub fn stream_that_ends(body: Bytes, headers: HeaderMap) -> Answer {
    let mut headers = stream_headers(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    whole(StatusCode::OK, body, headers)
}

/// The headers of a stream of events, with those that every answer to the request has.
pub fn stream_headers(mut headers: HeaderMap) -> HeaderMap {
    for (name, value) in sse::HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn whole(status: StatusCode, body: Bytes, headers: HeaderMap) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// Headers as texts that write heads take them.
pub fn lines(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// How long all of an answer may take to be read, by a client that may take nothing for `write_timeout`: it is held in memory
/// until then, and is not there for as long as somebody takes a byte now and then.
pub fn time_to_read(answer: &Answer, write_timeout: Duration) -> Duration {
    let size = answer.body().size_hint().lower();
    write_timeout + Duration::from_millis(size * 1_000 / LEAST_RATE)
}

/// The head of an answer that is written without hyper.
pub fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn a_head_is_written_line_by_line() {
        let mut headers = HeaderMap::new();
        headers.insert("b", HeaderValue::from_static("2"));
        let text = String::from_utf8(head(StatusCode::SWITCHING_PROTOCOLS, &headers)).unwrap();
        assert_eq!(text, "HTTP/1.1 101 Switching Protocols\r\nb: 2\r\n\r\n");
    }

    #[tokio::test]
    async fn a_refusal_names_channels_and_when_to_come_back() {
        let mut refusal = Refusal::for_now("later", Duration::from_millis(1_001));
        refusal.channels.insert("a\"b".into(), "why".into());
        let answer = refusal.answer(HeaderMap::new());
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[RETRY_AFTER]),
            (503, &"2".parse().unwrap())
        );
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"error":"later","channels":{"a\"b":"why"}}"#);
        assert_eq!(Refusal::method("GET").answer(HeaderMap::new()).headers()[ALLOW], "GET");
    }
}

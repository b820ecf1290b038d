//! `keyrelay tail --url`: a client of a running relay, over Server-Sent Events.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::delivery;
use super::heard::Word;
use super::output::{Closed, Output};
use super::sse::{Event, Parser};
use crate::access::http::{Client, Streamed, Url};
use crate::cli::shown::shown;

/// When to come back if nobody says.
const RETRY: Duration = Duration::from_secs(2);

/// Comes back no sooner than this, whatever a server says.
const LEAST_RETRY: Duration = Duration::from_millis(100);

/// What an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest body of a refusal that is read.
const REFUSAL: usize = 64 << 10;

/// What is asked for.
pub(super) struct Wanted {
    /// Where the relay is: scheme, host, and the path below which its URLs stand.
    pub url: String,
    pub channel: String,
    pub token: Option<String>,
    pub json: bool,
}

/// The head of a refusal's body.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    channels: BTreeMap<String, String>,
}

/// How a stream came to its end.
enum End {
    /// Come back.
    Lost(String),
    /// Nobody reads any more.
    Closed,
}

/// Tells of every delivery until nobody reads any more, through any number of connections.
///
/// # Errors
/// If the relay refuses the channel or ends the stream for good; if it is not reached the first time.
pub(super) async fn tail(wanted: &Wanted, output: &Output<String>) -> anyhow::Result<()> {
    let url = events(&wanted.url, &wanted.channel)?;
    let mut place = Place {
        cursor: None,
        retry: RETRY,
    };
    let client = Client::new();
    let mut was_there = false;
    loop {
        let lost = match connect(&client, &url, wanted, &place).await {
            Ok(Ok(stream)) => {
                was_there = true;
                say(Word::Connected, &format!("connected to {url}"), wanted, output).await;
                match follow(stream, wanted, &mut place, output).await? {
                    End::Closed => return Ok(()),
                    End::Lost(why) => why,
                }
            }
            Ok(Err(refused)) => return Err(refused),
            Err(error) if was_there => format!("{error:#}"),
            Err(error) => return Err(error.context(format!("no answer of {url}"))),
        };
        let said = format!("lost: {lost}; trying again in {} ms", place.retry.as_millis());
        say(Word::Lost, &said, wanted, output).await;
        sleep(place.retry).await;
    }
}

/// Where to go on, and when.
struct Place {
    cursor: Option<String>,
    retry: Duration,
}

/// The URL of the channel's events.
fn events(base: &str, channel: &str) -> anyhow::Result<Url> {
    anyhow::ensure!(
        !base.contains(['?', '#']),
        "--url takes no query: name the channel after it, and show a token by --token-file"
    );
    // What is wrong is told of what was written, so that it can be written as it is told.
    let url =
        Url::parse(base).map_err(|error| anyhow::anyhow!("--url {base}: {error}: {}; {}", error.why, error.instead))?;
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("channel", channel)
        .finish();
    let events = url.below(&["/events"], &format!("/events?{query}"));
    events.context("--url and the channel make no URL")
}

/// Opens the stream. The outer error may get better, the inner one is a refusal.
async fn connect(
    client: &Client,
    url: &Url,
    wanted: &Wanted,
    place: &Place,
) -> anyhow::Result<anyhow::Result<Streamed>> {
    let mut request = Request::get("/").header(ACCEPT, "text/event-stream");
    if let Some(token) = &wanted.token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .context("the token has characters that no header can have")?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(cursor) = &place.cursor {
        request = request.header(HeaderName::from_static("last-event-id"), cursor);
    }
    let request = request.body(Full::<Bytes>::default())?;
    let stream = timeout(PATIENCE, client.open(url, request))
        .await
        .with_context(|| format!("nothing came for {PATIENCE:?}"))??;
    let is_stream = stream.head.headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"text/event-stream")
    });
    match stream.head.status {
        StatusCode::OK if is_stream => Ok(Ok(stream)),
        StatusCode::OK => Ok(Err(anyhow::anyhow!(
            "what answers at {url} sends no events: is it keyrelay, and is its `path` in the URL?"
        ))),
        // Of the relay when it has no room, or of a proxy while the relay behind it starts.
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => anyhow::bail!("{url} answers {status}"),
        _ => Ok(Err(refusal(stream).await)),
    }
}

/// What the relay, or whoever stands before it, says of why not.
async fn refusal(mut stream: Streamed) -> anyhow::Error {
    let mut body = Vec::new();
    while let Ok(Some(Ok(bytes))) = timeout(PATIENCE, stream.next()).await
        && body.len() < REFUSAL
    {
        body.extend_from_slice(&bytes);
    }
    let status = stream.head.status;
    if let Some(location) = stream.head.headers.get(LOCATION).filter(|_| status.is_redirection()) {
        return anyhow::anyhow!("it has moved to {}: give that to --url", shown(location.as_bytes()));
    }
    let said = match serde_json::from_slice::<Refusal>(&body) {
        Ok(Refusal { error, channels }) if channels.is_empty() => error,
        Ok(Refusal { error, channels }) => {
            let each = channels.iter().map(|(channel, why)| format!("{channel}: {why}"));
            format!("{error}: {}", each.collect::<Vec<_>>().join("; "))
        }
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    anyhow::anyhow!("refused ({status}): {}", shown(said.as_bytes()))
}

/// Hands on the events of one connection.
async fn follow(
    mut stream: Streamed,
    wanted: &Wanted,
    place: &mut Place,
    output: &Output<String>,
) -> anyhow::Result<End> {
    let mut parser = Parser::default();
    loop {
        let bytes = match stream.next().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return Ok(End::Lost(error.to_string())),
            None => return Ok(End::Lost("the stream has ended".to_owned())),
        };
        let mut events = Vec::new();
        parser.read(&bytes, &mut |event| events.push(event))?;
        if let Some(retry) = parser.retry {
            place.retry = retry.max(LEAST_RETRY);
        }
        for event in events {
            if let Some(id) = &event.id {
                place.cursor = Some(id.clone()).filter(|id| !id.is_empty());
            }
            let line = delivery::line(&wanted.channel, &event, wanted.json);
            if let Err(Closed) = output.send(line.len(), line).await {
                return Ok(End::Closed);
            }
            if let Some(ended) = ended(&event) {
                return ended.map(|why| End::Lost(why.into_owned()));
            }
        }
    }
}

/// Whether the event is the stream's last: why, or that it ends for good.
fn ended(event: &Event) -> Option<anyhow::Result<Cow<'static, str>>> {
    #[derive(Deserialize)]
    struct Ended {
        reason: String,
        reconnect: bool,
        message: Option<String>,
    }
    if delivery::control(event) != Some("end") {
        return None;
    }
    let Ok(Ended {
        reason,
        reconnect,
        message,
    }) = serde_json::from_str(&event.data)
    else {
        return Some(Ok("the stream has ended".into()));
    };
    Some(match reconnect {
        true => Ok(format!("the relay ends the stream: {reason}").into()),
        false => Err(anyhow::anyhow!(
            "the relay ends the stream for good: {}",
            shown(message.unwrap_or(reason).as_bytes())
        )),
    })
}

/// That nobody reads any more shows at the next event.
async fn say(word: Word, text: &str, wanted: &Wanted, output: &Output<String>) {
    let line = delivery::status(word, text, wanted.json);
    let _ = output.send(line.len(), line).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_channel_stands_below_the_path() {
        for (base, path) in [
            ("http://127.0.0.1:7400", "http://127.0.0.1:7400/events"),
            ("http://127.0.0.1:7400/", "http://127.0.0.1:7400/events"),
            ("http://127.0.0.1:7400/events", "http://127.0.0.1:7400/events"),
            ("http://127.0.0.1:7400/events/", "http://127.0.0.1:7400/events"),
            ("https://example.com/keyrelay/", "https://example.com/keyrelay/events"),
        ] {
            assert_eq!(events(base, "cart:42&a").unwrap().to_string(), path);
        }
        for base in [
            "http://127.0.0.1/?token=x",
            "127.0.0.1:7400",
            "ftp://localhost",
            "http://example.com",
        ] {
            let error = events(base, "cart:42").unwrap_err().to_string();
            assert!(error.contains("--url"), "{error}");
        }
        let error = events("localhost:7912/", "cart:42").unwrap_err().to_string();
        assert!(error.ends_with("; write http://localhost:7912/"), "{error}");
    }

    #[test]
    fn an_end_says_whether_to_come_back() {
        let end = |data: &str| {
            ended(&Event {
                name: Some("keyrelay.end".into()),
                data: data.into(),
                id: None,
            })
        };
        assert!(matches!(
            end("{\"reason\":\"drain\",\"reconnect\":true,\"retry\":5}"),
            Some(Ok(_))
        ));
        let told = end("{\"reason\":\"expired\",\"reconnect\":false,\"message\":\"get a new token\"}");
        let told = told.unwrap().unwrap_err().to_string();
        assert!(told.contains("get a new token"), "{told}");
        assert!(ended(&Event::default()).is_none());
    }
}

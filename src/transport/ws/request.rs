//! What a WebSocket client may ask for.

use std::fmt;

use serde_json::{Map, Value};

/// Bytes that a `ref` may take, as it is sent back with every answer.
const MAX_REFERENCE: usize = 128;

/// A message of a client.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// `{"type":"subscribe","channels":["a","b"],"cursor":"…"?,"ref":1?}`
    Subscribe {
        /// The channels to add; at least one.
        channels: Vec<String>,
        /// How far the client was, as it was told; any text, known or not.
        cursor: Option<String>,
        /// What the client calls this request.
        reference: Option<u64>,
    },
    /// `{"type":"unsubscribe","channels":["a"],"ref":1?}`
    Unsubscribe {
        /// The channels to remove; at least one.
        channels: Vec<String>,
        /// What the client calls this request.
        reference: Option<u64>,
    },
    /// `{"type":"renew","token":"…","ref":1?}`
    Renew {
        /// What the client shows of itself from now on.
        token: String,
        /// What the client calls this request, a number or a string, as JSON.
        reference: Option<String>,
    },
    /// `{"type":"ping","ref":1?}`
    Ping {
        /// What the client calls this request, a number or a string, as JSON.
        reference: Option<String>,
    },
}

/// What is wrong with a client's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct RequestError {
    /// A sentence for whoever writes the client.
    pub what: String,
    /// What the client calls the request, as JSON, if that much could be read.
    pub reference: Option<String>,
}

impl fmt::Debug for Request {
    /// Tells nothing of a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Subscribe {
                channels,
                cursor,
                reference,
            } => f
                .debug_struct("Subscribe")
                .field("channels", channels)
                .field("cursor", cursor)
                .field("reference", reference)
                .finish(),
            Request::Unsubscribe { channels, reference } => f
                .debug_struct("Unsubscribe")
                .field("channels", channels)
                .field("reference", reference)
                .finish(),
            Request::Renew { token: _, reference } => f
                .debug_struct("Renew")
                .field("reference", reference)
                .finish_non_exhaustive(),
            Request::Ping { reference } => f.debug_struct("Ping").field("reference", reference).finish(),
        }
    }
}

impl Request {
    /// Reads one text message. Members that are not known are passed over, so that newer clients are understood.
    ///
    /// # Errors
    /// If it is not JSON, of no known type, or a member is missing, too long or of the wrong type.
    pub fn parse(text: &str) -> Result<Request, RequestError> {
        let nameless = |what: String| RequestError { what, reference: None };
        let message: Value =
            serde_json::from_str(text).map_err(|error| nameless(format!("the message is not JSON: {error}")))?;
        let Value::Object(members) = message else {
            return Err(nameless("a message is a JSON object with a `type`".to_owned()));
        };
        let reference = reference(&members).map_err(nameless)?;
        let named = |what: String| RequestError {
            what,
            reference: reference.clone(),
        };
        match members.get("type") {
            Some(Value::String(kind)) => match kind.as_str() {
                "subscribe" => Ok(Request::Subscribe {
                    channels: channels(&members).map_err(named)?,
                    cursor: cursor(&members).map_err(named)?,
                    reference: number(&members).map_err(named)?,
                }),
                "unsubscribe" => Ok(Request::Unsubscribe {
                    channels: channels(&members).map_err(named)?,
                    reference: number(&members).map_err(named)?,
                }),
                "renew" => match members.get("token") {
                    Some(Value::String(token)) => Ok(Request::Renew {
                        token: token.clone(),
                        reference,
                    }),
                    _ => Err(named("`token` must be a string".to_owned())),
                },
                "ping" => Ok(Request::Ping { reference }),
                // What a stranger wrote is repeated only in part.
                other => Err(named(format!(
                    "there is no message of type {:?}; send `subscribe`, `unsubscribe`, `renew` or `ping`",
                    other.chars().take(40).collect::<String>()
                ))),
            },
            Some(_) => Err(named("`type` must be a string".to_owned())),
            None => Err(named(
                "the message has no `type`; send `subscribe`, `unsubscribe`, `renew` or `ping`".to_owned(),
            )),
        }
    }
}

fn reference(members: &Map<String, Value>) -> Result<Option<String>, String> {
    let reference = match members.get("ref") {
        None | Some(Value::Null) => return Ok(None),
        Some(reference @ (Value::Number(_) | Value::String(_))) => reference.to_string(),
        Some(_) => return Err("`ref` must be a number or a string".to_owned()),
    };
    if reference.len() > MAX_REFERENCE {
        return Err(format!("`ref` is longer than {MAX_REFERENCE} bytes"));
    }
    Ok(Some(reference))
}

/// The reference of a request that is answered for many channels at different times.
fn number(members: &Map<String, Value>) -> Result<Option<u64>, String> {
    match members.get("ref") {
        None | Some(Value::Null) => Ok(None),
        Some(reference) => reference
            .as_u64()
            .map(Some)
            .ok_or_else(|| "`ref` must be a whole number, not negative".to_owned()),
    }
}

fn channels(members: &Map<String, Value>) -> Result<Vec<String>, String> {
    let Some(Value::Array(names)) = members.get("channels") else {
        return Err("`channels` must be a list of channel names".to_owned());
    };
    if names.is_empty() {
        return Err("`channels` names no channel".to_owned());
    }
    let names = names.iter().map(|name| match name {
        Value::String(name) => Ok(name.clone()),
        _ => Err("`channels` must hold nothing but strings".to_owned()),
    });
    names.collect()
}

fn cursor(members: &Map<String, Value>) -> Result<Option<String>, String> {
    match members.get("cursor") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(cursor)) => Ok(Some(cursor.clone())),
        Some(_) => Err("`cursor` must be a string, as `ready` gave it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_read() {
        assert_eq!(
            Request::parse(r#"{"type":"subscribe","channels":["a","b"],"cursor":"c","ref":1,"new":true}"#),
            Ok(Request::Subscribe {
                channels: vec!["a".into(), "b".into()],
                cursor: Some("c".into()),
                reference: Some(1),
            })
        );
        assert_eq!(
            Request::parse(r#"{"type":"unsubscribe","channels":["a"]}"#),
            Ok(Request::Unsubscribe {
                channels: vec!["a".into()],
                reference: None,
            })
        );
        assert_eq!(
            Request::parse(r#"{"type":"ping","ref":"x\"y"}"#),
            Ok(Request::Ping {
                reference: Some(r#""x\"y""#.into()),
            })
        );
    }

    #[test]
    fn nothing_of_a_token_is_told() {
        let request = Request::parse(r#"{"type":"renew","token":"sesame","ref":7}"#).unwrap();
        let token = "sesame".to_owned();
        let reference = Some("7".to_owned());
        assert_eq!(request, Request::Renew { token, reference });
        let text = format!("{request:?}");
        assert!(!text.contains("sesame") && text.contains('7'), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |text: &str| Request::parse(text).unwrap_err().to_string();
        assert!(wrong("subscribe").starts_with("the message is not JSON: "));
        assert!(wrong(&"[".repeat(100_000)).starts_with("the message is not JSON: "));
        assert_eq!(wrong("[]"), "a message is a JSON object with a `type`");
        assert_eq!(
            wrong("{}"),
            "the message has no `type`; send `subscribe`, `unsubscribe`, `renew` or `ping`"
        );
        assert_eq!(wrong(r#"{"type":1}"#), "`type` must be a string");
        assert_eq!(
            wrong(r#"{"type":"publish"}"#),
            "there is no message of type \"publish\"; send `subscribe`, `unsubscribe`, `renew` or `ping`"
        );
        assert_eq!(
            wrong(r#"{"type":"ping","ref":{}}"#),
            "`ref` must be a number or a string"
        );
        assert_eq!(
            wrong(r#"{"type":"subscribe","channels":"a"}"#),
            "`channels` must be a list of channel names"
        );
        assert_eq!(
            wrong(r#"{"type":"subscribe","channels":[]}"#),
            "`channels` names no channel"
        );
        assert_eq!(
            wrong(r#"{"type":"subscribe","channels":[1]}"#),
            "`channels` must hold nothing but strings"
        );
        assert_eq!(
            wrong(r#"{"type":"subscribe","channels":["a"],"cursor":1}"#),
            "`cursor` must be a string, as `ready` gave it"
        );
        let long = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(MAX_REFERENCE));
        assert_eq!(wrong(&long), "`ref` is longer than 128 bytes");
    }

    #[test]
    fn an_error_carries_the_reference_it_could_read() {
        let error = Request::parse(r#"{"type":"publish","ref":7}"#).unwrap_err();
        assert_eq!(error.reference.as_deref(), Some("7"));
    }
}

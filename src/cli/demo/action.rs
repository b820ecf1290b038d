//! What a click writes: the few things that the page may ask for, each as commands of the server.

use serde::Deserialize;

/// Longest text in characters: a line of the page.
const TEXT: usize = 80;

/// Longest name in characters.
const NAME: usize = 24;

/// How many greetings are kept.
const GREETINGS: i32 = 20;

/// Seconds that a user is there without a word. The page says it every five; browsers let a page that nobody looks at do
/// so but once a minute.
const THERE: u32 = 15;
const THERE_HIDDEN: u32 = 75;

/// One click, or what the page says by itself.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Action {
    /// Switches the light.
    Light {
        /// Whether it is to be on.
        on: bool,
    },
    /// Counts.
    Count {
        /// 1 or -1.
        by: i8,
    },
    /// Says hi.
    Hi {
        /// By which the page knows its own.
        id: String,
        /// Who.
        name: String,
        /// What.
        text: String,
    },
    /// A user is there, or still is.
    Enter {
        /// Which one.
        id: String,
        /// What it is called.
        name: String,
        /// Whether nobody looks at its page.
        hidden: bool,
    },
    /// A user goes.
    Leave {
        /// Which one.
        id: String,
    },
    /// Writes a key of the room.
    Set {
        /// The last part of the key.
        name: String,
        /// What it holds from now on.
        value: String,
    },
    /// Deletes a key of the room.
    Delete {
        /// The last part of the key.
        name: String,
    },
}

impl Action {
    /// The commands that do it in a region; the reply to the last is the answer.
    ///
    /// # Errors
    /// If a text in it is too long, or is none that may stand in a key.
    pub fn commands(self, region: &str) -> Result<Vec<Vec<String>>, String> {
        let set = |key: &str, value: String| vec![vec!["SET".to_owned(), key.to_owned(), value]];
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        Ok(match self {
            Action::Light { on } => set("light", if on { "on" } else { "off" }.to_owned()),
            Action::Count { by: 1 } => vec![words(&["INCR", "counter"])],
            Action::Count { by: -1 } => vec![words(&["DECR", "counter"])],
            Action::Count { .. } => return Err("`by` is 1 or -1".to_owned()),
            Action::Hi { id, name, text } => {
                let (id, name, text) = (part("id", &id)?, line("name", &name, NAME)?, line("text", &text, TEXT)?);
                let greeting = serde_json::json!({ "id": id, "name": name, "region": region, "text": text });
                vec![
                    words(&["LPUSH", "hi", &greeting.to_string()]),
                    words(&["LTRIM", "hi", "0", &(GREETINGS - 1).to_string()]),
                ]
            }
            Action::Enter { id, name, hidden } => {
                let key = format!("user:{region}:{}", part("id", &id)?);
                let seconds = if hidden { THERE_HIDDEN } else { THERE };
                vec![words(&[
                    "SET",
                    &key,
                    line("name", &name, NAME)?,
                    "EX",
                    &seconds.to_string(),
                ])]
            }
            Action::Leave { id } => vec![words(&["DEL", &format!("user:{region}:{}", part("id", &id)?)])],
            Action::Set { name, value } => set(&in_room(&name)?, line("value", &value, TEXT)?.to_owned()),
            Action::Delete { name } => vec![words(&["DEL", &in_room(&name)?])],
        })
    }
}

/// The key of this name in the one room that the page shows.
fn in_room(name: &str) -> Result<String, String> {
    Ok(format!("room:lobby:{}", part("name", name)?))
}

/// A part of a key.
fn part<'a>(what: &str, text: &'a str) -> Result<&'a str, String> {
    match text.contains(':') {
        true => Err(format!("`{what}` may not contain `:`, which divides a key")),
        false => line(what, text, NAME),
    }
}

fn line<'a>(what: &str, text: &'a str, most: usize) -> Result<&'a str, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("`{what}` must be one line that is not empty"));
    }
    match text.chars().count() > most {
        true => Err(format!("`{what}` has at most {most} characters")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(json: &str) -> Result<Vec<String>, String> {
        let action: Action = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let commands = action.commands("ams")?;
        Ok(commands.into_iter().map(|words| words.join(" ")).collect())
    }

    #[test]
    fn each_click_is_a_command_or_two() {
        for (json, expected) in [
            (r#"{"do":"light","on":true}"#, "SET light on"),
            (r#"{"do":"light","on":false}"#, "SET light off"),
            (r#"{"do":"count","by":1}"#, "INCR counter"),
            (r#"{"do":"count","by":-1}"#, "DECR counter"),
            (
                r#"{"do":"enter","id":"u1","name":"a fox","hidden":false}"#,
                "SET user:ams:u1 a fox EX 15",
            ),
            (
                r#"{"do":"enter","id":"u1","name":"a fox","hidden":true}"#,
                "SET user:ams:u1 a fox EX 75",
            ),
            (r#"{"do":"leave","id":"u1"}"#, "DEL user:ams:u1"),
            (
                r#"{"do":"set","name":"topic","value":"a \"b\""}"#,
                "SET room:lobby:topic a \"b\"",
            ),
            (r#"{"do":"delete","name":"topic"}"#, "DEL room:lobby:topic"),
        ] {
            assert_eq!(commands(json).expect(json), [expected]);
        }
        assert_eq!(
            commands(r#"{"do":"hi","id":"u1-1","name":"a fox","text":"<b>\"hi\"</b>"}"#).expect("a greeting"),
            [
                r#"LPUSH hi {"id":"u1-1","name":"a fox","region":"ams","text":"<b>\"hi\"</b>"}"#,
                "LTRIM hi 0 19"
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = "x".repeat(81);
        for (json, expected) in [
            (r#"{"do":"flushall"}"#, "unknown variant `flushall`"),
            (r#"{"do":"light","on":true,"key":"x"}"#, "unknown field `key`"),
            (r#"{"do":"count","by":2}"#, "`by` is 1 or -1"),
            (r#"{"do":"set","name":"a:b","value":"x"}"#, "`name` may not contain `:`"),
            (r#"{"do":"set","name":"","value":"x"}"#, "`name` must be one line"),
            (r#"{"do":"set","name":"a\nb","value":"x"}"#, "`name` must be one line"),
            (
                &format!(r#"{{"do":"set","name":"a","value":"{long}"}}"#),
                "`value` has at most 80 characters",
            ),
            (r#"{"do":"leave","id":"../../x:y"}"#, "`id` may not contain `:`"),
        ] {
            let error = commands(json).expect_err(json);
            assert!(error.contains(expected), "{error}");
        }
    }
}

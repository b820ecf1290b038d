//! The form of a payload in one line, for those who ask what a mapping sends.

use std::fmt;

use super::{Decode, Form, Renderer};

impl fmt::Display for Renderer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.form {
            Form::Json => "json: an object with channel, key and value",
            Form::Raw(_) => "raw: the string as it is",
            Form::Template(_) => "template: what it makes of the value",
        })?;
        if let Some(fields) = &self.fields {
            write!(f, "; of the value only {}", fields.names().join(", "))?;
        }
        if self.options.decode == Decode::Json {
            f.write_str("; text that is JSON is sent as JSON")?;
        }
        if self.options.expires {
            f.write_str("; with the time at which the key expires")?;
        }
        if self.options.heard {
            f.write_str("; with the time at which a change was heard of")?;
        }
        Ok(())
    }
}

//! Whether clients are served what is true: every part that this takes, with what is wrong and since when.

use std::fmt;
use std::time::SystemTime;

use httpdate::fmt_http_date;

use super::Sources;
use crate::relay::stats::{Condition, Trouble};

/// One of the things that must be well.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is about, and what is said of it where it is well.
    name: String,
    well: &'static str,
    ill: &'static str,
    trouble: Option<Trouble>,
    since: Option<SystemTime>,
}

impl Part {
    /// What is wrong with it, without the detail; none if nothing is.
    pub fn brief(&self) -> Option<String> {
        let Part { name, ill, trouble, .. } = self;
        trouble
            .as_ref()
            .map(|trouble| format!("{name} {ill}: {}", trouble.reason))
    }
}

/// All parts, as they are now.
pub fn parts(sources: &Sources) -> Vec<Part> {
    let draining = sources.drain.is_cancelled().then(|| Trouble {
        reason: "drain",
        detail: "it goes down in order".into(),
    });
    let mut parts = vec![Part {
        name: "keyrelay".into(),
        well: "takes clients",
        ill: "takes no clients",
        trouble: draining,
        since: None,
    }];
    for node in sources.relay.nodes() {
        let part = |condition: Condition, well, ill| Part {
            name: format!("upstream {}", node.address),
            well,
            ill,
            trouble: condition.trouble,
            since: Some(condition.since),
        };
        parts.push(part(node.heard, "is heard", "is not heard"));
        parts.push(part(node.readable, "is read", "cannot be read"));
        parts.push(part(node.current, "is current", "may be behind"));
    }
    parts
}

/// Whether all is well, and a line for each part that is not; with `verbose`, for each part.
pub fn text(parts: &[Part], verbose: bool) -> (bool, String) {
    let ready = is_ready(parts);
    let told = parts.iter().filter(|part| verbose || part.trouble.is_some());
    let mut text: String = told.map(|part| format!("{part}\n")).collect();
    if text.is_empty() {
        text.push_str("ready\n");
    }
    (ready, text)
}

/// A line for each part that is not well.
pub fn problems(parts: &[Part]) -> Vec<String> {
    let ill = parts.iter().filter(|part| part.trouble.is_some());
    ill.map(Part::to_string).collect()
}

/// Whether all is well.
pub fn is_ready(parts: &[Part]) -> bool {
    parts.iter().all(|part| part.trouble.is_none())
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { name, well, ill, .. } = self;
        match &self.trouble {
            None => write!(f, "[+] {name} {well}")?,
            Some(Trouble { reason, detail }) => {
                // Some reasons are several lines of advice.
                let detail: Vec<&str> = detail.split_whitespace().collect();
                write!(f, "[-] {name} {ill}: {reason}: {}", detail.join(" "))?;
            }
        }
        match self.since {
            Some(since) => write!(f, ", since {}", fmt_http_date(since)),
            None => Ok(()),
        }
    }
}

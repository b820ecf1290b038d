//! Config files, whatever is in them.

use std::path::Path;

use crate::config::compile;
use crate::mapping::{Mappings, Rule};

/// Compiles a config: it is understood, or every problem says what to write instead.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Other files are not to be read: neither by the names of the options, nor by such a name in escapes.
    if ["include", "_file", "\\u", "\\U", "\\x"]
        .iter()
        .any(|word| text.contains(word))
    {
        return;
    }
    let environment = |name: &str| (name == "SET").then(|| "value".to_owned());
    match compile(Path::new("fuzz.toml"), text.to_owned(), &environment) {
        Ok(config) => {
            let rules = config.mappings.iter().map(|rule| Rule {
                subject: rule.subject,
                pattern: rule.pattern.clone(),
                channel: rule.channel.clone(),
            });
            assert!(
                Mappings::new(rules.collect()).is_ok(),
                "a config was taken that cannot be run"
            );
            for name in config.mappings.iter().filter_map(|rule| rule.event_name.as_deref()) {
                assert!(!name.is_empty() && !name.contains(['\r', '\n', '\0']), "{name:?}");
            }
        }
        Err(problems) => assert!(!problems.to_string().trim().is_empty()),
    }
}

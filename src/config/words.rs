//! Every option that a config may hold.

/// The sections of a config file, the mappings' first line being `[[mapping]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// What stands before the first header.
    Top,
    /// `[server]`
    Server,
    /// `[admin]`
    Admin,
    /// `[limits]`
    Limits,
    /// `[log]`
    Log,
    /// `[upstream]`
    Upstream,
    /// `[access]`
    Access,
    /// `[defaults]`
    Defaults,
    /// `[[mapping]]`
    Mapping,
    /// `retain = { … }` of a mapping or of the defaults
    Retain,
    /// `tls = { … }` of `[upstream]`
    Tls,
    /// `[[access.jwt]]`
    Jwt,
    /// `[[access.signed]]`
    Signed,
    /// `tls = { … }` of `[server]`
    ServerTls,
}

impl Section {
    /// All sections, in the order of the documented file.
    pub const ALL: [Section; 14] = [
        Section::Top,
        Section::Server,
        Section::Limits,
        Section::Admin,
        Section::Log,
        Section::Upstream,
        Section::Access,
        Section::Defaults,
        Section::Mapping,
        Section::Retain,
        Section::Tls,
        Section::Jwt,
        Section::Signed,
        Section::ServerTls,
    ];

    /// How the section is written in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Section::Top => "the top of the file",
            Section::Server => "`[server]`",
            Section::Limits => "`[limits]`",
            Section::Admin => "`[admin]`",
            Section::Log => "`[log]`",
            Section::Upstream => "`[upstream]`",
            Section::Access => "`[access]`",
            Section::Defaults => "`[defaults]`",
            Section::Mapping => "`[[mapping]]`",
            Section::Retain => "`retain`",
            Section::Tls => "`tls` of `[upstream]`",
            Section::Jwt => "`[[access.jwt]]`",
            Section::Signed => "`[[access.signed]]`",
            Section::ServerTls => "`tls` of `[server]`",
        }
    }

    /// Every option of the section.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Section::Top => &[
                "include", "server", "limits", "admin", "log", "upstream", "access", "defaults", "mapping",
            ],
            Section::Server => &[
                "listen",
                "path",
                "origins",
                "proxies",
                "client_address",
                "heartbeat",
                "write_timeout",
                "drain",
                "max_channels",
                "tls",
            ],
            Section::Limits => &[
                "connections",
                "connections_per_address",
                "connections_per_subject",
                "connects_per_second",
                "connects_burst",
                "channels_per_connection",
                "messages_per_second",
                "messages_burst",
                "message_size",
                "head_size",
                "head_timeout",
                "lifetime",
                "channels_per_address",
                "subscriptions",
                "keys",
                "keys_per_channel",
                "log_bytes",
                "pinned",
                "scan_share",
            ],
            Section::Admin => &["listen"],
            Section::Log => &["level", "format"],
            Section::Upstream => &[
                "url",
                "url_file",
                "username",
                "password",
                "password_file",
                "tls",
                "source",
                "notifications",
                "verify",
            ],
            Section::Access => &["cookie", "token_parameter", "ask", "jwt", "signed"],
            // All options of a mapping but the four that only one mapping can have.
            Section::Defaults => MAPPING.split_at(4).1,
            Section::Mapping => &MAPPING,
            Section::Retain => &["messages", "bytes", "age"],
            Section::Tls => &["ca_file", "certificate_file", "key_file", "server_name"],
            Section::Jwt => &[
                "algorithm",
                "secret",
                "secret_file",
                "public_key_file",
                "jwks_url",
                "issuer",
                "audience",
            ],
            Section::Signed => &[
                "scheme",
                "secret_key_base",
                "secret_key_base_file",
                "salt",
                "digest",
                "key",
                "key_file",
                "purpose",
            ],
            Section::ServerTls => &["certificate_file", "key_file", "client_ca_file", "client_certificates"],
        }
    }

    /// The section in which an option belongs that was found in this one.
    pub(crate) fn home_of(self, option: &str) -> Option<Section> {
        // Two sections have a `tls`, with options of the same names.
        if matches!(self, Section::Tls | Section::ServerTls) {
            // What stands there belongs to the one or the other, and its name is most likely the mistake.
            return None;
        }
        let own = (self == Section::Server).then_some(Section::ServerTls);
        own.into_iter()
            .chain(Section::ALL)
            .find(|section| *section != Section::Defaults && section.options().contains(&option))
    }
}

/// The options of a mapping; the first four cannot be defaults.
const MAPPING: [&str; 22] = [
    "key",
    "subscribe",
    "channel",
    "access",
    "mode",
    "on",
    "event_name",
    "linger",
    "snapshot",
    "retain",
    "max_value",
    "min_interval",
    "poll",
    "expires",
    "heard",
    "fields",
    "decode",
    "format",
    "template",
    "template_file",
    "absent",
    "on_reset",
];

/// How an option might look, for those who gave it the wrong type.
pub(crate) fn example(option: &str) -> &'static str {
    match option {
        "include" => "[\"conf.d/*.toml\"]",
        "server" => "[server]",
        "limits" => "[limits]",
        "admin" => "[admin]",
        "log" => "[log]",
        "upstream" => "[upstream]",
        "defaults" => "[defaults]",
        "mapping" => "[[mapping]]",
        "listen" => "[\"127.0.0.1:7400\"]",
        "path" => "\"/live\"",
        "origins" => "[\"https://app.example.com\"]",
        "proxies" => "[\"127.0.0.1\", \"10.0.0.0/8\", \"unix\"]",
        "client_address" => "\"x-forwarded-for\"",
        "url" => "\"redis://127.0.0.1:6379/0\"",
        "url_file" | "password_file" => "\"/run/secrets/redis\"",
        "username" => "\"keyrelay\"",
        "password" => "\"${REDIS_PASSWORD}\"",
        "tls" => "{ certificate_file = \"/etc/keyrelay/tls.pem\", key_file = \"/etc/keyrelay/tls.key\" }",
        "ca_file" | "client_ca_file" | "certificate_file" => "\"/etc/keyrelay/tls.pem\"",
        "key_file" => "\"/etc/keyrelay/tls.key\"",
        "client_certificates" => "\"required\"",
        "server_name" => "\"redis.internal\"",
        "cookie" => "\"keyrelay\"",
        "token_parameter" => "\"token\"",
        "ask" => "\"http://127.0.0.1:3000/keyrelay\"",
        "jwt" => "[[access.jwt]]",
        "signed" => "[[access.signed]]",
        "algorithm" => "\"HS256\"",
        "secret" | "secret_key_base" => "\"${SECRET}\"",
        "secret_file" | "secret_key_base_file" => "\"/run/secrets/app\"",
        "public_key_file" => "\"/etc/keyrelay/tokens.pem\"",
        "jwks_url" => "\"https://login.example.com/.well-known/jwks.json\"",
        "issuer" => "\"https://login.example.com/\"",
        "audience" | "purpose" => "\"keyrelay\"",
        "scheme" => "\"rails\"",
        "salt" => "\"turbo/signed_stream_verifier_key\"",
        "digest" => "\"SHA256\"",
        "source" => "\"notifications\"",
        "notifications" => "\"ensure\"",
        "poll" => "\"1s\"",
        "verify" => "\"60s\"",
        "level" => "\"info\"",
        "key" | "channel" => "\"cart:{user}\"",
        "subscribe" => "\"news:{topic}\"",
        "access" => "\"public\"",
        "mode" => "\"state\"",
        "on" => "[\"set\", \"del\"]",
        "event_name" => "\"update\"",
        "snapshot" | "expires" | "heard" => "true or false",
        "retain" => "{ messages = 256, bytes = \"4MiB\", age = \"5m\" }",
        "messages" => "256",
        "max_channels" => "100_000",
        "connections" => "50_000",
        "channels_per_connection" => "1_000",
        "connections_per_address" | "connects_burst" => "200",
        "connections_per_subject" | "messages_burst" => "100",
        "connects_per_second" | "messages_per_second" => "20",
        "message_size" | "head_size" => "\"64KiB\"",
        "lifetime" => "\"1d\"",
        "channels_per_address" => "10_000",
        "subscriptions" | "keys" => "1_000_000",
        "keys_per_channel" => "100_000",
        "log_bytes" => "\"1GiB\"",
        "pinned" => "\"64MiB\"",
        "scan_share" => "10",
        "fields" => "[\"name\", \"total\"]",
        "decode" | "format" => "\"json\"",
        "template" | "absent" | "on_reset" => "\"<li>{{ key }}</li>\"",
        "template_file" => "\"row.html\"",
        "bytes" | "max_value" => "\"1MiB\"",
        // What is left are durations.
        _ => "\"30s\"",
    }
}

/// The word nearest to a misspelt one, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&written, word), word))
        // A third of the letters may be wrong, so that short words are not taken for one another.
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_words_find_home() {
        let mapping = Section::Mapping.options();
        assert_eq!(nearest("chanel", mapping.iter().copied()), Some("channel"));
        assert_eq!(nearest("Channel", mapping.iter().copied()), Some("channel"));
        assert_eq!(nearest("min-interval", mapping.iter().copied()), Some("min_interval"));
        assert_eq!(nearest("colour", mapping.iter().copied()), None);
        assert_eq!(Section::Log.home_of("heartbeat"), Some(Section::Server));
        assert_eq!(Section::Server.home_of("key_file"), Some(Section::ServerTls));
        assert_eq!(Section::Upstream.home_of("key_file"), Some(Section::Tls));
    }

    #[test]
    fn defaults_hold_what_mappings_hold() {
        for option in ["key", "subscribe", "channel", "access"] {
            assert!(Section::Mapping.options().contains(&option));
            assert!(!Section::Defaults.options().contains(&option));
        }
        assert!(Section::Defaults.options().contains(&"mode"));
    }
}

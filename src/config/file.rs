//! A config as it was written: every option that is there, with its place, and nothing yet of what it means.

mod access;
mod mapping;

use std::sync::Arc;

use toml::de::DeTable;

use super::diagnostics::{At, Problem, Problems};
use super::reader::{List, Reader, Table, Written};
use super::variables::Environment;
use super::words::Section;
pub(crate) use access::{Access, Jwt, Signed};
pub(crate) use mapping::{Claim, Mapping, MappingOptions, WrittenAccess};

/// One file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) include: Option<List>,
    pub(crate) server: Server,
    pub(crate) limits: Limits,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    pub(crate) upstream: Upstream,
    pub(crate) access: Access,
    pub(crate) defaults: MappingOptions,
    pub(crate) mappings: Vec<Mapping>,
    /// The sections that are there, and where.
    pub(crate) sections: Vec<(Section, At)>,
}

/// `[server]`
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) listen: Option<List>,
    pub(crate) path: Option<Written<String>>,
    pub(crate) origins: Option<List>,
    pub(crate) proxies: Option<List>,
    pub(crate) client_address: Option<Written<String>>,
    pub(crate) heartbeat: Option<Written<String>>,
    pub(crate) write_timeout: Option<Written<String>>,
    pub(crate) drain: Option<Written<String>>,
    pub(crate) max_channels: Option<Written<i64>>,
    pub(crate) tls: Option<ServerTls>,
}

/// `tls = { … }` of `[server]`
#[derive(Debug)]
pub(crate) struct ServerTls {
    pub(crate) at: At,
    pub(crate) certificate_file: Option<Written<String>>,
    pub(crate) key_file: Option<Written<String>>,
    pub(crate) client_ca_file: Option<Written<String>>,
    pub(crate) client_certificates: Option<Written<String>>,
}

/// `[limits]`
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) connections: Option<Written<i64>>,
    pub(crate) connections_per_address: Option<Written<i64>>,
    pub(crate) connections_per_subject: Option<Written<i64>>,
    pub(crate) connects_per_second: Option<Written<i64>>,
    pub(crate) connects_burst: Option<Written<i64>>,
    pub(crate) channels_per_connection: Option<Written<i64>>,
    pub(crate) messages_per_second: Option<Written<i64>>,
    pub(crate) messages_burst: Option<Written<i64>>,
    pub(crate) message_size: Option<Written<String>>,
    pub(crate) head_size: Option<Written<String>>,
    pub(crate) head_timeout: Option<Written<String>>,
    pub(crate) lifetime: Option<Written<String>>,
    pub(crate) channels_per_address: Option<Written<i64>>,
    pub(crate) subscriptions: Option<Written<i64>>,
    pub(crate) keys: Option<Written<i64>>,
    pub(crate) keys_per_channel: Option<Written<i64>>,
    pub(crate) log_bytes: Option<Written<String>>,
    pub(crate) pinned: Option<Written<String>>,
    pub(crate) scan_share: Option<Written<i64>>,
}

/// `[admin]`
#[derive(Debug, Default)]
pub(crate) struct Admin {
    pub(crate) listen: Option<Written<String>>,
}

/// `[log]`
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) level: Option<Written<String>>,
    pub(crate) format: Option<Written<String>>,
}

/// `[upstream]`
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) url: Option<Written<String>>,
    pub(crate) url_file: Option<Written<String>>,
    pub(crate) username: Option<Written<String>>,
    pub(crate) password: Option<Written<String>>,
    pub(crate) password_file: Option<Written<String>>,
    pub(crate) tls: Option<Tls>,
    pub(crate) source: Option<Written<String>>,
    pub(crate) notifications: Option<Written<String>>,
    pub(crate) verify: Option<Written<String>>,
}

/// `tls = { … }` of `[upstream]`
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) at: At,
    pub(crate) ca_file: Option<Written<String>>,
    pub(crate) certificate_file: Option<Written<String>>,
    pub(crate) key_file: Option<Written<String>>,
    pub(crate) server_name: Option<Written<String>>,
}

/// Reads the text of a file. What is wrong with it goes to `problems`; what could be read is returned, nothing if it is
/// not TOML.
pub(crate) fn parse(source: usize, environment: Environment<'_>, problems: &mut Problems) -> Option<File> {
    let text: Arc<str> = problems.sources[source].text.clone();
    let (document, errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        // What the parser made of the rest is a guess, and complaints about a guess would only confuse.
        for error in causes(&text, &errors) {
            problems.add(syntax(source, &text, error));
        }
        return None;
    }
    let mut reader = Reader {
        source,
        text: text.clone(),
        environment,
        problems,
    };
    let reader = &mut reader;
    let top = Table::new(reader, Section::Top, document.span(), document.get_ref());
    let sections = [
        ("server", Section::Server),
        ("limits", Section::Limits),
        ("admin", Section::Admin),
        ("log", Section::Log),
        ("upstream", Section::Upstream),
        ("access", Section::Access),
        ("defaults", Section::Defaults),
        ("mapping", Section::Mapping),
    ];
    Some(File {
        sections: sections
            .iter()
            .filter_map(|(name, section)| Some((*section, top.name_at(name)?)))
            .collect(),
        include: top.texts(reader, "include"),
        server: top
            .table(reader, "server", Section::Server)
            .map(|table| server(reader, &table))
            .unwrap_or_default(),
        limits: top
            .table(reader, "limits", Section::Limits)
            .map(|table| limits(reader, &table))
            .unwrap_or_default(),
        admin: top
            .table(reader, "admin", Section::Admin)
            .map(|table| Admin {
                listen: table.text(reader, "listen"),
            })
            .unwrap_or_default(),
        log: top
            .table(reader, "log", Section::Log)
            .map(|table| log(reader, &table))
            .unwrap_or_default(),
        upstream: top
            .table(reader, "upstream", Section::Upstream)
            .map(|table| upstream(reader, &table))
            .unwrap_or_default(),
        access: top
            .table(reader, "access", Section::Access)
            .map(|table| access::access(reader, &table))
            .unwrap_or_default(),
        defaults: top
            .table(reader, "defaults", Section::Defaults)
            .map(|table| mapping::options(reader, &table))
            .unwrap_or_default(),
        mappings: top
            .tables(reader, "mapping", Section::Mapping)
            .iter()
            .map(|table| mapping::mapping(reader, table))
            .collect(),
    })
}

fn server(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Server {
    Server {
        listen: table.texts(reader, "listen"),
        path: table.text(reader, "path"),
        origins: table.texts(reader, "origins"),
        proxies: table.texts(reader, "proxies"),
        client_address: table.text(reader, "client_address"),
        heartbeat: table.duration(reader, "heartbeat"),
        write_timeout: table.duration(reader, "write_timeout"),
        drain: table.duration(reader, "drain"),
        max_channels: table.number(reader, "max_channels"),
        tls: table.table(reader, "tls", Section::ServerTls).map(|tls| ServerTls {
            at: tls.at,
            certificate_file: tls.text(reader, "certificate_file"),
            key_file: tls.text(reader, "key_file"),
            client_ca_file: tls.text(reader, "client_ca_file"),
            client_certificates: tls.text(reader, "client_certificates"),
        }),
    }
}

fn limits(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Limits {
    Limits {
        connections: table.number(reader, "connections"),
        connections_per_address: table.number(reader, "connections_per_address"),
        connections_per_subject: table.number(reader, "connections_per_subject"),
        connects_per_second: table.number(reader, "connects_per_second"),
        connects_burst: table.number(reader, "connects_burst"),
        channels_per_connection: table.number(reader, "channels_per_connection"),
        messages_per_second: table.number(reader, "messages_per_second"),
        messages_burst: table.number(reader, "messages_burst"),
        message_size: table.size(reader, "message_size"),
        head_size: table.size(reader, "head_size"),
        head_timeout: table.duration(reader, "head_timeout"),
        lifetime: table.duration(reader, "lifetime"),
        channels_per_address: table.number(reader, "channels_per_address"),
        subscriptions: table.number(reader, "subscriptions"),
        keys: table.number(reader, "keys"),
        keys_per_channel: table.number(reader, "keys_per_channel"),
        log_bytes: table.size(reader, "log_bytes"),
        pinned: table.size(reader, "pinned"),
        scan_share: table.number(reader, "scan_share"),
    }
}

fn log(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Log {
    Log {
        level: table.text(reader, "level"),
        format: table.text(reader, "format"),
    }
}

fn upstream(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Upstream {
    Upstream {
        url: table.text(reader, "url"),
        url_file: table.text(reader, "url_file"),
        username: table.text(reader, "username"),
        password: table.text(reader, "password"),
        password_file: table.text(reader, "password_file"),
        tls: table.table(reader, "tls", Section::Tls).map(|tls| Tls {
            at: tls.at,
            ca_file: tls.text(reader, "ca_file"),
            certificate_file: tls.text(reader, "certificate_file"),
            key_file: tls.text(reader, "key_file"),
            server_name: tls.text(reader, "server_name"),
        }),
        source: table.text(reader, "source"),
        notifications: table.text(reader, "notifications"),
        verify: table.duration(reader, "verify"),
    }
}

/// Those of the parser's errors that do not merely follow from one before: the first of each line, and only the first
/// within a list or table that is never closed, for it takes the rest of the file for its items.
fn causes<'e>(text: &str, errors: &'e [toml::de::Error]) -> Vec<&'e toml::de::Error> {
    let within = |error: &&toml::de::Error| ["array", "inline table"].iter().any(|it| error.message().contains(it));
    let unclosed = errors.iter().any(|error| error.message().starts_with("unclosed"));
    let mut causes = Vec::new();
    let mut last = None;
    for error in errors {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..start].matches('\n').count();
        if last.replace(line) != Some(line) {
            causes.push(error);
        }
        if unclosed && within(&error) {
            break;
        }
    }
    causes
}

/// What the TOML parser says, with what is most often behind it.
fn syntax(source: usize, text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..text.len().min(1));
    let start = span.start.min(text.len());
    let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line..].lines().next().unwrap_or_default();
    let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
    let problem = Problem::new(
        At::new(source, start..span.end.clamp(start, text.len())),
        "this is not TOML",
        message,
    );
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    let bare = |first: char| first.is_ascii_alphanumeric() || "/{$*[".contains(first);
    let quotes = value.matches(['"', '\'']).count();
    if error.message().starts_with("duplicate") {
        problem
            .why("the file says it twice, and only one of them could count")
            .instead("keep one; a further mapping begins with a [[mapping]] line of its own")
    } else if error.message().contains("table") {
        let brackets = line.len() - line.trim_start_matches('[').len();
        let named = |char: &char| char.is_ascii_alphanumeric() || "_-.".contains(*char);
        let name: String = line[brackets..].trim_start().chars().take_while(named).collect();
        problem.instead(format!(
            "close the header: `{}{name}{}`",
            "[".repeat(brackets),
            "]".repeat(brackets)
        ))
    } else if error.message().contains("array") {
        problem.instead("end the list before this with `]`; its items are separated by commas")
    } else if quotes == 0 && value.starts_with(bare) {
        problem.instead("texts stand in quotes, addresses, durations and sizes too: linger = \"30s\"")
    } else if quotes % 2 == 1 {
        problem.instead("end the text with the quote that it begins with")
    } else {
        problem.instead("see https://toml.io for how a TOML file is written")
    }
}

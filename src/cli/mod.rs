//! The commands, and what they print.

mod check;
mod demo;
mod dev;
mod explain;
mod healthcheck;
mod pages;
mod run;
mod shown;
mod tail;
mod token;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::hub::Way;
use crate::process::logging;
use crate::relay::Rule;
use crate::server::Address;

/// A config that cannot be used: EX_CONFIG of sysexits.h, which tells a supervisor that starting again is no use.
const EXIT_CONFIG: u8 = 78;

/// Where a config is looked for when none is named: beside oneself while trying things out, else where packages put it.
const PLACES: [&str; 2] = ["keyrelay.toml", "/etc/keyrelay/keyrelay.toml"];

/// Change a key, see it in every browser.
///
/// keyrelay runs beside an app, listens to the key events of its KeyDB, Valkey or Redis, and sends what changed to the
/// browsers that subscribed, over Server-Sent Events or WebSocket. Which keys go to which channel is written in a TOML
/// file.
#[derive(Debug, Parser)]
#[command(name = "keyrelay", version, arg_required_else_help = true, after_long_help = MORE, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const MORE: &str = "\
A first config, keyrelay.toml:
  [[mapping]]
  key    = \"cart:{user}\"      # every key of this form …
  access = \"public\"           # … is a channel of the same name, open to everyone

Try it:
  keyrelay check keyrelay.toml
  keyrelay run --dev keyrelay.toml
  curl -N 'http://127.0.0.1:7400/events?channel=cart:42'
  redis-cli set cart:42 hello

Where the config comes from:
  The file that is named, else ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml.
  ${VAR} and ${VAR:-default} in its texts are taken from the environment.
  REDIS_URL and PORT count only where the file says nothing.

Exit codes:
  0   all went well
  1   it failed while running
  2   the command line was not understood
  78  the config cannot be used; the reasons are on standard error";

#[derive(Debug, Subcommand)]
enum Command {
    /// Relay what the config says until told to end
    ///
    /// Says `listening http://...` once clients may connect. SIGTERM and SIGINT end every stream in order, within
    /// `server.drain`; a second signal ends at once.
    #[command(after_long_help = run::EXAMPLES)]
    Run {
        /// The config [default: ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml]
        file: Option<PathBuf>,
        /// For development: pages on localhost may connect, a saved config is read again, deliveries are logged
        ///
        /// Pages of every port of localhost, 127.0.0.1 and [::1] may connect, besides `origins`. The config is read again
        /// when it is saved, or a file that it names. Each change that goes out is a line of the log with its key. Not for
        /// a machine that others use.
        #[arg(long)]
        dev: bool,
    },
    /// Tell everything that is wrong with a config, or that nothing is
    ///
    /// Each problem is shown with its file and line, why it is one, and what to write instead. Nothing is connected to,
    /// unless --connect asks for it.
    #[command(
        after_long_help = "Examples:\n  keyrelay check keyrelay.toml && systemctl restart keyrelay\n  keyrelay check --connect --canary cart:canary keyrelay.toml"
    )]
    Check {
        /// The config [default: ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml]
        file: Option<PathBuf>,
        /// Try the server too: whether it is reached, what the user may do, and whether key events come
        ///
        /// Nothing is written. It ends with 1 if there is a problem; what only may become one is a warning.
        #[arg(long)]
        connect: bool,
        /// Prove that key events come, by writing this key and removing it again
        ///
        /// It must be one that a mapping takes and that is not there.
        #[arg(long, value_name = "KEY", requires = "connect")]
        canary: Option<OsString>,
    },
    /// Tell what the mappings make of a key or a published message, or what is behind a channel
    ///
    /// Shows which mappings take it, with captures, channel and payload, and why the others do not.
    #[command(after_long_help = "Examples:\n  \
        keyrelay explain cart:42\n  \
        keyrelay explain --published news --message '{\"room\":\"lobby\"}'\n  \
        keyrelay explain --channel room:lobby --config keyrelay.toml")]
    #[command(group = clap::ArgGroup::new("asked").required(true).args(["key", "channel", "published"]))]
    Explain {
        /// The key, byte for byte as the server has it
        key: Option<OsString>,
        /// The channel, as a client names it
        #[arg(long, value_name = "NAME")]
        channel: Option<String>,
        /// The Pub/Sub channel that a message is published on
        #[arg(long, value_name = "NAME")]
        published: Option<OsString>,
        /// The message
        #[arg(long, value_name = "TEXT", requires = "published", default_value = "")]
        message: OsString,
        /// The config [default: ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show what happens: every key event and who takes it, or what one channel is sent
    ///
    /// Without a channel, every key event of the server is shown with the mappings that take it, or why none does; values
    /// are not read. With a channel, what its clients would be sent is shown, whoever may read it. With --url it is what
    /// a running relay sends.
    #[command(after_long_help = tail::EXAMPLES)]
    Tail {
        #[command(flatten)]
        wanted: tail::Wanted,
    },
    /// Mint a token, or a signed name, for trying things out
    ///
    /// It is signed with a secret of the config, has the issuer and the audience that the config asks for, and is printed
    /// alone. An app makes its own; docs/access.md shows how.
    #[command(after_long_help = token::EXAMPLES)]
    Token {
        #[command(flatten)]
        wanted: token::Wanted,
    },
    /// Ask the relay that runs here whether it is well, for images without a shell
    ///
    /// It is asked where `listen` under [admin] says, and must answer within 2 s.
    #[command(after_long_help = healthcheck::EXAMPLES)]
    Healthcheck {
        #[command(flatten)]
        wanted: healthcheck::Wanted,
    },
    /// Print a script that completes these commands in a shell
    #[command(after_long_help = pages::EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, for packages
    #[command(hide = true)]
    Man {
        /// An existing folder
        folder: PathBuf,
    },
    /// Show it all on this machine: two regions with a relay each, and a page to click and watch
    ///
    /// Needs keydb-server, valkey-server or redis-server on PATH. With KeyDB each region has a server, and these replicate
    /// each other; otherwise both relays stand before one. Ctrl-C ends all of it and cleans up.
    Demo,
}

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    // clap ends the process by itself only through `parse`; here main stays the one place that does.
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            // Nothing can be said any more if the terminal went away.
            let _ = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2));
        }
    };
    let done = match arguments.command {
        Command::Run { file, dev } => run::run(file, dev),
        Command::Demo => demo::demo(),
        Command::Tail { wanted } => tail::tail(wanted),
        Command::Token { wanted } => token::token(wanted),
        Command::Healthcheck { wanted } => healthcheck::healthcheck(wanted),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { folder } => pages::man(&folder),
        Command::Check { file, connect, canary } => check::check(file, connect, canary),
        Command::Explain {
            key,
            channel,
            published,
            message,
            config,
        } => {
            let asked = match (channel, published) {
                (Some(channel), _) => explain::Asked::Channel(channel),
                (None, Some(topic)) => explain::Asked::Published { topic, message },
                (None, None) => explain::Asked::Key(key.unwrap_or_default()),
            };
            explain::explain(&asked, config)
        }
    };
    done.unwrap_or_else(|error| {
        complain(&format!("keyrelay: {error:#}\n"));
        ExitCode::FAILURE
    })
}

/// The config that is named, or where one is looked for.
fn find(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The config that a command is about. What is wrong with it is told, and the exit code returned that says so.
fn load(named: Option<PathBuf>) -> Result<(PathBuf, Config), ExitCode> {
    let Some(path) = find(named) else {
        complain(&format!(
            "keyrelay: no config: none was named, and there is neither ./{} nor {}\n\
             name one, or write a first one as `keyrelay --help` shows\n",
            PLACES[0], PLACES[1]
        ));
        return Err(ExitCode::from(EXIT_CONFIG));
    };
    let environment = |name: &str| std::env::var(name).ok();
    match config::load(&path, &environment) {
        Ok(config) => Ok((path, config)),
        Err(problems) => {
            complain(&problems.render(Path::new(&path), logging::colours()));
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

/// What is not as whoever wrote the config may think, each with what to do about it.
fn warnings(config: &Config) -> Vec<String> {
    let mut told = closed(config);
    told.extend(without_effect(config));
    told
}

/// What is closed to everybody, perhaps by a line that was forgotten, each with what to do about it.
fn closed(config: &Config) -> Vec<String> {
    let closed = config.mappings.iter().filter(|rule| rule.access.is_empty());
    let mut told: Vec<String> = closed.map(|rule| {
        format!(
            "nobody may read the channels of the mapping at {}:{}: it has no `access`; write access = \"public\" if everyone \
             who can reach keyrelay may read these keys, or who else may: \"signed-in\", \"listed\" or {{ sub = \"{{user}}\" }}",
            rule.file.display(),
            rule.line
        )
    }).collect();
    let access = &config.server.access;
    let asks = |rule: &Arc<Rule>| !rule.access.is_empty() && !rule.access.iter().any(|way| matches!(way, Way::Public));
    let knows_nobody = access.jwt.is_empty() && access.signed.is_empty() && access.ask.is_none();
    if knows_nobody && config.mappings.iter().any(asks) {
        told.push(
            "nobody can show a credential that counts: mappings ask for one, and [access] does not say whose count; add \
             [[access.jwt]], [[access.signed]] or `ask` (docs/access.md)"
                .to_owned(),
        );
    }
    told
}

/// That others than the operators may reach their listener. It is no warning: where it must be so, nothing is to be mended.
fn open_to_others(config: &Config) -> Option<String> {
    let Address::Tcp(address) = config.admin.listen else {
        return None;
    };
    let is_open = !address.ip().to_canonical().is_loopback();
    is_open.then(|| {
        format!(
            "whoever reaches {address} may read the names of channels and how the relay stands: `listen` of [admin] asks for \
             no password; keep the port to a private network, or write \"127.0.0.1:{}\" (docs/operations.md)",
            address.port()
        )
    })
}

/// Options that say where tokens are looked for, while no token counts.
fn without_effect(config: &Config) -> impl Iterator<Item = String> {
    let access = &config.server.access;
    let written = config.origin.iter().filter(|origin| match &*origin.option {
        "access.cookie" => access.jwt.is_empty(),
        // The app that is asked is given the token that stands there.
        "access.token_parameter" => access.jwt.is_empty() && access.ask.is_none(),
        _ => false,
    });
    written.map(|origin| {
        format!(
            "`{}` at {} has no effect: a token is looked for there, and without [[access.jwt]] none counts; add one, or leave \
             the option out (docs/access.md)",
            origin.option, origin.from
        )
    })
}

fn complain(text: &str) {
    // Nothing can be said any more if standard error is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

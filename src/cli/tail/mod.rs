//! `keyrelay tail`: what happens, as it happens.
//!
//! * `keys`: every key event, what becomes of it (`fate`), and how that is written (`heard`)
//! * `channel`: the deliveries of one channel, by a relay within this process
//! * `url`: the same, by a relay that runs elsewhere
//! * `sse`: the events of a stream, `delivery`: how they are written
//! * `output`: standard output, which may be slow

mod channel;
mod delivery;
mod fate;
mod heard;
mod keys;
mod output;
mod sse;
mod url;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use tokio::select;

use crate::pattern::KeyPattern;
use crate::process::signals::Signals;
use output::{Output, Told};

/// Where a token is taken from if no option gives one.
const TOKEN: &str = "KEYRELAY_TOKEN";

pub(super) const EXAMPLES: &str = "\
Examples:
  keyrelay tail                          # why does nothing come?
  keyrelay tail --key 'cart:*' --json
  keyrelay tail cart:42                  # what clients of this channel are sent
  keyrelay tail --url https://example.com/ --token-file token.txt cart:42

Exit codes:
  0   it was ended by a signal, or nobody reads its output any more
  1   the server or the relay refuses, or the relay is not reached the first time
  2   the command line was not understood
  78  the config cannot be used";

#[derive(Debug, clap::Args)]
pub(super) struct Wanted {
    /// The channel whose deliveries are shown [without it: every key event]
    #[arg(value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only events of keys that this pattern takes, as in a mapping: `cart:*`, `cart:{user}`
    #[arg(long, value_name = "PATTERN", value_parser = pattern, conflicts_with_all = ["channel", "url"])]
    key: Option<KeyPattern>,
    /// Be a client of the relay that runs here, in place of the config's server
    #[arg(long, value_name = "URL", requires = "channel", conflicts_with = "config")]
    url: Option<String>,
    /// The token to show; others on this machine can see it among the processes
    #[arg(long, value_name = "TOKEN", requires = "url", conflicts_with = "token_file")]
    token: Option<String>,
    /// The file that holds the token to show [default: the environment, KEYRELAY_TOKEN]
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
    /// The config [default: ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Shows what is wanted until a signal comes or nobody reads any more.
pub(super) fn tail(wanted: Wanted) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut signals = Signals::catch().context("cannot catch signals")?;
        select! {
            biased;
            _ = signals.next() => Ok(ExitCode::SUCCESS),
            done = show(wanted) => done,
        }
    });
    // A name that is being resolved is waited for otherwise.
    runtime.shutdown_background();
    done
}

async fn show(wanted: Wanted) -> anyhow::Result<ExitCode> {
    let Wanted {
        channel,
        key,
        url,
        token,
        token_file,
        json,
        config,
    } = wanted;
    let lines = || Output::start(line);
    let done = match (url, channel) {
        (Some(url), Some(channel)) => {
            let token = match token_file {
                Some(file) => {
                    let read = fs::read_to_string(&file);
                    let text = read.with_context(|| format!("--token-file {}", file.display()))?;
                    Some(text.trim().to_owned())
                }
                None => token.or_else(|| std::env::var(TOKEN).ok().filter(|token| !token.is_empty())),
            };
            let output = lines()?;
            let wanted = url::Wanted {
                url,
                channel,
                token,
                json,
            };
            let done = url::tail(&wanted, &output).await;
            output.finish().await;
            done
        }
        (_, channel) => {
            let named = config.clone();
            let config = match super::load(config) {
                Ok((_, config)) => config,
                Err(code) => return Ok(code),
            };
            match channel {
                Some(channel) => {
                    let output = lines()?;
                    let done = channel::tail(config, named.as_deref(), &channel, json, &output).await;
                    output.finish().await;
                    done
                }
                None => keys::tail(config, key, json).await,
            }
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn pattern(text: &str) -> Result<KeyPattern, String> {
    KeyPattern::parse(text).map_err(|error| format!("{}: {}; {}", error.what, error.why, error.instead))
}

/// Lines that are made already.
fn line(told: Told<String>) -> String {
    match told {
        Told::Item(line) => line,
        Told::Missed(_) => String::new(),
    }
}

/// The time of day in UTC, as `21:59:05.678Z`.
fn clock(at: SystemTime) -> String {
    let whole = instant(at);
    whole
        .split_once('T')
        .map(|(_, clock)| clock.to_owned())
        .unwrap_or(whole)
}

/// The time as RFC 3339 has it, to the millisecond, in UTC.
fn instant(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

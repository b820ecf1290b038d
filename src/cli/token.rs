//! `keyrelay token`: a token or a signed name for trying things out, made with the secrets of the config.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::access;
use crate::access::jwt::{self, Keys};
use crate::access::key::{Algorithm, Key};
use crate::config;

/// Long enough to try things out, short enough that what is left in a shell's history soon opens nothing.
const EXPIRES: Duration = Duration::from_secs(3600);

pub(super) const EXAMPLES: &str = "Examples:
  curl -N -H \"Authorization: Bearer $(keyrelay token --sub 42)\" 'http://127.0.0.1:7400/events?channel=cart:42'
  keyrelay token --channel 'room:*' --channel cart:42 --expires 5m
  keyrelay token --sub 42 --claim role=admin --claim 'teams=[\"a\",\"b\"]'
  keyrelay token --algorithm HS512 --config keyrelay.toml
  curl -N \"http://127.0.0.1:7400/events?signed=$(keyrelay token --signed room:lobby)\"";

/// What is to be minted.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Whom it speaks of: the claim `sub`
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
    /// A channel, or a pattern of channels, that it lists; any number of them
    #[arg(long, value_name = "NAME")]
    channel: Vec<String>,
    /// Any other claim, as JSON or else as text; counts before all that keyrelay would put there
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// For how long it counts [default: 1h; a signed name without it counts for ever]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<Duration>,
    /// Sign with the first key of this algorithm [default: the first secret of the config]
    #[arg(long, value_name = "HS256", value_parser = algorithm)]
    algorithm: Option<Algorithm>,
    /// A signed name of this channel instead, as Rails makes them, with the first key of [[access.signed]]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["sub", "channel", "claim", "algorithm"])]
    signed: Option<String>,
    /// The config [default: ./keyrelay.toml, else /etc/keyrelay/keyrelay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints what is wanted, alone on a line.
pub(super) fn token(wanted: Wanted) -> anyhow::Result<ExitCode> {
    let (path, config) = match super::load(wanted.config.clone()) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let minted = mint(&wanted, &config.server.access, &path, SystemTime::now())?;
    super::print(&format!("{minted}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn mint(wanted: &Wanted, access: &access::Options, path: &Path, now: SystemTime) -> anyhow::Result<String> {
    let place = path.display();
    if let Some(channel) = &wanted.signed {
        let Some(options) = access.signed.first() else {
            bail!(
                "{place} has no [[access.signed]]: add one with the app's secret_key_base, or with a key of at least 32 bytes"
            );
        };
        let expires = wanted.expires.map(|time| now + time);
        return Ok(options.mint(channel, expires));
    }
    let (key, options) = find(wanted.algorithm, access, path)?;
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut claims = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    put("iss", options.issuer.as_deref().map(Value::from));
    put("aud", options.audience.as_deref().map(Value::from));
    put("sub", wanted.sub.as_deref().map(Value::from));
    put("channels", (!wanted.channel.is_empty()).then(|| json!(wanted.channel)));
    put("iat", Some(seconds(now).into()));
    put("exp", Some(seconds(now + wanted.expires.unwrap_or(EXPIRES)).into()));
    for (name, value) in &wanted.claim {
        put(name, Some(value.clone()));
    }
    key.mint(&claims).context("this key only checks tokens")
}

/// The first key that can sign.
fn find<'a>(
    algorithm: Option<Algorithm>,
    access: &'a access::Options,
    path: &Path,
) -> anyhow::Result<(&'a Key, &'a jwt::Options)> {
    let secrets = access.jwt.iter().filter_map(|options| match &options.keys {
        Keys::One(key) if key.algorithm().is_symmetric() => Some((key, options)),
        Keys::One(_) | Keys::Fetched { .. } => None,
    });
    let mut fitting = secrets.filter(|(key, _)| algorithm.is_none_or(|algorithm| key.algorithm() == algorithm));
    if let Some(found) = fitting.next() {
        return Ok(found);
    }
    let place = path.display();
    let name = algorithm.unwrap_or(Algorithm::Hs256).name();
    let table = format!("a table [[access.jwt]] with algorithm = \"{name}\" and secret = \"${{TOKEN_SECRET}}\"");
    match algorithm {
        Some(algorithm) if !algorithm.is_symmetric() => {
            bail!("{name} signs with a private key, and keyrelay has none: mint with it where it is, in the app")
        }
        Some(_) => bail!("{place} has no secret for {name}: add {table}"),
        None if access.jwt.is_empty() => bail!("{place} does not say whose tokens count: add {table}"),
        None => bail!(
            "the keys of {place} are public and only check tokens: mint where the private ones are, in the app; or add, for \
             development alone, {table}"
        ),
    }
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, e.g. role=admin")?;
    if name.is_empty() {
        return Err("the name is missing: write NAME=VALUE, e.g. role=admin".into());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

fn duration(text: &str) -> Result<Duration, String> {
    match config::duration(text)? {
        // `exp` has whole seconds.
        time if time < Duration::from_secs(1) => Err("it would be over at once: write e.g. 5m".into()),
        // What more is, is beyond what the clocks of others can hold.
        time if time > Duration::from_secs(100 * 365 * 86_400) => Err("more than a hundred years".into()),
        time => Ok(time),
    }
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::named(text).ok_or_else(|| "write HS256, HS384 or HS512".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::access::signed;

    const SECRET: [u8; 64] = [b'x'; 64];
    const NOW: u64 = 1_800_000_000;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn one(algorithm: Algorithm) -> jwt::Options {
        jwt::Options {
            keys: Keys::One(Key::secret(algorithm, &SECRET).unwrap()),
            issuer: None,
            audience: Some(algorithm.name().to_owned()),
        }
    }

    fn run(line: &str, access: &access::Options) -> Result<String, String> {
        let line = Line::try_parse_from(std::iter::once("token").chain(line.split_whitespace()));
        let wanted = line.map_err(|error| error.to_string())?.wanted;
        mint(&wanted, access, Path::new("k.toml"), now()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_minted_counts() {
        let access = access::Options {
            jwt: vec![one(Algorithm::Hs384), one(Algorithm::Hs256)],
            ..Default::default()
        };
        let claims = |line: &str| jwt::verify(&access.jwt, &run(line, &access).unwrap(), now()).unwrap();
        let minted = claims(
            "--sub 42 --channel room:* --channel cart:42 --claim role=admin --claim teams=[\"a\",7] --claim n=true",
        );
        assert_eq!(minted.subject().as_deref(), Some("42"));
        assert!(minted.lists("room:1") && minted.lists("cart:42") && !minted.lists("cart:4"));
        for (claim, value) in [
            ("role", "admin"),
            ("teams", "a"),
            ("teams", "7"),
            ("n", "true"),
            ("aud", "HS384"),
        ] {
            assert!(minted.holds(claim, value), "{claim} {value}");
        }
        assert_eq!(minted.expires(), now() + EXPIRES);
        assert_eq!(claims("--expires 5m").expires(), now() + Duration::from_secs(300));
        assert!(claims("--algorithm HS256").holds("aud", "HS256"));
        // Also what must not count can be made, to see it refused.
        let other = run("--claim aud=other", &access).unwrap();
        assert_eq!(jwt::verify(&access.jwt, &other, now()).unwrap_err().word(), "audience");
    }

    #[test]
    fn signed_names_count_for_their_purpose_until_their_end() {
        for purpose in [None, Some("live".to_owned())] {
            let key = signed::Key::new(&SECRET);
            let access = access::Options {
                signed: vec![signed::Options { key, purpose }],
                ..Default::default()
            };
            let verify = |line: &str| signed::verify(&access.signed, &run(line, &access).unwrap(), now()).unwrap();
            let minted = verify("--signed room:1");
            assert_eq!((minted.channel.as_str(), minted.expires), ("room:1", None));
            let minted = verify("--signed room:1 --expires 90s");
            assert_eq!(minted.expires, Some(now() + Duration::from_secs(90)));
        }
    }

    #[test]
    fn who_cannot_sign_is_told_what_to_do() {
        let nothing = access::Options::default();
        let with = |jwt| access::Options {
            jwt: vec![jwt],
            ..Default::default()
        };
        let public = with(jwt::Options {
            keys: Keys::Fetched {
                url: access::Url::parse("https://login.example.com/jwks").unwrap(),
                algorithm: None,
            },
            issuer: None,
            audience: None,
        });
        let hs256 = with(one(Algorithm::Hs256));
        for (line, access, said) in [
            (
                "",
                &nothing,
                "does not say whose tokens count: add a table [[access.jwt]]",
            ),
            (
                "",
                &public,
                "only check tokens: mint where the private ones are, in the app",
            ),
            (
                "--algorithm HS512",
                &hs256,
                "no secret for HS512: add a table [[access.jwt]] with algorithm = \"HS512\"",
            ),
            ("--algorithm RS256", &hs256, "keyrelay has none"),
            ("--algorithm none", &hs256, "write HS256"),
            ("--signed a", &hs256, "no [[access.signed]]"),
            ("--signed a --sub b", &hs256, "cannot be used with"),
            ("--claim role", &hs256, "write NAME=VALUE"),
            ("--claim =x", &hs256, "the name is missing"),
            ("--expires 5", &hs256, "without a unit"),
            ("--expires 5ms", &hs256, "over at once"),
            ("--expires 999999d", &hs256, "a hundred years"),
        ] {
            let error = run(line, access).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}

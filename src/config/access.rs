//! `[access]`: whose credentials count, and how they come.

use std::fs;

use super::compile::{Compiler, Name};
use super::diagnostics::{At, Problem, unreadable};
use super::file;
use super::reader::Written;
use super::words;
use crate::access::jwt::{self, Keys};
use crate::access::key::{Algorithm, Key, KeyError};
use crate::access::signed::{CABLE_READY_SALT, Digest, Key as SignedKey, Options as Signed, TURBO_SALT};
use crate::access::{Options, Url, UrlError, ask};
use crate::server::Places;

/// In the parameters of a URL, Rails, and whoever took its list of parameters that are kept out of logs, hides `token`.
const TOKEN_PARAMETER: &str = "token";

/// Parameters that mean something else.
const PARAMETERS: [&str; 9] = [
    "channel",
    "channel[]",
    "cursor",
    "raw",
    "signed",
    "signed[]",
    "expiring",
    "turbo_signed_stream_name",
    "lastEventID",
];

/// Shortest key of signed names: they stand in pages, and who has one can guess at its key for as long as he likes. What
/// RFC 7518 §3.2 asks of a key for HMAC-SHA256, and less than `rails secret` gives.
const MIN_KEY: usize = 32;

/// How a jwt or signed table is completed, for those who wrote no key.
const JWT_KEYS: &str = "add one of: secret = \"${TOKEN_SECRET}\", secret_file = \"…\" (HS256), public_key_file = \"…\" (RS256, \
                        PS256, ES256, EdDSA), jwks_url = \"https://…\"";
const SIGNED_KEYS: &str = "add one of: secret_key_base = \"${SECRET_KEY_BASE}\", secret_key_base_file = \"…\", or the \
                           verifier's own key: key = \"${VERIFIER_KEY}\", key_file = \"…\"";

impl Compiler<'_> {
    /// Where credentials are looked for, and whose count.
    pub(crate) fn access(&mut self, file: &file::Access) -> (Places, Options) {
        let cookie = file.cookie.as_ref().and_then(|written| self.cookie(written));
        let token_parameter = file
            .token_parameter
            .as_ref()
            .and_then(|written| self.parameter(written));
        let ask = file.ask.as_ref().and_then(|written| {
            let url = self.http_url("ask", written)?;
            self.note(name("access", "ask"), written, format!("\"{url}\""));
            Some(ask::Options { url })
        });
        let places = Places {
            cookie,
            parameter: token_parameter.unwrap_or_else(|| TOKEN_PARAMETER.into()),
            asks: ask.is_some(),
        };
        let options = Options {
            jwt: file.jwt.iter().filter_map(|table| self.jwt(table)).collect(),
            signed: file.signed.iter().filter_map(|table| self.signed(table)).collect(),
            ask,
        };
        (places, options)
    }

    /// The name of a cookie is a token (RFC 6265 §4.1.1).
    fn cookie(&mut self, written: &Written<String>) -> Option<String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if written.value.is_empty() || !written.value.bytes().all(allowed) {
            let problem = Problem::new(
                written.at,
                "`cookie` is not the name of a cookie",
                "a name, and nothing else",
            );
            self.problems.add(
                problem
                    .why("names of cookies are letters, digits and !#$%&'*+-.^_`|~")
                    .instead("write the name under which your app sets it, e.g. cookie = \"keyrelay\""),
            );
            return None;
        }
        self.note(name("access", "cookie"), written, format!("\"{}\"", written.value));
        Some(written.value.clone())
    }

    fn parameter(&mut self, written: &Written<String>) -> Option<String> {
        let text = written.value.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let label = if PARAMETERS.contains(&text) {
            "means something else in a URL"
        } else if text.is_empty() || !text.bytes().all(plain) {
            "more than letters, digits and `-_.~`"
        } else {
            if text != TOKEN_PARAMETER {
                self.note(name("access", "token_parameter"), written, format!("\"{text}\""));
            }
            return Some(text.to_owned());
        };
        self.problems.add(
            Problem::new(written.at, "`token_parameter` cannot be the name of a parameter", label)
                .why("a token is looked for in the URL's query under this name")
                .instead("leave it out for \"token\", or write another word, e.g. \"jwt\""),
        );
        None
    }

    fn http_url(&mut self, option: &str, written: &Written<String>) -> Option<Url> {
        Url::parse(&written.value)
            .map_err(|UrlError { what, why, instead }| {
                let problem = Problem::new(written.at, format!("`{option}` cannot be asked"), what);
                self.problems.add(problem.why(why).instead(instead));
            })
            .ok()
    }

    fn jwt(&mut self, table: &file::Jwt) -> Option<jwt::Options> {
        let before = self.problems.count();
        self.only_one(&[
            ("secret", &table.secret),
            ("secret_file", &table.secret_file),
            ("public_key_file", &table.public_key_file),
            ("jwks_url", &table.jwks_url),
        ]);
        if !table.has_key {
            self.keyless(table.at, "no token could be checked", JWT_KEYS);
        }
        let algorithm = table.algorithm.as_ref().map(|written| self.algorithm(written));
        let issuer = self.expected("issuer", "iss", table.issuer.as_ref());
        let audience = self.expected("audience", "aud", table.audience.as_ref());
        let keys = match algorithm {
            // What is wrong with it was told.
            Some(None) => None,
            Some(Some(algorithm)) => self.keys(table, Some(algorithm)),
            None if table.jwks_url.is_some() => self.keys(table, None),
            None => {
                if table.has_key {
                    self.without_algorithm(table);
                }
                None
            }
        };
        keys.filter(|_| self.problems.count() == before)
            .map(|keys| jwt::Options { keys, issuer, audience })
    }

    fn algorithm(&mut self, written: &Written<String>) -> Option<Algorithm> {
        let text = written.value.as_str();
        if let Some(algorithm) = Algorithm::named(text) {
            self.note(name("access.jwt", "algorithm"), written, format!("\"{text}\""));
            return Some(algorithm);
        }
        let names = Algorithm::ALL.map(Algorithm::name);
        let all = names.map(|name| format!("\"{name}\"")).join(", ");
        let problem = Problem::new(
            written.at,
            "`algorithm` does not take this word",
            format!("not one of {all}"),
        );
        let near = names.into_iter().find(|name| name.eq_ignore_ascii_case(text));
        self.problems.add(if text.eq_ignore_ascii_case("none") {
            problem
                .why("a token that nobody signed could be made by anybody")
                .instead("have the app sign its tokens, e.g. with algorithm = \"HS256\" and a secret")
        } else if let Some(near) = near.or_else(|| words::nearest(text, names)) {
            problem
                .why("it is what the app signs with, in the letters of the token's `alg`")
                .instead(format!("sign with one of these; did you mean \"{near}\"?"))
        } else {
            problem.instead(
                "write what the app signs with: \"HS256\" for a shared secret, \"RS256\" or \"ES256\" for a key pair",
            )
        });
        None
    }

    fn without_algorithm(&mut self, table: &file::Jwt) {
        let instead = match table.public_key_file {
            Some(_) => "write what the app signs with: algorithm = \"RS256\", \"PS256\", \"ES256\" or \"EdDSA\"",
            None => "write what the app signs with, most likely algorithm = \"HS256\"",
        };
        self.problems.add(
            Problem::new(
                table.at,
                "the key does not say for which algorithm it is",
                "no `algorithm`",
            )
            .why("were it taken from the token, whoever makes one up would choose how it is checked")
            .instead(instead),
        );
    }

    fn keys(&mut self, table: &file::Jwt, algorithm: Option<Algorithm>) -> Option<Keys> {
        let section = "access.jwt";
        if let Some(written) = &table.jwks_url {
            if let (Some(algorithm), Some(at)) = (algorithm, &table.algorithm)
                && algorithm.is_symmetric()
            {
                self.problems.add(
                    Problem::new(at.at, "secrets are not fetched", "signed with a secret")
                        .and(written.at, "from here come public keys")
                        .why("whoever may fetch a secret could sign with it")
                        .instead(
                            "write the algorithm of the key set's keys, or leave `algorithm` out: each names its own",
                        ),
                );
                return None;
            }
            let url = self.http_url("jwks_url", written)?;
            self.note(name(section, "jwks_url"), written, format!("\"{url}\""));
            return Some(Keys::Fetched { url, algorithm });
        }
        let algorithm = algorithm?;
        if let Some(written) = &table.secret {
            self.note(name(section, "secret"), written, "(secret)");
            let key = Key::secret(algorithm, written.value.as_bytes());
            return self.key("secret", written, key);
        }
        if let Some(written) = &table.secret_file {
            let secret = self.secret("secret_file", written)?;
            self.note(name(section, "secret_file"), written, format!("\"{}\"", written.value));
            let key = Key::secret(algorithm, secret.as_bytes());
            return self.key("secret_file", written, key);
        }
        let written = table.public_key_file.as_ref()?;
        let path = self.file(written.at, &written.value);
        match fs::read(path) {
            Ok(pem) => {
                self.note(
                    name(section, "public_key_file"),
                    written,
                    format!("\"{}\"", written.value),
                );
                self.key("public_key_file", written, Key::public(algorithm, &pem))
            }
            Err(error) => {
                let problem = unreadable("public_key_file", written.at, &written.value, &error);
                self.problems.add(problem);
                None
            }
        }
    }

    fn key(&mut self, option: &str, written: &Written<String>, key: Result<Key, KeyError>) -> Option<Keys> {
        key.map(Keys::One)
            .map_err(|KeyError { what, instead }| {
                let subject = if option.ends_with("_file") { "the file of " } else { "" };
                let title = format!("{subject}`{option}` cannot check signatures");
                self.problems
                    .add(Problem::new(written.at, title, format!("it {what}")).instead(instead));
            })
            .ok()
    }

    fn expected(&mut self, option: &'static str, claim: &str, written: Option<&Written<String>>) -> Option<String> {
        let written = written?;
        if written.value.is_empty() {
            self.problems.add(
                Problem::new(written.at, format!("`{option}` is empty"), "no text")
                    .why(format!("the token's `{claim}` must be this text"))
                    .instead(format!(
                        "leave `{option}` out, or write what the app puts into `{claim}`"
                    )),
            );
        }
        self.note(name("access.jwt", option), written, format!("\"{}\"", written.value));
        Some(written.value.clone())
    }

    fn signed(&mut self, table: &file::Signed) -> Option<Signed> {
        let before = self.problems.count();
        self.only_one(&[
            ("key", &table.key),
            ("key_file", &table.key_file),
            ("secret_key_base", &table.secret_key_base),
            ("secret_key_base_file", &table.secret_key_base_file),
        ]);
        if !table.has_key {
            self.keyless(table.at, "no name could be checked", SIGNED_KEYS);
        }
        self.word(
            name("access.signed", "scheme"),
            table.scheme.as_ref(),
            (),
            &[("rails", ())],
        );
        let derived = table.secret_key_base.is_some() || table.secret_key_base_file.is_some();
        for (option, written) in [("salt", &table.salt), ("digest", &table.digest)] {
            if let (false, true, Some(written)) = (derived, table.has_key, written) {
                self.problems.add(
                    Problem::new(
                        written.at,
                        format!("`{option}` without `secret_key_base`"),
                        "has no effect",
                    )
                    .why("it tells how the key is made of secret_key_base, and a key that is given is not made")
                    .instead(format!(
                        "leave `{option}` out, or give secret_key_base instead of the key"
                    )),
                );
            }
        }
        let salt = self.salt(table.salt.as_ref());
        let digest = self.word(
            name("access.signed", "digest"),
            table.digest.as_ref(),
            Digest::Sha256,
            &[("SHA256", Digest::Sha256), ("SHA1", Digest::Sha1)],
        );
        let purpose = table.purpose.as_ref().map(|written| {
            if written.value.is_empty() {
                self.problems.add(
                    Problem::new(written.at, "`purpose` is empty", "no text")
                        .why("names are signed for this purpose, or for none")
                        .instead("leave `purpose` out, or write what the app signs with: purpose: \"keyrelay\""),
                );
            }
            self.note(
                name("access.signed", "purpose"),
                written,
                format!("\"{}\"", written.value),
            );
            written.value.clone()
        });
        let key = self.signed_key(table)?;
        let key = match derived {
            true => SignedKey::derived(key.as_bytes(), &salt, digest),
            false => SignedKey::new(key.as_bytes()),
        };
        (self.problems.count() == before).then_some(Signed { key, purpose })
    }

    fn salt(&mut self, written: Option<&Written<String>>) -> String {
        let Some(written) = written else {
            return TURBO_SALT.into();
        };
        let meant = match written.value.as_str() {
            "turbo" => Some(TURBO_SALT),
            "cable_ready" | "cableready" => Some(CABLE_READY_SALT),
            _ => None,
        };
        if let Some(meant) = meant {
            self.problems.add(
                Problem::new(written.at, "`salt` is not that of any library", "the name of a library")
                    .why("the salt is the text that the library derives its key with")
                    .instead(format!("did you mean \"{meant}\"?")),
            );
        }
        if written.value != TURBO_SALT {
            self.note(name("access.signed", "salt"), written, format!("\"{}\"", written.value));
        }
        written.value.clone()
    }

    /// The key or what it is made of, as it was given.
    fn signed_key(&mut self, table: &file::Signed) -> Option<String> {
        for (option, written) in [("key", &table.key), ("secret_key_base", &table.secret_key_base)] {
            if let Some(written) = written {
                self.note(name("access.signed", option), written, "(secret)");
                return self.long_enough(option, written, written.value.clone());
            }
        }
        for (option, written) in [
            ("key_file", &table.key_file),
            ("secret_key_base_file", &table.secret_key_base_file),
        ] {
            if let Some(written) = written {
                let secret = self.secret(option, written)?;
                self.note(name("access.signed", option), written, format!("\"{}\"", written.value));
                return self.long_enough(option, written, secret);
            }
        }
        None
    }

    fn long_enough(&mut self, option: &str, written: &Written<String>, secret: String) -> Option<String> {
        if secret.len() >= MIN_KEY {
            return Some(secret);
        }
        self.problems.add(
            Problem::new(
                written.at,
                format!("`{option}` is too short"),
                format!("{} bytes; {MIN_KEY} are needed", secret.len()),
            )
            .why("signed names stand in pages, and whoever has one can try keys until one fits")
            .instead("write the app's own, which is longer; `rails secret` makes one"),
        );
        None
    }

    fn keyless(&mut self, at: At, label: &str, instead: &str) {
        self.problems
            .add(Problem::new(at, "there is no key", label).instead(instead));
    }

    /// Complains of all but the first of those that are there.
    fn only_one(&mut self, options: &[(&str, &Option<Written<String>>)]) {
        let mut there = options
            .iter()
            .filter_map(|(option, written)| Some((*option, written.as_ref()?)));
        let Some((first, first_written)) = there.next() else {
            return;
        };
        for (other, written) in there {
            self.one_of(first, Some(first_written), other, Some(written));
        }
    }
}

fn name(section: &'static str, option: &'static str) -> Name {
    Name { section, option }
}

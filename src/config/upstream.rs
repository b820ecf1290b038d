//! `[upstream]`: the URL of the server, and who logs in there.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use super::Upstream;
use super::compile::{Bounds, Compiler, Name};
use super::diagnostics::{At, Problem, unreadable};
use super::file;
use super::mapping::Compiled;
use super::origin::{From, Origin};
use super::reader::Written;
use super::url::{self, Url, UrlError};
use crate::hub::Mode;
use crate::pattern::Subject;
use crate::upstream::feed::Notifications;
use crate::upstream::{Endpoint, Source};

/// Under this name the connections stand in the server's CLIENT LIST.
const CLIENT_NAME: &str = "keyrelay";

/// Slow enough to cost next to nothing, often enough that a wrong value does not stand for long.
const VERIFY: Duration = Duration::from_secs(60);

const VERIFY_BOUNDS: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=Duration::from_secs(86_400),
    why: "each round reads every key that somebody listens to, and a wrong value stands until then",
};

fn name(option: &'static str) -> Name {
    Name {
        section: "upstream",
        option,
    }
}

impl Compiler<'_> {
    pub(crate) fn upstream(&mut self, file: &file::Upstream) -> Upstream {
        self.one_of("url", file.url.as_ref(), "url_file", file.url_file.as_ref());
        self.one_of(
            "password",
            file.password.as_ref(),
            "password_file",
            file.password_file.as_ref(),
        );
        let url = self.url(file);
        // What is said of TLS is not judged by a URL that was not understood.
        let tls = url.as_ref().and_then(|url| self.tls(file.tls.as_ref(), url));
        let mut url = url.unwrap_or_default();
        let password = match (&file.password, &file.password_file) {
            (Some(password), _) => {
                self.note(name("password"), password, "(secret)");
                Some(password.map(password.value.clone()))
            }
            (None, Some(path)) => self.secret("password_file", path).map(|secret| {
                self.note(name("password_file"), path, format!("\"{}\"", path.value));
                path.map(secret)
            }),
            (None, None) => None,
        };
        if let (Some(written), Some(_)) = (&password, &url.password) {
            self.problems.add(
                Problem::new(written.at, "the password is given twice", "and here")
                    .why("the URL holds one already, and only one of them can be right")
                    .instead("take the password out of the URL"),
            );
        }
        if let Some(username) = &file.username {
            self.note(name("username"), username, format!("\"{}\"", username.value));
            url.username = Some(username.value.clone());
        }
        url.password = password.map(|written| written.value).or(url.password);
        if let (Some(username), None) = (&file.username, &url.password) {
            self.problems.add(
                Problem::new(username.at, "`username` without a password", "logs in with nothing")
                    .why("the server's AUTH takes a name only together with a password")
                    .instead("add password = \"${…}\" or password_file = \"…\""),
            );
        }
        let source = self.word(
            name("source"),
            file.source.as_ref(),
            Source::Notifications,
            &[("notifications", Source::Notifications), ("tracking", Source::Tracking)],
        );
        let mut notifications = self.word(
            name("notifications"),
            file.notifications.as_ref(),
            Notifications::Ensure,
            &[
                ("ensure", Notifications::Ensure),
                ("require", Notifications::Require),
                ("assume", Notifications::Assume),
            ],
        );
        if source == Source::Tracking {
            if let Some(written) = &file.notifications {
                let problem = Problem::new(
                    written.at,
                    "`notifications` and source = \"tracking\" do not go together",
                    "has no effect here",
                );
                self.problems.add(
                    problem
                        .why("client tracking needs no setting of the server, and none is asked for")
                        .instead("leave `notifications` out, or `source`"),
                );
            }
            notifications = Notifications::Assume;
        }
        Upstream {
            endpoint: Endpoint {
                address: url.address,
                tls,
                db: url.db,
                username: url.username,
                password: url.password,
                client_name: CLIENT_NAME.into(),
            },
            topology: url.topology,
            source,
            notifications,
            verify: self.duration_or_off(name("verify"), file.verify.as_ref(), Some(VERIFY), &VERIFY_BOUNDS),
        }
    }

    /// Client tracking tells that keys changed, not what happened to them: mappings of happenings would miss most.
    pub(crate) fn without_events(&mut self, source: Option<&Written<String>>, mappings: &[Compiled]) {
        let of_events =
            |mapping: &&Compiled| mapping.rule.subject == Subject::Keys && mapping.rule.mode == Mode::Events;
        for mapping in mappings.iter().filter(of_events) {
            let problem = Problem::new(
                mapping.mode,
                "events of keys are not told by client tracking",
                "here the mode is \"events\"",
            );
            let problem = match source {
                Some(source) => problem.and(source.at, "tracking is asked for here"),
                None => problem,
            };
            self.problems.add(
                problem
                    .why("it tells that a key changed, but not what happened, and of several changes perhaps one")
                    .instead(
                        "write mode = \"state\"; or `subscribe` to what the app publishes; or leave `source` out, so that \
                         keyspace notifications are heard",
                    ),
            );
        }
    }

    pub(super) fn one_of(
        &mut self,
        option: &str,
        first: Option<&Written<String>>,
        other: &str,
        second: Option<&Written<String>>,
    ) {
        if let (Some(first), Some(second)) = (first, second) {
            self.problems.add(
                Problem::new(
                    second.at,
                    format!("`{option}` and `{other}` are both given"),
                    "and here",
                )
                .and(first.at, "given here")
                .why("only one of them can be right")
                .instead(format!("keep `{option}` or `{other}`")),
            );
        }
    }

    fn url(&mut self, file: &file::Upstream) -> Option<Url> {
        match (&file.url, &file.url_file) {
            (Some(written), _) => self.url_of_file(file, written),
            (None, Some(path)) => self.url_of_secret(path),
            (None, None) => self.url_of_environment(),
        }
    }

    fn url_of_file(&mut self, file: &file::Upstream, written: &Written<String>) -> Option<Url> {
        let url = match url::parse(&written.value) {
            Ok(url) => url,
            Err(error) => {
                self.problems.add(problem(error, |range| written.part(range)));
                return None;
            }
        };
        if url != Url::default() {
            self.note(name("url"), written, format!("\"{url}\""));
        }
        let has_password = url.password.is_some() || file.password.is_some() || file.password_file.is_some();
        if url.username.is_some() && !has_password {
            self.problems.add(
                Problem::new(
                    written.at,
                    "the URL has a user and no password",
                    "what stands before `@`",
                )
                .why("the server's AUTH takes a name only together with a password")
                .instead("write redis://USER:PASSWORD@host, or redis://:PASSWORD@host for a password alone"),
            );
        }
        Some(url)
    }

    fn url_of_secret(&mut self, path: &Written<String>) -> Option<Url> {
        let text = self.secret("url_file", path)?;
        match url::parse(&text) {
            Ok(url) => {
                self.note(name("url_file"), path, format!("\"{url}\""));
                Some(url)
            }
            Err(error) => {
                self.problems
                    .add(problem(error, |_| path.at).why("this is about the URL within the file"));
                None
            }
        }
    }

    fn url_of_environment(&mut self) -> Option<Url> {
        let Some(text) = (self.environment)("REDIS_URL").filter(|text| !text.is_empty()) else {
            return Some(Url::default());
        };
        match url::parse(&text) {
            Ok(url) => {
                let from = From::Environment("REDIS_URL");
                self.origin.push(Origin {
                    option: "upstream.url".into(),
                    value: format!("\"{url}\""),
                    from,
                });
                Some(url)
            }
            Err(error) => {
                let title = format!("`REDIS_URL` is not the URL of a server: {}", error.label);
                let problem = Problem::elsewhere("the environment variable REDIS_URL", title)
                    .why("it counts because the file has neither `url` nor `url_file`")
                    .instead(error.instead);
                self.problems.add(match error.why {
                    Some(why) => problem.why(why),
                    None => problem,
                });
                None
            }
        }
    }

    /// What a file holds, without the newline that editors put at the end.
    pub(super) fn secret(&mut self, option: &str, written: &Written<String>) -> Option<String> {
        let path = self.file(written.at, &written.value);
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.problems.add(
                    Problem::new(written.at, format!("the file of `{option}` is empty"), "holds nothing")
                        .instead("write the secret into the file"),
                );
                None
            }
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                self.problems
                    .add(unreadable(option, written.at, &written.value, &error));
                None
            }
        }
    }
}

fn problem(error: UrlError, place: impl FnOnce(Range<usize>) -> At) -> Problem {
    let problem = Problem::new(place(error.at), "not the URL of a server", error.label).instead(error.instead);
    match error.why {
        Some(why) => problem.why(why),
        None => problem,
    }
}

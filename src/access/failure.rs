//! Why a credential does not count.

use std::time::Duration;

/// What is wrong with a credential. Neither its word nor its text repeats anything of the credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// None came, on any of the ways.
    #[error("no credential came: send a token as `Authorization: Bearer`, as a parameter of the URL, or as a cookie")]
    Missing,
    /// One came as a cookie, and nothing says that a page of an allowed origin has sent it.
    #[error("the cookie does not count: no page of an allowed origin has sent it")]
    Untrusted,
    /// It is not of the form that it should have; the text says what was expected.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// No configured key takes its algorithm, whatever its signature is.
    #[error("no key here is for the algorithm that the token names")]
    Algorithm,
    /// No configured key made its signature.
    #[error("the token was not signed by any key that counts here")]
    Signature,
    /// Its time is over.
    #[error("the token expired {} ago: get a new one", seconds(*.0))]
    Expired(Duration),
    /// Its time has not come.
    #[error("the token counts only in {}: is a clock wrong?", seconds(*.0))]
    NotYet(Duration),
    /// It does not say when its time is over.
    #[error("the token has no `exp`: one that never expires is not taken")]
    NoExpiry,
    /// It is not meant for whom the config says.
    #[error("the token is not for the audience that is expected here (`aud`)")]
    Audience,
    /// It is meant for somebody, and the config does not say for whom tokens are.
    #[error("the token is for an audience (`aud`), and no `audience` is configured with its key")]
    NoAudience,
    /// Somebody else has made it.
    #[error("the token is from another issuer (`iss`)")]
    Issuer,
    /// A signed name was signed for another purpose.
    #[error("the signed name is for another purpose")]
    Purpose,
    /// The app was asked, and says no.
    #[error("the app does not know this credential")]
    Denied,
    /// It cannot be judged now: keys could not be fetched, or the app did not answer. It may get better.
    #[error("whether this may be read cannot be found out now: {0}")]
    Unavailable(&'static str),
}

impl Failure {
    /// The reason as a fixed word.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Missing => "missing",
            Failure::Untrusted => "untrusted",
            Failure::Malformed(_) => "malformed",
            Failure::Algorithm => "algorithm",
            Failure::Signature => "signature",
            Failure::Expired(_) => "expired",
            Failure::NotYet(_) => "not-yet-valid",
            Failure::NoExpiry => "no-expiry",
            Failure::Audience | Failure::NoAudience => "audience",
            Failure::Issuer => "issuer",
            Failure::Purpose => "purpose",
            Failure::Denied => "denied",
            Failure::Unavailable(_) => "unavailable",
        }
    }
}

/// A time as people say it, in whole seconds.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_seconds() {
        let expired = Failure::Expired(Duration::from_millis(5_900));
        assert_eq!(expired.to_string(), "the token expired 5 s ago: get a new one");
        assert_eq!(expired.word(), "expired");
    }
}

//! Who may read what: a credential becomes claims, and claims meet what a channel asks for.
//!
//! * `verifier`: judges credentials, on whichever thread they come
//! * [`jwt`]: tokens, [`key`]: what their signatures are checked with, [`jwks`]: sets of keys, fetched
//! * [`signed`]: names of channels that Rails signed
//! * [`ask`]: the app is asked
//! * `claims`: what a credential says
//! * `deadline`: until when a decision is made
//! * `waiting`: the clients that wait for it, `shares`: how much of something each address has
//! * `failure`: why a credential does not count
//! * `members`: JSON objects, [`http`]: requests to the places that the config or the command line names

pub mod ask;
mod claims;
mod deadline;
mod failure;
pub mod http;
pub mod jwks;
pub mod jwt;
pub mod key;
mod members;
mod shares;
pub mod signed;
#[cfg(test)]
mod testing;
mod verifier;
pub mod waiting;

pub use ask::Credential;
pub use claims::{Claims, NBF_LEEWAY};
pub use deadline::Deadline;
pub use failure::Failure;
pub use http::{Url, UrlError};
pub use signed::Signed;
pub use verifier::{Options, Verifier};

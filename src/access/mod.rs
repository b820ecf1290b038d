//! Who may read what: a credential becomes claims, and claims meet what a channel asks for.
//!
//! * `claims`: what a credential says
//! * `failure`: why a credential does not count

mod claims;
mod failure;

pub use claims::{Claims, NBF_LEEWAY};
pub use failure::Failure;

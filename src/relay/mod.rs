//! The mirror: what is known of the keys behind active channels.

mod rule;

pub use rule::Rule;

//! The `keyrelay` command.

fn main() {}

#![no_main]
//! See `src/fuzzing/mod.rs`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyrelay::fuzzing::run("keys", data));

//! See `tests/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farcall_tests::fuzz::run("xdr", input));

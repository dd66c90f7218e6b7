//! Searches for bytes that break the property `exec`, which `src/properties.rs` states.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dataplane::properties::hold("exec", bytes));

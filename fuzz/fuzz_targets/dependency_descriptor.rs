#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringside::packet::fuzz::dependency_descriptor(data));

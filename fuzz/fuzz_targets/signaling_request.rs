#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringside::signaling::fuzz::request(data));

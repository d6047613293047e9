#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringside::packet::fuzz::rtcp(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringside::transport::fuzz::srtp_open(data));

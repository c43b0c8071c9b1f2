#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pulse_queue::fuzz::stream_entry(input));

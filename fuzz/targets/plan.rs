#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| fuzz_properties::plan::check(input));

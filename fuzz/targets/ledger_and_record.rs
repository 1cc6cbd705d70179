#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| fuzz_properties::ledger_and_record::check(input));

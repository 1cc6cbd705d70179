//! The committed inputs of the fuzz targets, tried without a fuzzer.

use std::{fs, path::Path};

#[test]
fn every_committed_input_keeps_what_has_to_hold() {
    let as_text = |check: fn(&str)| move |input: &[u8]| check(std::str::from_utf8(input).unwrap());
    tried("account", fuzz_properties::account::check);
    tried("boltz_json", fuzz_properties::boltz_json::check);
    tried("headers", fuzz_properties::headers::check);
    tried("ledger_and_record", as_text(fuzz_properties::ledger_and_record::check));
    tried("marker", as_text(fuzz_properties::marker::check));
    tried("organization", fuzz_properties::organization::check);
    tried("plan", as_text(fuzz_properties::plan::check));
    tried("retry_after", fuzz_properties::retry_after::check);
}

fn tried(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "no inputs in {}", folder.display());
}

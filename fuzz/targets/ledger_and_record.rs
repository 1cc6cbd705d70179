//! The two annotations that hold the operator's own notes: anybody with rights on object or Secret can write them.
#![no_main]

use boltz_operator::protocol::{ledger::Ledger, record::Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let ledger = Ledger::parse(Some(text));
    assert_eq!(Ledger::parse(Some(&ledger.to_annotation())), ledger);
    for entry in &ledger.entries {
        assert!(ledger.contains(&entry.attempt));
    }
    if let Some(record) = Record::parse(Some(text)) {
        assert_eq!(Record::parse(Some(&record.to_annotation())).as_ref(), Some(&record));
        assert!(record.names(&record.key_id));
    }
});

//! The two annotations that hold the operator's own notes: anybody with rights on object or Secret can write them.

use boltz_operator::protocol::{ledger::Ledger, record::Record};

/// Holds for every input, or panics.
pub fn check(text: &str) {
    let ledger = Ledger::parse(Some(text));
    // What is forged is written as what was read of it, in good form.
    let written = Ledger { forgery: None, ..ledger.clone() };
    assert_eq!(Ledger::parse(Some(&written.to_annotation())), written);
    assert!(ledger.entries.len() <= 64);
    for entry in &ledger.entries {
        assert!(ledger.contains(&entry.attempt));
    }
    if let Some(record) = Record::parse(Some(text)) {
        let written = Record { is_cut: false, ..record.clone() };
        assert_eq!(Record::parse(Some(&written.to_annotation())).as_ref(), Some(&written));
        assert!(record.previous.len() <= 64);
        assert!(record.names(&record.key_id));
    }
}

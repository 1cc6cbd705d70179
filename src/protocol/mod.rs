//! What is stored outside the process: the marker in a key's name, the ledger on the object, the record on the Secret.

pub mod ledger;
pub mod marker;
pub mod record;

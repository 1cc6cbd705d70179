//! Issuing and storing.

use crate::bed::Bed;
use boltz_emulator::Operation;
use serde_json::json;

#[tokio::test]
async fn a_key_is_issued_stored_and_reported_with_three_writes() {
    let bed = Bed::new().await;
    bed.create("first", json!({"expiresInDays": 90})).await;
    bed.judge("first").await;
    assert_eq!(bed.emulator.count(Operation::Create), 1);
    assert_eq!(
        bed.writes(),
        ["patch boltzapikeys  -> 200", "create secrets  -> 201", "patch boltzapikeys status -> 200",]
    );
}

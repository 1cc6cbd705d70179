//! Two processes that both work: correctness does not come from the lease.

use crate::bed::Bed;
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_harness::OperatorProcess;
use serde_json::json;
use std::path::Path;

/// A second operator with the same configuration.
async fn second(bed: &Bed) -> OperatorProcess {
    let second = OperatorProcess::start(
        Path::new(env!("CARGO_BIN_EXE_boltz-operator")),
        &bed.control_plane.kubeconfig("operator"),
        &bed.arguments,
        &[],
    )
    .unwrap();
    second.wait_ready().await.unwrap();
    second
}

#[tokio::test]
async fn two_without_an_election_cost_at_most_a_key_more_for_each_issuance() {
    let bed = Bed::new().await;
    let _second = second(&bed).await;
    let names: Vec<String> = (0..6).map(|number| format!("contested-{number}")).collect();
    for name in &names {
        bed.create(name, json!({"rotation": {"overlap": "1s"}})).await;
    }
    let mut ids = Vec::new();
    for name in &names {
        ids.push(bed.ready(name).await.status.unwrap().key_id.unwrap());
    }
    for name in &names {
        bed.annotate(name, "boltz.bio/rotate", "1").await;
    }
    for (name, old) in names.iter().zip(&ids) {
        bed.until(name, "rotated", |object| {
            object.status.as_ref().is_some_and(|status| status.key_id.as_ref() != Some(old))
        })
        .await;
    }
    // Lost ones are revoked, and old ones after their overlap.
    bed.until_active(names.len()).await;
    for name in &names {
        let record = bed.record(name).await;
        let value = bed.value(name).await;
        assert_eq!(bed.emulator.authenticate(&value), Some(record.key_id), "{name}");
    }
    let posts = bed.emulator.count(Operation::Create);
    assert!(posts <= 4 * names.len(), "{posts} POSTs for {} keys", 2 * names.len());
}

#[tokio::test]
async fn a_process_that_slept_past_its_window_does_no_harm_when_it_wakes() {
    let bed = Bed::new().await;
    // Its POST takes effect; the answer is there only when it wakes.
    bed.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Hold));
    bed.create("slept", json!({})).await;
    boltz_harness::eventually(crate::bed::PATIENCE, "the POST is held", async || {
        if bed.emulator.held() > 0 { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    bed.operator.process().signal("STOP");
    let second = second(&bed).await;
    bed.ready("slept").await;
    bed.emulator.release();
    bed.operator.process().signal("CONT");
    bed.until_active(1).await;
    bed.passes(2).await;
    bed.judge("slept").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2, "{}", second.log());
}

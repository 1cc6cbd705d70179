//! Leader election and the end of the process.

use crate::test_env::{Bed, Make};
use boltz_emulator::Operation;
use boltz_harness::OperatorProcess;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, Instant},
};

fn electing() -> Make {
    let arguments = ["--leader-elect", "true", "--lease-namespace", "boltz-system"];
    Make {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        own_control_plane: true,
        ..Make::default()
    }
}

#[tokio::test]
async fn one_leads_another_stands_by_and_takes_over_at_once_when_it_goes() {
    let mut bed = Bed::make(electing()).await;
    let leases: Api<Lease> = Api::namespaced(bed.client.clone(), "boltz-system");
    let holder = async || leases.get("boltz-operator").await.unwrap().spec.unwrap().holder_identity;
    bed.create("one", json!({})).await;
    bed.ready("one").await;
    let first = holder().await.unwrap();
    let mut second = bed.another(&[]).await;
    let leads = |text: String| text.lines().any(|line| line == "boltz_leader 1");
    assert!(!leads(second.get("/metrics").await.unwrap()));
    assert!(leads(bed.operator.get("/metrics").await.unwrap()));

    let before = Instant::now();
    assert_eq!(bed.operator.terminate(), Some(0));
    assert!(before.elapsed() < Duration::from_secs(10), "SIGTERM ends it within 10 s");
    boltz_harness::eventually(crate::test_env::PATIENCE, "the second leads", async || match holder().await {
        Some(now) if now != first => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    assert!(before.elapsed() < Duration::from_secs(14), "without waiting for the lease to run out");
    bed.create("two", json!({})).await;
    bed.ready("two").await;
    assert_eq!(bed.emulator.count(Operation::Create), 2);
    assert_eq!(second.terminate(), Some(0));
    assert_eq!(holder().await, None, "the lease is released");
}

#[tokio::test]
async fn wrong_configuration_ends_the_process_with_one_line() {
    let bed = Bed::new().await;
    for (arguments, flag) in [
        (vec!["--settle-time", "soon"], "--settle-time"),
        (vec!["--boltz-base-url", "http://boltz.example"], "--boltz-base-url"),
        (vec!["--watch-namespaces", "a"], "--cluster-name"),
        (vec!["--log-format", "xml"], "--log-format"),
        (vec!["--no-such-flag"], "--no-such-flag"),
    ] {
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        arguments.extend(["--admin-key-file".to_owned(), "/dev/null".to_owned()]);
        let mut process = OperatorProcess::start(
            Path::new(env!("CARGO_BIN_EXE_boltz-operator")),
            &bed.control_plane.kubeconfig("operator"),
            &arguments,
            &[],
        )
        .unwrap();
        assert_eq!(process.wait(Duration::from_secs(10)), Some(2), "{arguments:?}");
        let log = process.log();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(flag), "{log}");
    }
}

//! Leader election and the end of the process.

use crate::test_env::{EnvOptions, PATIENCE, TestEnv};
use boltz_emulator::Operation;
use boltz_harness::OperatorProcess;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use std::path::Path;

fn electing() -> EnvOptions {
    let arguments = ["--leader-elect", "true", "--lease-namespace", "boltz-system"];
    EnvOptions {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        own_control_plane: true,
        ..EnvOptions::default()
    }
}

#[tokio::test]
async fn one_leads_another_stands_by_and_takes_over_at_once_when_it_goes() {
    let mut env = TestEnv::with_options(electing()).await;
    let leases: Api<Lease> = Api::namespaced(env.client.clone(), "boltz-system");
    let holder = async || leases.get("boltz-operator").await.unwrap().spec.unwrap().holder_identity;
    env.create("one", json!({})).await;
    env.ready("one").await;
    let first = holder().await.unwrap();
    let mut second = env.another(&[]).await;
    let leads = |text: String| text.lines().any(|line| line == "boltz_leader 1");
    assert!(!leads(second.get("/metrics").await.unwrap()));
    assert!(leads(env.operator.get("/metrics").await.unwrap()));

    assert_eq!(env.operator.terminate(), Some(0));
    // So nobody has to wait for it to run out.
    assert!(env.operator.log().contains("released the lease"), "{}", env.operator.log());
    boltz_harness::eventually(PATIENCE, "the second leads", async || match holder().await {
        Some(now) if now != first => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    env.create("two", json!({})).await;
    env.ready("two").await;
    assert_eq!(env.emulator.count(Operation::Create), 2);
    assert_eq!(second.terminate(), Some(0));
    assert_eq!(holder().await, None, "the lease is released");
}

/// A leader is stopped for longer than its lease is valid, and goes on.
#[tokio::test]
async fn a_former_leader_shows_no_object() {
    let env = TestEnv::with_options(electing()).await;
    env.create("one", json!({})).await;
    env.ready("one").await;
    env.until_metric("boltz_leader 1").await;
    let of_leaders = [
        "name=\"one\"",
        "boltz_watch_healthy{",
        "boltz_inventory_age_seconds ",
        "boltz_admin_key_state{",
        "boltz_mint_queue_length{",
    ];
    let shows = |text: &str| of_leaders.iter().any(|words| text.contains(words));
    assert!(shows(&env.operator.get("/metrics").await.unwrap()));
    env.operator.process().signal("STOP");
    let second = env.another(&[]).await;
    let series = async |process: &OperatorProcess, wanted: bool| {
        let seen = boltz_harness::eventually(PATIENCE, "the series", async || {
            let text = process.get("/metrics").await?;
            if shows(&text) == wanted { Ok(()) } else { Err(text) }
        });
        seen.await.unwrap();
    };
    series(&second, true).await;
    env.operator.process().signal("CONT");
    series(&env.operator, false).await;
    env.operator.wait_ready().await.unwrap();
    env.create("two", json!({})).await;
    env.ready("two").await;
    assert!(!shows(&env.operator.get("/metrics").await.unwrap()));
}

#[tokio::test]
async fn wrong_configuration_ends_the_process_with_one_line() {
    let env = TestEnv::new().await;
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
            &env.control_plane.kubeconfig("operator"),
            &arguments,
            &[],
        )
        .unwrap();
        assert_eq!(process.wait(PATIENCE), Some(2), "{arguments:?}");
        let log = process.log();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(flag), "{log}");
    }
}

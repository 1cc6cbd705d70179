//! The log: what somebody on call reads.

use crate::test_env::{EnvOptions, TestEnv, owned};
use serde_json::{Value as Json, json};

/// Of each step of the object, in the order of the log.
fn steps(env: &TestEnv) -> Vec<Json> {
    let lines =
        env.operator.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Json>>();
    lines.into_iter().filter(|line| line["name"] == "main" && line["step"].is_string()).collect()
}

#[tokio::test]
async fn each_step_is_one_line_with_the_same_fields_and_the_level_changes_at_run_time() {
    let arguments = owned(&["--log-format", "json", "--settle-time", "4s", "--request-timeout", "2s"]);
    let env = TestEnv::with_options(EnvOptions { arguments, ..EnvOptions::default() }).await;
    env.create("main", json!({"rotation": {"overlap": "1s"}})).await;
    let object = env.ready("main").await;
    // The line follows the write that made the object ready.
    env.wait("the write is in the log", || {
        steps(&env)
            .iter()
            .any(|line| line["step"] == "WriteStatus")
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let first = steps(&env);
    let names: Vec<&str> = first.iter().map(|line| line["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["Preflight", "WriteAttempt", "Mint", "Store", "WriteStatus"]);
    for line in &first {
        assert_eq!(line["uid"].as_str(), object.metadata.uid.as_deref());
        assert_eq!(line["namespace"], env.namespace.as_str());
        for field in ["timestamp", "level", "message", "reconcile_id", "duration_seconds", "result"] {
            assert!(!line[field].is_null(), "{field} is missing in {line}");
        }
    }
    let id = object.status.unwrap().key_id.unwrap();
    assert_eq!(first[3]["key_id"], id.as_str());
    assert!(!first[2]["attempt"].is_null() && first[2]["attempt"] == first[3]["attempt"]);

    env.annotate("main", "boltz.bio/rotate-now", "1").await;
    env.wait("the revocation is in the log", || {
        let revoked =
            steps(&env).into_iter().find(|line| line["step"] == "Revoke" && line["key_id"] == id.as_str());
        revoked.map(|_| ()).ok_or_else(|| format!("{:?}", steps(&env).last()))
    })
    .await;
    // The same as a story. The first key has no event.
    env.wait("describe tells the rotation", || {
        let object = ["describe", "boltzapikey", "main", "--namespace", env.namespace.as_str()];
        let told = env.control_plane.kubectl(&object).map_err(|error| error.to_string())?;
        let events = told.split("Events:").nth(1).unwrap_or_default();
        let all = ["Rotated", "Revoked", "RotateNow", id.as_str()];
        let lacks: Vec<_> =
            all.iter().filter(|part| !events.replace("  ", " ").contains(&part.replace("  ", " "))).collect();
        if lacks.is_empty() { Ok(()) } else { Err(format!("{lacks:?} is not in {told}")) }
    })
    .await;
    assert!(!env.operator.log().contains("\"DEBUG\""));
    // Lines of that level, and not only the news that there will be some.
    let details = || env.operator.log().matches("\"level\":\"DEBUG\"").count();
    let mut rotations = 1_usize;
    for level in ["DEBUG", "as configured"] {
        let before = details();
        env.operator.process().signal("HUP");
        env.wait(level, || {
            let log = env.operator.log();
            if log.contains(&format!("\"log_level\":\"{level}\"")) {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
        let after_signal = details();
        rotations += 1;
        env.annotate("main", "boltz.bio/rotate-now", &rotations.to_string()).await;
        env.wait("the next revocation is in the log", || {
            let revocations = steps(&env).iter().filter(|line| line["step"] == "Revoke").count();
            if revocations >= rotations { Ok(()) } else { Err(revocations.to_string()) }
        })
        .await;
        match level {
            "DEBUG" => assert!(details() > before, "nothing is said at the level DEBUG"),
            _ => assert_eq!(details(), after_signal, "something is still said at the level DEBUG"),
        }
    }
}

//! The health check for Argo CD in `docs/gitops.md`, run by Lua on objects as the operator leaves them.

use crate::test_env::TestEnv;
use boltz_emulator::{Effect, Fault, Operation, Outcome};
use boltz_operator::api::BoltzApiKey;
use serde_json::{Value as Json, json};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

fn lua(value: &Json) -> String {
    match value {
        Json::Null => "nil".to_owned(),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("[{}]={}", json!(name), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Json::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        // JSON's escapes are not all Lua's, but \" \\ and \n are.
        other => other.to_string(),
    }
}

/// What Argo CD would show: status and message.
fn health(object: &BoltzApiKey) -> (String, String) {
    let docs = include_str!("../../../docs/gitops.md");
    let check = docs.split("```lua\n").nth(1).unwrap().split("```").next().unwrap();
    let program = format!(
        "obj = {}\nlocal function check()\n{check}\nend\nlocal health = check()\nprint(health.status)\nprint(health.message)",
        lua(&json!(object))
    );
    let mut child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/lua"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (status, message) = text.split_once('\n').unwrap();
    (status.to_owned(), message.trim().to_owned())
}

#[tokio::test]
async fn argo_cd_sees_what_the_conditions_say() {
    let env = TestEnv::new().await;
    let shown = |object: &BoltzApiKey, status: &str| {
        let (seen, message) = health(object);
        assert_eq!(seen, status, "{message}: {}", json!(object));
        assert!(!message.is_empty());
    };
    let unavailable = |operation| Fault::once(operation, Effect::None, Outcome::status(503)).times(1000);
    shown(&env.create("key", json!({})).await, "Progressing");
    shown(&env.ready("key").await, "Healthy");
    let mut ahead = env.get("key").await;
    ahead.metadata.generation = ahead.metadata.generation.map(|generation| generation + 1);
    shown(&ahead, "Progressing");

    env.create("asleep", json!({"suspend": true})).await;
    shown(&env.not_ready("asleep", "Suspended").await, "Suspended");

    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}});
    env.secrets().create(&Default::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    env.create("taken", json!({})).await;
    shown(&env.not_ready("taken", "SecretConflict").await, "Degraded");

    env.emulator.inject(unavailable(Operation::Create));
    env.create("unlucky", json!({})).await;
    shown(&env.not_ready("unlucky", "BoltzUnavailable").await, "Progressing");

    env.emulator.inject(unavailable(Operation::Revoke));
    env.delete("key").await;
    let deleting = env.until("key", "deleting", |object| object.metadata.deletion_timestamp.is_some()).await;
    shown(&deleting, "Progressing");
}

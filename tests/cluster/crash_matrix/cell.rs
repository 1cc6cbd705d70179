//! One cell: bring the operator to the call, let it meet its outcome, and judge what becomes of it.

use super::{
    outcome::{self, Outcome},
    scenario::{Call, Scenario},
    user::User,
};
use crate::test_env::{EnvOptions, PATIENCE, TestEnv, record_of, value_of};
use boltz_emulator::Operation;
use boltz_harness::eventually;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, api::ListParams};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// More writes than without a fault: a status that says what is wrong and one that says that it is over, an attempt
/// without a key, a record.
const MORE_WRITES: usize = 4;

/// The number of POSTs, or what is wrong.
pub async fn run(call: &'static Call, outcome: Outcome, user: User) -> Result<usize, String> {
    let arguments = ["--settle-time", "6s", "--request-timeout", "1500ms"];
    let mut env = TestEnv::with_options(EnvOptions {
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        proxy: true,
        ..EnvOptions::default()
    })
    .await;
    match run_on(&mut env, call, outcome, user).await {
        Ok(posts) => Ok(posts),
        Err(why) => Err(format!("{why}\n{}", env.operator.process().last_lines(30))),
    }
}

async fn run_on(env: &mut TestEnv, call: &Call, outcome: Outcome, user: User) -> Result<usize, String> {
    let scenario = call.scenario;
    scenario.prepare(env).await?;
    // A user's own value works nowhere, and a deletion revokes before the Secret goes.
    let is_over = Arc::new(AtomicBool::new(scenario == Scenario::Delete || user.breaks_the_secret()));
    let watch = watch_delivered_keys(env, &is_over);
    let armed = outcome::arm(env, call.target, outcome);
    let judged = async {
        scenario.trigger(env).await?;
        armed.is_met(env).await?;
        user.acts(env).await?;
        armed.carry_out(env)?;
        if scenario == Scenario::Delete && user == User::StripsTheFinalizer {
            return reported(env).await;
        }
        let is_recreated = user == User::DeletesAndRecreatesIt;
        let is_deleted = scenario == Scenario::Delete && !is_recreated;
        if !is_deleted {
            user.follows_up(env).await?;
        }
        if is_deleted || user.ends_the_object() {
            gone(env, user).await
        } else {
            at_rest(env, if is_recreated { Scenario::Create } else { scenario }).await
        }
    };
    let (judged, violations) = tokio::join!(
        async {
            let judged = judged.await;
            is_over.store(true, Ordering::Relaxed);
            judged
        },
        watch
    );
    judged?;
    if let Some(violation) = violations {
        return Err(violation);
    }
    let posts = env.emulator.count(Operation::Create);
    let most = scenario.posts() + 1 + user.posts();
    if posts > most {
        return Err(format!("{posts} POSTs, at most {most}"));
    }
    let (writes, most) = (env.proxy.as_ref().unwrap().writes(), scenario.writes() + MORE_WRITES);
    if user == User::Waits && writes.len() > most {
        return Err(format!("{} writes to the API server, at most {most}: {writes:#?}", writes.len()));
    }
    Ok(posts)
}

/// The promise after the end of an object.
async fn gone(env: &TestEnv, user: User) -> Result<(), String> {
    eventually(PATIENCE, "the object is gone and its keys are revoked", async || {
        let object = env.objects().get_opt("key").await.map_err(|error| error.to_string())?;
        let namespaces: Api<Namespace> = Api::all(env.client.clone());
        let namespace = namespaces.get_opt(&env.namespace).await.map_err(|error| error.to_string())?;
        let is_gone = object.is_none() && (namespace.is_none() || user != User::DeletesTheNamespace);
        let active = env.active_ids().len();
        if is_gone && active == 0 { Ok(()) } else { Err(format!("{active} active keys, gone: {is_gone}")) }
    })
    .await
}

/// What is left of an object that lost its finalizer while it was being deleted: nobody revokes by guess, so its keys
/// are reported.
async fn reported(env: &TestEnv) -> Result<(), String> {
    eventually(PATIENCE, "the keys that are left are reported", async || {
        let object = env.objects().get_opt("key").await.map_err(|error| error.to_string())?;
        let line = format!("boltz_orphaned_keys {}", env.active_ids().len());
        let metrics = env.operator.get("/metrics").await?;
        let is_reported = metrics.lines().any(|known| known == line);
        if object.is_none() && is_reported { Ok(()) } else { Err(format!("not {line}")) }
    })
    .await
}

/// The promise at rest.
async fn at_rest(env: &TestEnv, scenario: Scenario) -> Result<(), String> {
    eventually(PATIENCE, "a good state at rest", async || {
        let object = env.objects().get("key").await.map_err(|error| error.to_string())?;
        let status = object.status.unwrap_or_default();
        let name = if scenario == Scenario::Move { "moved" } else { "key" };
        let secrets: Vec<Secret> =
            env.secrets().list(&Default::default()).await.map_err(|error| error.to_string())?.items;
        let [secret] = secrets.as_slice() else { return Err(format!("{} Secrets", secrets.len())) };
        if secret.metadata.name.as_deref() != Some(name) || status.secret_name.as_deref() != Some(name) {
            return Err(format!(
                "the Secret is {:?}, status says {:?}",
                secret.metadata.name, status.secret_name
            ));
        }
        let record = record_of(secret);
        let id = env.emulator.authenticate(&value_of(secret, &record.secret_key));
        let active: Vec<String> = env.active_ids().into_iter().collect();
        let ready = status.conditions.iter().any(|condition| {
            condition.type_ == "Ready" && condition.status == "True" && condition.reason == "Issued"
        });
        let rotated = !matches!(scenario, Scenario::Rotate | Scenario::Restart) || record.rotations >= 1;
        if id.as_ref() == Some(&record.key_id)
            && status.key_id == id
            && active == [record.key_id.clone()]
            && status.previous_keys.is_empty()
            && ready
            && rotated
        {
            Ok(())
        } else {
            Err(format!("the Secret holds {id:?}, active are {active:?}, status is {status:?}"))
        }
    })
    .await
}

/// The promise at any time: the value in the Secret authenticates. Answers the first violation.
fn watch_delivered_keys(
    env: &TestEnv,
    is_over: &Arc<AtomicBool>,
) -> impl Future<Output = Option<String>> + use<> {
    let (secrets, emulator, is_over) = (env.secrets(), Arc::clone(&env.emulator), Arc::clone(is_over));
    async move {
        let mut suspect: Option<String> = None;
        while !is_over.load(Ordering::Relaxed) {
            let found = secrets.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
            let dead: Vec<String> = found
                .iter()
                .map(|secret| value_of(secret, &record_of(secret).secret_key))
                .filter(|value| emulator.authenticate(value).is_none())
                .collect();
            // What was replaced between the two looks is not there at the next.
            if let Some(value) = suspect.filter(|value| dead.contains(value)) {
                return Some(format!("a Secret holds a key that does not work: {value}"));
            }
            suspect = dead.into_iter().next();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        None
    }
}

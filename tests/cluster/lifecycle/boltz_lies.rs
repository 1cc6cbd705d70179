//! Boltz answers nonsense: nothing is issued, revoked or given up because of it.

use crate::{
    lifecycle::causes::Obstacle,
    test_env::{EnvOptions, PATIENCE, TestEnv, condition, is, owned},
};
use boltz_emulator::{AdminKey, Effect, Fault, Lie, Operation, Outcome, Settings, StandingFault};
use boltz_harness::eventually;
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

async fn ready(env: &TestEnv, names: &[&str]) {
    for name in names {
        env.create(name, json!({})).await;
    }
    for name in names {
        env.ready(name).await;
    }
}

/// Another process, with the same configuration but for these flags.
async fn restart(env: &mut TestEnv, changes: &[&str]) {
    env.operator.kill();
    env.operator = env.another(changes).await;
}

#[tokio::test]
async fn a_list_that_lies_about_all_keys_costs_none() {
    let env = TestEnv::settling_fast().await;
    ready(&env, &NAMES).await;
    env.passes(2).await;
    // What it showed before under their names stays theirs.
    env.emulator.stand("names", StandingFault::lie(Operation::List, Lie::NamesCutTo(40)));
    env.passes(4).await;
    env.until_metric("boltz_inventory_doubtful 0").await;
    assert!(is(&env.get("a").await, "Ready"));
    env.emulator.lift("names");
    for lie in [Lie::NoKeys, Lie::Inactive] {
        env.emulator.stand("lie", StandingFault::lie(Operation::List, lie.clone()));
        env.until_metric("boltz_inventory_doubtful 1").await;
        env.annotate("a", "boltz.bio/retry", "1").await;
        env.passes(3).await;
        let told = env
            .until("b", "it says so", |object| {
                condition(object, "Stalled").is_some_and(|condition| condition.reason == "KeyDoubtful")
            })
            .await;
        assert!(is(&told, "Ready"), "{lie:?}");
        env.emulator.lift("lie");
        env.until_metric("boltz_inventory_doubtful 0").await;
        assert_eq!(env.emulator.count(Operation::Create), NAMES.len(), "{lie:?}");
        assert_eq!(env.emulator.count(Operation::Revoke), 0, "{lie:?}");
    }
    env.judge_all(&NAMES, &[]).await;
}

/// Somebody revoked many keys in Boltz's console, and says so: the objects do not wait for an hour.
#[tokio::test]
async fn a_person_confirms_that_keys_are_gone() {
    let env = TestEnv::settling_fast().await;
    ready(&env, &NAMES).await;
    env.passes(2).await;
    for key in env.emulator.active_keys() {
        env.emulator.deactivate(&key.id);
    }
    env.until_metric("boltz_inventory_doubtful 1").await;
    let confirm = async |count: &str| {
        env.edit_remembered("confirmMissingKeys", &json!(count)).await;
        let said = format!(
            "so many keys are gone; the next pass that lacks no more of them is believed \
             configmap=\"boltz-operator-account\" keys={count}"
        );
        env.wait("it has read it", || {
            if env.operator.log().contains(&said) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        env.passes(2).await;
    };
    confirm("11").await;
    assert_eq!(env.emulator.count(Operation::Create), NAMES.len(), "more keys are missing");
    confirm("12").await;
    env.until_active(NAMES.len()).await;
    env.until_metric("boltz_inventory_doubtful 0").await;
    eventually(PATIENCE, "it counts once", async || match env.remembered("confirmMissingKeys").await {
        Ok(count) if count.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    env.judge_all(&NAMES, &[]).await;
}

/// The same while an admission policy refuses what the operator wants to remember.
#[tokio::test]
async fn a_person_confirms_although_the_operator_cannot_write() {
    let env = TestEnv::settling_fast().await;
    ready(&env, &NAMES[1..]).await;
    env.passes(2).await;
    let key = format!("'{}.activeKeys'", env.namespace);
    let is_unchanged = format!(
        "{key} in object.data && {key} in oldObject.data && object.data[{key}] == oldObject.data[{key}]"
    );
    let obstacle =
        Obstacle::policy(&env, ("", "configmaps"), &["UPDATE"], &is_unchanged, "the number stays").await;
    ready(&env, &NAMES[..1]).await;
    let fails = "failed to write what the operator remembers";
    env.wait("its writes are refused", || {
        if env.operator.log().contains(fails) { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    for key in env.emulator.active_keys() {
        env.emulator.deactivate(&key.id);
    }
    env.until_metric("boltz_inventory_doubtful 1").await;
    env.edit_remembered("confirmMissingKeys", &json!("12")).await;
    env.until_active(NAMES.len()).await;
    obstacle.lift().await;
    env.judge_all(&NAMES, &[]).await;
}

/// Of few keys, each is asked: it knows better than the list.
#[tokio::test]
async fn a_list_that_lies_about_the_only_key_costs_none() {
    let env = TestEnv::settling_fast().await;
    ready(&env, &["key"]).await;
    env.passes(2).await;
    for lie in [Lie::NoKeys, Lie::Inactive] {
        env.emulator.stand("lie", StandingFault::lie(Operation::List, lie.clone()));
        env.passes(5).await;
        env.emulator.lift("lie");
        env.passes(2).await;
        assert_eq!(env.emulator.count(Operation::Create), 1, "{lie:?}");
        assert!(is(&env.get("key").await, "Ready"), "{lie:?}");
    }
    env.judge("key").await;
}

/// The finalizer stays until the list is right again.
#[tokio::test]
async fn a_deletion_under_a_list_without_keys_revokes_the_key() {
    let mut env = TestEnv::settling_fast().await;
    ready(&env, &NAMES).await;
    env.passes(2).await;
    // Another process knows only what is stored.
    restart(&mut env, &[]).await;
    env.passes(2).await;
    env.emulator.stand("lie", StandingFault::lie(Operation::List, Lie::NoKeys));
    env.until_metric("boltz_inventory_doubtful 1").await;
    restart(&mut env, &[]).await;
    env.passes(2).await;
    env.delete("a").await;
    let told = env
        .until("a", "it says what it waits for", |object| {
            condition(object, "Ready")
                .is_some_and(|condition| condition.message.contains("does not trust the list"))
        })
        .await;
    assert!(told.metadata.deletion_timestamp.is_some());
    env.passes(3).await;
    env.emulator.lift("lie");
    env.gone("a").await;
    env.until_active(NAMES.len() - 1).await;
    env.judge_all(&NAMES[1..], &[]).await;
}

/// A key of another request is neither used nor revoked; one in another workspace is revoked.
#[tokio::test]
async fn a_new_key_that_was_not_requested_is_not_used() {
    let env = TestEnv::settling_fast().await;
    ready(&env, &["known"]).await;
    let known = env.emulator.keys()[0].id.clone();
    for (name, lie, reason) in [
        ("repeated", Lie::NameOfAnother, "BoltzUnavailable"),
        ("elsewhere", Lie::OtherWorkspace, "BoltzRejected"),
        ("of-another", Lie::Id(known), "BoltzUnavailable"),
    ] {
        env.emulator.stand("lie", StandingFault::lie(Operation::Create, lie));
        env.create(name, json!({"workspaceID": "ws_mine"})).await;
        env.not_ready(name, reason).await;
        env.emulator.lift("lie");
        env.annotate(name, "boltz.bio/retry", "1").await;
        env.ready(name).await;
    }
    // The key that Boltz made all the same is found by its true name.
    env.judge_all(&["known", "repeated", "elsewhere", "of-another"], &[]).await;
    assert_eq!(env.emulator.count(Operation::Create), 7);
}

#[tokio::test]
async fn a_boltz_that_alters_names_gets_no_more_requests_for_keys() {
    let settings = Settings { names_cut_to: Some(40), ..Settings::default() };
    let arguments = owned(&["--settle-time", "4s", "--request-timeout", "2s"]);
    let mut env = TestEnv::with_options(EnvOptions { settings, arguments, ..EnvOptions::default() }).await;
    env.create("first", json!({})).await;
    let object = env.not_ready("first", "NamesAltered").await;
    assert!(is(&object, "Stalled"));
    env.until_active(0).await;
    eventually(PATIENCE, "it is remembered", async || match env.remembered("namesAltered").await {
        Ok(message) if message.is_empty() => Err("not yet".to_owned()),
        remembered => remembered.map(drop),
    })
    .await
    .unwrap();
    let unanswered = env.unanswered();
    restart(&mut env, &[]).await;
    env.create("second", json!({})).await;
    env.not_ready("second", "NamesAltered").await;
    assert_eq!(env.emulator.count(Operation::Create), 1 + unanswered, "also after a restart");
    env.emulator.change(|settings| settings.names_cut_to = None);
    // A flag without a value; flags go in pairs here.
    restart(&mut env, &["--retry-altered-names", "--allow-insecure-http"]).await;
    env.ready("first").await;
    env.ready("second").await;
    env.judge_all(&["first", "second"], &[]).await;
}

#[tokio::test]
async fn keys_that_had_expired_on_arrival_are_revoked_and_requested_ever_more_seldom() {
    let env = TestEnv::settling_fast().await;
    env.emulator.stand("lie", StandingFault::lie(Operation::Create, Lie::ExpiredOnArrival));
    env.create("key", json!({"expiresInDays": 1})).await;
    let object = env.not_ready("key", "ClockSkew").await;
    assert!(is(&object, "Stalled"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(env.emulator.count(Operation::Create) <= 3, "{}", env.emulator.count(Operation::Create));
    env.until_active(0).await;
    env.emulator.lift("lie");
    env.annotate("key", "boltz.bio/retry", "1").await;
    env.judge("key").await;
}

#[tokio::test]
async fn an_admin_key_of_another_organization_is_not_used() {
    let mut env = TestEnv::settling_fast().await;
    ready(&env, &["kept", "deleted"]).await;
    let old = AdminKey::new(env.emulator.admin_key());
    let other = AdminKey {
        organization_id: Some("org_other".to_owned()),
        ..AdminKey::new("of another organization")
    };
    // The old one works, so it is used, and an alarm tells it.
    env.emulator.set_admin_keys(vec![other.clone(), old]);
    env.set_admin_key("of another organization");
    env.until_metric("boltz_admin_key_new_unproved 1").await;
    ready(&env, &["meanwhile"]).await;
    env.until_metric(r#"boltz_admin_key_state{state="valid"} 1"#).await;
    assert!(env.operator.log().contains("the new admin key is not used, because it belongs to"));
    // Now there is only the wrong one.
    env.emulator.stand("its list", StandingFault::lie(Operation::List, Lie::NoKeys));
    env.emulator.set_admin_keys(vec![other]);
    env.until_metric(r#"boltz_admin_key_state{state="wrong_organization"} 1"#).await;
    env.create("before", json!({})).await;
    for restarts in [false, true] {
        if restarts {
            restart(&mut env, &[]).await;
            env.until_metric(r#"boltz_admin_key_state{state="wrong_organization"} 1"#).await;
        }
        let name = if restarts { "after" } else { "before" };
        if restarts {
            env.create(name, json!({})).await;
        }
        let object = env
            .until(name, "it says whose key it is", |object| {
                condition(object, "Ready").is_some_and(|condition| condition.message.contains("org_other"))
            })
            .await;
        let ready = condition(&object, "Ready").unwrap();
        assert_eq!(ready.reason, "BoltzUnauthorized");
        let message = &ready.message;
        for word in ["org_example", "org_other", "--accept-organization=org_other"] {
            assert!(message.contains(word), "{message}");
        }
    }
    env.delete("deleted").await;
    assert_eq!(env.emulator.count(Operation::Create), 3);
    assert_eq!(env.emulator.count(Operation::Revoke), 0);
    assert!(is(&env.get("kept").await, "Ready"));

    env.emulator.lift("its list");
    env.emulator.set_admin_keys(vec![AdminKey::new("of the right one")]);
    env.set_admin_key("of the right one");
    env.gone("deleted").await;
    env.judge_all(&["kept", "meanwhile", "before", "after"], &[]).await;
}

/// While the operator runs, somebody deletes or edits what it remembers: the next process would not know whose keys these are.
#[tokio::test]
async fn what_is_remembered_is_written_again() {
    let env = TestEnv::settling_fast().await;
    ready(&env, &["key"]).await;
    let remembered = || env.remembered("organization");
    let organization = eventually(PATIENCE, "it is remembered", &remembered).await.unwrap();
    for edit in [json!(null), json!("org_of_somebody")] {
        env.edit_remembered("organization", &edit).await;
        eventually(PATIENCE, "it is written again", async || match remembered().await {
            Ok(known) if known == organization => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }
    assert!(is(&env.get("key").await, "Ready"));
    assert!(env.operator.log().contains("somebody changed or deleted what the operator remembers"));
}

/// Whatever Boltz says, no key is in it.
#[tokio::test]
async fn words_that_repeat_a_key_are_scrubbed() {
    let env = TestEnv::settling_fast().await;
    let admin_key = env.emulator.admin_key().to_owned();
    let body = json!({
        "code": "FORBIDDEN\u{1b}[31m",
        "message": format!("the key {admin_key} may not create sk_bc_ws_live_0123456789"),
    });
    let refused = Outcome::Status { status: 402, headers: BTreeMap::new(), body: Some(body.to_string()) };
    env.emulator.stand("words", StandingFault::of(Fault::once(Operation::Create, Effect::None, refused)));
    env.create("key", json!({})).await;
    let object = env.not_ready("key", "BoltzRejected").await;
    let message = condition(&object, "Ready").unwrap().message.clone();
    assert!(message.contains("[redacted]"), "{message}");
    let log = env.operator.log();
    for secret in [admin_key.as_str(), "0123456789", "\u{1b}[31m"] {
        assert!(!message.contains(secret) && !log.contains(secret), "{message}\n{log}");
    }
    env.emulator.lift("words");
    env.emulator.stand("prefix", StandingFault::lie(Operation::Create, Lie::WholeKeyAsPrefix));
    env.annotate("key", "boltz.bio/retry", "1").await;
    let status = env.ready("key").await.status.unwrap();
    assert_eq!(status.key_prefix.unwrap().len(), 12);
}

//! What is not known of Boltz, either way.

use crate::client::{KEYS, TestEnv, eventually, ok, refused, send, text};
use boltz_emulator::Settings;
use jiff::Timestamp;
use reqwest::{Method, header::RETRY_AFTER};
use serde_json::{Value as Json, json};

async fn names(env: &TestEnv) -> Vec<String> {
    env.list("").await["data"].as_array().unwrap().iter().map(|row| text(&row["name"])).collect()
}

#[tokio::test]
async fn the_list_holds_inactive_keys_or_not() {
    let env = TestEnv::new().await;
    let ids = ["revoked", "expired", "live"].map(|name| env.emulator.create_foreign(name).unwrap());
    env.emulator.deactivate(&ids[0]);
    env.emulator.expire_now(&ids[1]);
    assert_eq!(names(&env).await, ["live", "expired", "revoked"]);
    env.emulator.change(|settings| settings.list_inactive = false);
    assert_eq!(names(&env).await, ["live"]);
    let page = env.list(&format!("after_id={}", ids[2])).await;
    assert_eq!((&page["data"], &page["has_more"]), (&json!([]), &json!(false)));
    assert_eq!(
        env.list(&format!("after_id={}", ids[1])).await["data"],
        json!([]),
        "a hidden key is a cursor"
    );
}

#[tokio::test]
async fn expiry_turns_is_active_false_or_not() {
    let env = TestEnv::new().await;
    let (key, id) = env.created(json!({"name": "n", "expires_in_days": 1})).await;
    env.emulator.expire_now(&id);
    let row = || async { env.list("").await["data"][0].clone() };
    assert_eq!(row().await["is_active"], false);
    env.emulator.change(|settings| settings.expiry_deactivates = false);
    let expired = row().await;
    assert_eq!(expired["is_active"], true);
    assert!(text(&expired["expires_at"]).parse::<Timestamp>().unwrap() <= Timestamp::now());
    assert_eq!(refused(env.me(&key)).await.0, 401, "expired all the same");
}

#[tokio::test]
async fn names_are_unique_or_not_and_bounded_or_not() {
    let env = TestEnv::new().await;
    let (_, id) = env.created(json!({"name": "twin"})).await;
    env.created(json!({"name": "twin"})).await;
    env.emulator.change(|settings| settings.unique_names = true);
    assert_eq!(refused(env.create(json!({"name": "twin"}))).await, (409, "CONFLICT".to_owned()));
    env.created(json!({"name": "other"})).await;
    for key in env.emulator.keys() {
        env.emulator.deactivate(&key.id);
    }
    assert!(env.emulator.key(&id).unwrap().revoked_at.is_some());
    env.created(json!({"name": "twin"})).await;

    env.emulator.change(|settings| settings.longest_name = Some(4));
    env.created(json!({"name": "üüüü"})).await;
    assert_eq!(refused(env.create(json!({"name": "seven77"}))).await.0, 422);
}

#[tokio::test]
async fn revoking_twice_is_well_or_an_error() {
    let env = TestEnv::new().await;
    let id = env.emulator.create_foreign("n").unwrap();
    ok(env.revoke(&id)).await;
    let first = env.emulator.key(&id).unwrap().revoked_at;
    ok(env.revoke(&id)).await;
    assert_eq!(env.emulator.key(&id).unwrap().revoked_at, first);
    env.emulator.change(|settings| settings.revoking_twice_fails = true);
    assert_eq!(refused(env.revoke(&id)).await.0, 400);
}

#[tokio::test]
async fn the_list_can_lag_behind_a_create() {
    let env = TestEnv::with(Settings { list_lag_milliseconds: 300, ..Settings::default() }).await;
    let (key, id) = env.created(json!({"name": "new"})).await;
    ok(env.me(&key)).await;
    let created = env.emulator.key(&id).unwrap().created_at;
    let age = || created.duration_until(Timestamp::now()).as_millis();
    let seen = names(&env).await;
    assert!(seen.is_empty() || age() >= 300, "{seen:?}");
    eventually("the key is listed", async || names(&env).await == ["new"]).await;
    assert!(age() >= 300);
}

#[tokio::test]
async fn the_list_can_hold_admin_keys_which_have_no_workspace() {
    let env = TestEnv::with(Settings { list_admin_keys: true, ..Settings::default() }).await;
    let id = env.emulator.create_foreign("ours").unwrap();
    let page = env.list("").await;
    let [ours, admin] = page["data"].as_array().unwrap().as_slice() else { panic!("{page}") };
    assert_eq!((&ours["id"], &ours["key_type"]), (&json!(id), &json!("workspace")));
    assert_eq!((&admin["key_type"], &admin["workspace_id"]), (&json!("admin"), &Json::Null));
    let last = text(&page["last_id"]);
    assert_eq!(admin["id"], json!(last));
    assert_eq!(env.list(&format!("after_id={id}")).await["data"], json!([admin]));
    assert_eq!(env.list(&format!("before_id={last}")).await["data"], json!([ours]));
    assert_eq!(env.list(&format!("after_id={last}")).await["data"], json!([]));
    assert_eq!(env.list("workspace_id=ws_default").await["data"], json!([ours]));
    assert_eq!(ok(env.me(env.emulator.admin_key())).await["api_key_id"], json!(last));
}

#[tokio::test]
async fn there_may_be_no_auth_me() {
    let env = TestEnv::with(Settings { has_auth_me: false, ..Settings::default() }).await;
    assert_eq!(refused(env.me(env.emulator.admin_key())).await, (404, "NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn over_the_limit_it_is_429_without_an_effect_until_the_wait_is_over() {
    let env = TestEnv::with(Settings { requests_per_second: Some(2), ..Settings::default() }).await;
    let mut taken = 0;
    let limited = loop {
        let response = send(env.create(json!({"name": "n"}))).await;
        match response.status().as_u16() {
            200 => taken += 1,
            _ => break response,
        }
        assert!(taken < 1000, "no limit");
    };
    assert_eq!(limited.status(), 429);
    assert_eq!(limited.headers()[RETRY_AFTER], "1");
    assert_eq!(env.emulator.keys().len(), taken);
    eventually("there are tokens again", async || send(env.request(Method::GET, KEYS)).await.status() == 200)
        .await;
}

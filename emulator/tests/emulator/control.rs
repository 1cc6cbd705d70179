//! The control routes.

use crate::client::{KEYS, TestEnv, eventually, ok, refused, send, text};
use boltz_emulator::Operation;
use reqwest::Method;
use serde_json::{Value as Json, json};

async fn got(env: &TestEnv, path: &str) -> Json {
    let response = env.control(Method::GET, path, Json::Null).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn does(env: &TestEnv, method: Method, path: &str, body: Json) {
    let response = env.control(method, path, body).await;
    assert_eq!(response.status(), 204, "{path}");
}

#[tokio::test]
async fn the_state_tells_everything_about_every_key() {
    let env = TestEnv::new().await;
    let (plaintext, id) =
        env.created(json!({"name": "n", "expires_in_days": 1, "workspace_id": "ws_1"})).await;
    env.emulator.create_foreign("theirs").unwrap();
    ok(env.revoke(&id)).await;
    send(env.me(&plaintext)).await;
    let state = got(&env, "state").await;
    let key = &state["keys"][0];
    assert_eq!((&key["id"], &key["plaintext"], &key["name"]), (&json!(id), &json!(plaintext), &json!("n")));
    assert_eq!((&key["workspace_id"], &key["livemode"]), (&json!("ws_1"), &json!(true)));
    assert_eq!((&key["is_active"], &state["keys"][1]["is_active"]), (&json!(false), &json!(true)));
    assert!(key["created_at"].is_string() && key["expires_at"].is_string() && key["revoked_at"].is_string());
    assert_eq!(text(&key["sha256"]), env.emulator.key(&id).unwrap().sha256());
    assert_eq!(state["requests"], json!({"create": {"200": 1}, "revoke": {"200": 1}, "auth_me": {"401": 1}}));
    let requests = got(&env, "requests").await;
    assert_eq!((&requests[1]["operation"], &requests[1]["subject"]), (&json!("revoke"), &json!(id)));
}

#[test]
fn the_hash_is_sha256_in_hexadecimal() {
    let mut key = boltz_emulator::Key {
        id: String::new(),
        plaintext: "abc".to_owned(),
        allowed_ips: Vec::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        revoked_at: None,
        livemode: true,
        last_used_at: None,
        name: String::new(),
        workspace_id: String::new(),
    };
    // The first example of FIPS 180-2, appendix B.
    assert_eq!(key.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    key.plaintext.push('d');
    assert_ne!(key.sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[tokio::test]
async fn settings_change_one_at_a_time() {
    let env = TestEnv::new().await;
    let before = got(&env, "settings").await;
    assert_eq!((&before["day_milliseconds"], &before["newest_first"]), (&json!(86_400_000), &json!(true)));
    let response = env.control(Method::PUT, "settings", json!({"newest_first": false})).await;
    assert_eq!(response.status(), 200);
    let response = env.control(Method::PUT, "settings", json!({"requests_per_second": 5000})).await;
    assert_eq!(response.status(), 200);
    let mut expected = before.clone();
    expected["newest_first"] = json!(false);
    expected["requests_per_second"] = json!(5000);
    assert_eq!(got(&env, "settings").await, expected);
    for wrong in [json!({"newest": true}), json!({"newest_first": 1}), json!([])] {
        let status = env.control(Method::PUT, "settings", wrong.clone()).await.status();
        assert!(status.is_client_error(), "{wrong}: {status}");
    }
    assert_eq!(got(&env, "settings").await, expected);
}

#[tokio::test]
async fn faults_come_in_as_json() {
    let env = TestEnv::new().await;
    let post = async |fault: Json| env.control(Method::POST, "faults", fault).await.status().as_u16();
    for fault in [
        json!({"operation": "create", "effect": "before", "outcome": "cut"}),
        json!({"operation": "create", "effect": {"after": 1}, "outcome": "cut_mid_answer"}),
        json!({"operation": "list", "outcome": {"status": {"status": 503, "headers": {"retry-after": "3"}}}, "times": 2}),
        json!({"operation": "auth_me", "effect": "before", "outcome": {"truncated": 5}, "latency_milliseconds": 1}),
        json!({"operation": "revoke", "outcome": {"foreign": "<html>"}}),
    ] {
        assert_eq!(post(fault.clone()).await, 204, "{fault}");
    }
    for wrong in [json!({}), json!({"outcome": "explode"}), json!({"outcome": "cut", "time": 2})] {
        assert_eq!(post(wrong.clone()).await, 422, "{wrong}");
    }
    assert_eq!(got(&env, "faults").await["faults"].as_array().unwrap().len(), 5);

    assert!(env.create(json!({"name": "n"})).send().await.is_err());
    let response = send(env.create(json!({"name": "n"}))).await;
    assert!(response.bytes().await.is_err());
    assert_eq!(env.emulator.keys().len(), 2);
    for status in [503, 503, 200] {
        assert_eq!(send(env.request(Method::GET, KEYS)).await.status(), status);
    }
    assert_eq!(send(env.me(env.emulator.admin_key())).await.text().await.unwrap().len(), 5);
    assert_eq!(send(env.revoke("any")).await.text().await.unwrap(), "<html>");

    assert_eq!(post(json!({"outcome": "hang"})).await, 204);
    does(&env, Method::DELETE, "faults", Json::Null).await;
    env.list("").await;
}

#[tokio::test]
async fn what_is_held_is_counted_and_released() {
    let env = TestEnv::new().await;
    let fault = json!({"operation": "create", "effect": "on_release", "outcome": "hold"});
    does(&env, Method::POST, "faults", fault).await;
    let held = tokio::spawn(env.create(json!({"name": "n"})).send());
    eventually("it is held", async || got(&env, "faults").await["held"] == 1).await;
    does(&env, Method::POST, "release", Json::Null).await;
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!(got(&env, "faults").await, json!({"faults": [], "held": 0}));
}

#[tokio::test]
async fn admin_keys_are_replaced() {
    let env = TestEnv::new().await;
    let new = json!([{"plaintext": "second"}, {"plaintext": "test", "mode": "test"}]);
    does(&env, Method::PUT, "admin-keys", new).await;
    assert_eq!(refused(env.request(Method::GET, KEYS)).await.0, 401);
    ok(env.request_as("second", Method::GET, KEYS)).await;
    let first = ok(env.me("second")).await;
    let second = ok(env.me("test")).await;
    assert_ne!(first["api_key_id"], second["api_key_id"]);
    assert_eq!((&first["mode"], &second["mode"]), (&json!("live"), &json!("test")));
    assert_eq!(got(&env, "admin-keys").await[1]["key_type"], "admin");
}

#[tokio::test]
async fn keys_are_made_and_meddled_with_behind_the_clients_back() {
    let env = TestEnv::new().await;
    let response = env.control(Method::POST, "keys", json!({"name": "theirs", "expires_in_days": 9})).await;
    let key: Json = response.json().await.unwrap();
    let (id, plaintext) = (text(&key["id"]), text(&key["plaintext"]));
    assert_eq!(env.emulator.count(Operation::Create), 0);
    assert_eq!(env.control(Method::POST, "keys", json!({"name": ""})).await.status(), 422);

    does(&env, Method::POST, &format!("keys/{id}/use"), Json::Null).await;
    assert!(env.emulator.key(&id).unwrap().last_used_at.is_some());
    ok(env.me(&plaintext)).await;
    does(&env, Method::POST, &format!("keys/{id}/expire"), Json::Null).await;
    assert_eq!(refused(env.me(&plaintext)).await.0, 401);
    assert!(env.emulator.key(&id).unwrap().revoked_at.is_none());
    does(&env, Method::POST, &format!("keys/{id}/deactivate"), Json::Null).await;
    assert!(env.emulator.key(&id).unwrap().revoked_at.is_some());
    for action in ["use", "expire", "deactivate"] {
        let path = format!("keys/key_unknown/{action}");
        assert_eq!(env.control(Method::POST, &path, Json::Null).await.status(), 404);
    }
}

#[tokio::test]
async fn a_reset_forgets_keys_faults_and_requests_but_not_how_to_behave() {
    let env = TestEnv::new().await;
    env.created(json!({"name": "n"})).await;
    env.control(Method::PUT, "settings", json!({"page_size": 3})).await;
    does(&env, Method::POST, "faults", json!({"outcome": "hang"})).await;
    does(&env, Method::POST, "reset", Json::Null).await;
    assert_eq!(got(&env, "state").await, json!({"keys": [], "requests": {}}));
    assert_eq!(got(&env, "settings").await["page_size"], 3);
    assert_eq!(env.list("").await["data"], json!([]));
}

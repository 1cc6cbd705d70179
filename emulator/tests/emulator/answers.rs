//! Every route, and every way in which it refuses.

use crate::client::{KEYS, ME, TestEnv, eventually, ok, refused, send, text};
use boltz_emulator::{AdminKey, Operation, Settings};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value as Json, json};

fn time(value: &Json) -> Timestamp {
    text(value).parse().unwrap()
}

#[tokio::test]
async fn a_key_is_created_with_what_was_asked_for() {
    let env = TestEnv::new().await;
    let before = Timestamp::now();
    let answer = ok(env.create(json!({
        "name": "training",
        "allowed_ips": ["192.0.2.7", "2001:db8::1"],
        "expires_in_days": 30,
        "mode": "test",
        "workspace_id": "ws_any",
    })))
    .await;
    let key = text(&answer["key"]);
    assert!(key.starts_with("sk_bc_ws_test_") && key.len() > 40, "{key}");
    let details = &answer["key_details"];
    let created = time(&details["created_at"]);
    assert!(before <= created && created <= Timestamp::now());
    assert_eq!(
        *details,
        json!({
            "id": details["id"],
            "allowed_ips": ["192.0.2.7", "2001:db8::1"],
            "created_at": details["created_at"],
            "expires_at": created + SignedDuration::from_hours(30 * 24),
            "is_active": true,
            "key_prefix": &key[..12],
            "key_type": "workspace",
            "last_used_at": null,
            "livemode": false,
            "name": "training",
            "workspace_id": "ws_any",
        })
    );
    assert_eq!(env.list("").await["data"], json!([details]));
}

#[tokio::test]
async fn what_is_not_asked_for_has_the_documented_default() {
    let env = TestEnv::new().await;
    for body in [
        json!({"name": "plain"}),
        json!({"name": "plain", "allowed_ips": null, "expires_in_days": null, "mode": null, "workspace_id": null}),
    ] {
        let answer = ok(env.create(body)).await;
        assert!(text(&answer["key"]).starts_with("sk_bc_ws_live_"));
        let details = &answer["key_details"];
        assert_eq!(details["allowed_ips"], json!([]));
        assert_eq!(details["expires_at"], Json::Null);
        assert_eq!(details["livemode"], true);
        assert!(details["workspace_id"].is_string());
    }
    let keys = env.emulator.keys();
    assert_ne!(keys[0].id, keys[1].id);
    assert_ne!(keys[0].plaintext, keys[1].plaintext);
}

#[tokio::test]
async fn values_that_are_not_allowed_are_422_and_named() {
    let env = TestEnv::new().await;
    for (field, body) in [
        ("name", json!({})),
        ("name", json!({"name": ""})),
        ("mode", json!({"name": "n", "mode": "prod"})),
        ("allowed_ips", json!({"name": "n", "allowed_ips": ["192.0.2.0/24"]})),
        ("allowed_ips", json!({"name": "n", "allowed_ips": ["localhost"]})),
        ("expires_in_days", json!({"name": "n", "expires_in_days": 0})),
        ("expires_in_days", json!({"name": "n", "expires_in_days": -1})),
        ("expires_in_days", json!({"name": "n", "expires_in_days": i64::MAX})),
    ] {
        let response = send(env.create(body.clone())).await;
        assert_eq!(response.status(), 422, "{body}");
        let answer: Json = response.json().await.unwrap();
        assert_eq!(answer["code"], "VALIDATION_ERROR");
        assert_eq!(answer["details"][0]["field"], field, "{body}");
    }
    assert_eq!(env.emulator.keys(), []);
}

#[tokio::test]
async fn a_body_that_is_not_the_right_json_is_400() {
    let env = TestEnv::new().await;
    for body in ["", "{", "[]", "\"name\"", r#"{"name": 5}"#, r#"{"name": "n", "expires_in_days": "1"}"#] {
        let request = env.request(Method::POST, KEYS).header(CONTENT_TYPE, "application/json").body(body);
        assert_eq!(refused(request).await, (400, "BAD_REQUEST".to_owned()), "{body}");
    }
    assert_eq!(env.emulator.keys(), []);
}

#[tokio::test]
async fn without_a_known_key_everything_is_401() {
    let env = TestEnv::new().await;
    let (_, id) = env.created(json!({"name": "n"})).await;
    let revoke = format!("{KEYS}/{id}/revoke");
    let calls =
        [(Method::POST, KEYS), (Method::GET, KEYS), (Method::POST, revoke.as_str()), (Method::GET, ME)];
    for (method, path) in calls {
        let url = format!("{}{path}", env.emulator.base_url());
        for request in [
            env.http.request(method.clone(), &url),
            env.http.request(method.clone(), &url).bearer_auth(env.emulator.admin_key()),
            env.request_as("sk_bc_admin_live_other", method.clone(), path),
            env.request_as("", method.clone(), path),
        ] {
            assert_eq!(refused(request).await, (401, "UNAUTHORIZED".to_owned()), "{method} {path}");
        }
    }
    assert_eq!(env.emulator.active_keys().len(), 1);
}

#[tokio::test]
async fn a_workspace_key_is_403_on_admin_routes() {
    let env = TestEnv::new().await;
    let (key, id) = env.created(json!({"name": "n"})).await;
    for request in [
        env.request_as(&key, Method::POST, KEYS).json(&json!({"name": "more"})),
        env.request_as(&key, Method::GET, KEYS),
        env.request_as(&key, Method::POST, &format!("{KEYS}/{id}/revoke")),
    ] {
        assert_eq!(refused(request).await, (403, "FORBIDDEN".to_owned()));
    }
    assert_eq!(env.emulator.active_keys().len(), 1);
}

#[tokio::test]
async fn a_key_says_who_it_is_and_that_is_a_use() {
    let env = TestEnv::new().await;
    let (key, id) = env.created(json!({"name": "n", "mode": "test", "workspace_id": "ws_1"})).await;
    assert_eq!(env.list("").await["data"][0]["last_used_at"], Json::Null);
    assert_eq!(env.emulator.authenticate(&key), Some(id.clone()));
    assert_eq!(env.emulator.key(&id).unwrap().last_used_at, None, "looking is no use");
    let me = ok(env.me(&key)).await;
    assert_eq!(me["api_key_id"], json!(id));
    assert_eq!(me["principal_type"], "api_key");
    assert_eq!((&me["key_type"], &me["mode"]), (&json!("workspace"), &json!("test")));
    assert_eq!(me["workspace_id"], "ws_1");
    assert_eq!(me["organization_id"], me["selected_organization_id"]);
    assert!(time(&env.list("").await["data"][0]["last_used_at"]) >= env.emulator.keys()[0].created_at);

    let admin = ok(env.me(env.emulator.admin_key())).await;
    assert_eq!((&admin["key_type"], &admin["mode"]), (&json!("admin"), &json!("live")));
    assert!(admin.get("workspace_id").is_none());
    assert_eq!(env.emulator.authenticate(env.emulator.admin_key()), None);
}

#[tokio::test]
async fn admin_keys_can_be_of_the_wrong_kind_or_gone() {
    let env = TestEnv::new().await;
    let mut key = AdminKey::new("sk_bc_ws_test_wrong");
    (key.key_type, key.mode) = ("workspace".to_owned(), "test".to_owned());
    env.emulator.set_admin_keys(vec![key]);
    let me = ok(env.me("sk_bc_ws_test_wrong")).await;
    assert_eq!((&me["key_type"], &me["mode"]), (&json!("workspace"), &json!("test")));
    assert!(me["workspace_id"].is_string());
    assert_eq!(refused(env.request_as("sk_bc_ws_test_wrong", Method::GET, KEYS)).await.0, 403);
    assert_eq!(refused(env.request(Method::GET, KEYS)).await.0, 401, "the first one is gone");
}

#[tokio::test]
async fn a_revoked_key_is_inactive_and_401() {
    let env = TestEnv::new().await;
    let (key, id) = env.created(json!({"name": "n"})).await;
    ok(env.me(&key)).await;
    let answer = ok(env.revoke(&id)).await;
    assert_eq!((&answer["id"], &answer["is_active"]), (&json!(id), &json!(false)));
    assert!(answer.get("key").is_none());
    assert_eq!(refused(env.me(&key)).await.0, 401);
    assert_eq!(env.emulator.authenticate(&key), None);
    assert_eq!(env.list("").await["data"][0]["is_active"], false);
    assert_eq!(refused(env.revoke("key_unknown")).await, (404, "NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_shrunken_day_ends_a_key_when_it_says() {
    let env = TestEnv::with(Settings { day_milliseconds: 150, ..Settings::default() }).await;
    let answer = ok(env.create(json!({"name": "n", "expires_in_days": 2}))).await;
    let key = text(&answer["key"]);
    let details = &answer["key_details"];
    let (created, expires) = (time(&details["created_at"]), time(&details["expires_at"]));
    assert_eq!(created.duration_until(expires), SignedDuration::from_millis(300));
    let asked = Timestamp::now();
    let status = send(env.me(&key)).await.status();
    assert!(status == 200 || Timestamp::now() >= expires, "asked at {asked}, expires at {expires}");
    eventually("the key expires", async || send(env.me(&key)).await.status() == 401).await;
    assert!(Timestamp::now() >= expires);
    assert_eq!(env.list("").await["data"][0]["is_active"], false);
    assert_eq!(env.emulator.active_keys(), []);
}

#[tokio::test]
async fn other_routes_and_methods_are_refused_in_the_same_words() {
    let env = TestEnv::new().await;
    assert_eq!(refused(env.request(Method::GET, "/compute/v2")).await, (404, "NOT_FOUND".to_owned()));
    assert_eq!(refused(env.request(Method::DELETE, KEYS)).await, (405, "METHOD_NOT_ALLOWED".to_owned()));
}

#[tokio::test]
async fn requests_are_logged_in_order() {
    let env = TestEnv::new().await;
    let (_, id) = env.created(json!({"name": "first"})).await;
    send(env.create(json!({"name": "second", "mode": "wrong"}))).await;
    env.list("").await;
    send(env.revoke(&id)).await;
    send(env.me("wrong")).await;
    let seen: Vec<_> =
        env.emulator.requests().into_iter().map(|r| (r.operation, r.subject, r.status)).collect();
    let row = |operation, subject: &str, status| (operation, subject.to_owned(), Some(status));
    assert_eq!(
        seen,
        [
            row(Operation::Create, "first", 200),
            row(Operation::Create, "second", 422),
            row(Operation::List, "", 200),
            row(Operation::Revoke, &id, 200),
            row(Operation::AuthMe, "", 401),
        ]
    );
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn an_emulator_that_is_dropped_closes_its_connections_and_frees_its_port() {
    let env = TestEnv::new().await;
    env.list("").await;
    let address = env.emulator.base_url();
    let http = env.http.clone();
    drop(env);
    eventually("it is gone", async || match http.get(&address).send().await {
        Ok(_) => false,
        Err(error) => error.is_connect(),
    })
    .await;
}

//! Faults on demand.

use crate::client::{KEYS, TestEnv, eventually, ok, refused, send, text};
use boltz_emulator::{Effect, Fault, Operation, Outcome, Settings, StandingFault};
use reqwest::{Method, header::RETRY_AFTER};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Sends a create by hand, and everything that comes back until the connection is closed.
async fn raw_create(env: &TestEnv) -> Vec<u8> {
    let address = env.emulator.base_url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let body = r#"{"name":"raw"}"#;
    let request = format!(
        "POST {KEYS} HTTP/1.1\r\nhost: {address}\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
        env.emulator.admin_key(),
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("not closed").unwrap();
    answer
}

#[tokio::test]
async fn a_cut_drops_the_connection_before_or_after_the_effect() {
    let env = TestEnv::new().await;
    for (effect, keys) in [(Effect::None, 0), (Effect::Before, 1)] {
        env.emulator.inject(Fault::once(Operation::Create, effect, Outcome::Cut));
        assert_eq!(raw_create(&env).await, b"", "not a byte");
        assert_eq!(env.emulator.keys().len(), keys, "{effect:?}");
    }
    assert_eq!(env.emulator.requests()[0].status, None);
    env.emulator.inject(Fault::once(Operation::Create, Effect::None, Outcome::Cut));
    let error = env.create(json!({"name": "n"})).send().await.unwrap_err();
    assert!(error.is_request() && !error.is_connect() && !error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_cut_in_the_middle_leaves_half_of_the_answer() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::CutMidAnswer));
    let answer = String::from_utf8(raw_create(&env).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    assert!(body.starts_with(r#"{"key""#), "{body}");
    assert_eq!(env.emulator.keys().len(), 1);

    env.emulator.inject(Fault::once(Operation::List, Effect::Before, Outcome::CutMidAnswer));
    let response = send(env.request(Method::GET, KEYS)).await;
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn other_connections_outlive_a_cut() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::List, Effect::Before, Outcome::Hold));
    let other = tokio::spawn(env.request(Method::GET, KEYS).send());
    eventually("it is held", async || env.emulator.held() == 1).await;
    env.emulator.inject(Fault::once(Operation::Create, Effect::None, Outcome::Cut));
    assert_eq!(raw_create(&env).await, b"");
    env.emulator.release();
    assert_eq!(other.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn an_effect_can_come_long_after_the_client_gave_up() {
    let env = TestEnv::new().await;
    let started = Instant::now();
    env.emulator.inject(Fault::once(Operation::Create, Effect::After(300), Outcome::Cut));
    assert_eq!(raw_create(&env).await, b"");
    assert!(env.emulator.keys().is_empty() || started.elapsed() >= Duration::from_millis(300));
    eventually("the key is created", async || env.emulator.keys().len() == 1).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    let [key] = env.emulator.keys().try_into().unwrap();
    let asked = env.emulator.requests()[0].at;
    assert!(asked.duration_until(key.created_at).as_millis() >= 300, "created when it took effect");
}

#[tokio::test]
async fn a_client_times_out_while_its_request_hangs() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::Create, Effect::OnRelease, Outcome::Hang));
    let request = env.create(json!({"name": "late"})).timeout(Duration::from_millis(100));
    assert!(request.send().await.unwrap_err().is_timeout());
    assert_eq!(env.emulator.keys(), []);
    assert_eq!(env.emulator.held(), 1, "the effect is held, not the client");
    env.emulator.release();
    eventually("it takes effect", async || env.emulator.keys().len() == 1).await;
}

#[tokio::test]
async fn a_delayed_effect_answers_when_it_is_there() {
    let env = TestEnv::new().await;
    let started = Instant::now();
    env.emulator.inject(Fault::once(Operation::Create, Effect::After(100), Outcome::Answer));
    env.created(json!({"name": "n"})).await;
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn an_answer_is_held_until_it_is_released() {
    let env = TestEnv::new().await;
    for (effect, keys) in [(Effect::Before, 1), (Effect::OnRelease, 0)] {
        env.emulator.reset();
        env.emulator.inject(Fault::once(Operation::Create, effect, Outcome::Hold));
        let held = tokio::spawn(env.create(json!({"name": "held"})).send());
        eventually("it is held", async || env.emulator.held() == 1).await;
        assert_eq!(env.emulator.keys().len(), keys, "{effect:?}");
        assert!(!held.is_finished());
        env.list("").await;
        env.emulator.release();
        assert_eq!(held.await.unwrap().unwrap().status(), 200);
        assert_eq!((env.emulator.keys().len(), env.emulator.held()), (1, 0));
    }
}

#[tokio::test]
async fn a_held_client_that_leaves_is_held_no_more() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::List, Effect::Before, Outcome::Hold));
    let held = tokio::spawn(env.request(Method::GET, KEYS).send());
    eventually("it is held", async || env.emulator.held() == 1).await;
    held.abort();
    eventually("nobody is held", async || env.emulator.held() == 0).await;
}

#[tokio::test]
async fn any_status_before_or_after_the_effect() {
    let env = TestEnv::new().await;
    for (effect, keys) in [(Effect::None, 0), (Effect::Before, 1)] {
        env.emulator.reset();
        for status in [400, 401, 403, 404, 409, 422, 500, 502, 503] {
            env.emulator.inject(Fault::once(Operation::Create, effect, Outcome::status(status)));
            let answer = refused(env.create(json!({"name": "n"}))).await;
            assert_eq!(answer, (status, "EMULATED_FAULT".to_owned()));
        }
        assert_eq!(env.emulator.keys().len(), keys * 9);
        assert_eq!(env.emulator.requests()[8].status, Some(503));
    }
}

#[tokio::test]
async fn a_status_has_the_headers_and_body_that_were_asked_for() {
    let env = TestEnv::new().await;
    let outcome = Outcome::Status {
        status: 429,
        headers: [("retry-after", "7"), ("retry-after-ms", "6500")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: Some("slow down".to_owned()),
    };
    env.emulator.inject(Fault::once(Operation::Revoke, Effect::None, outcome));
    let id = env.emulator.create_foreign("n").unwrap();
    let response = send(env.revoke(&id)).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[RETRY_AFTER], "7");
    assert_eq!(response.headers()["retry-after-ms"], "6500");
    assert_eq!(response.text().await.unwrap(), "slow down");
    assert!(env.emulator.key(&id).unwrap().revoked_at.is_none());
}

#[tokio::test]
async fn an_answer_can_be_truncated_or_foreign_though_the_key_exists() {
    let env = TestEnv::new().await;
    for (outcome, body) in
        [(Outcome::Truncated(6), r#"{"key""#), (Outcome::Foreign("<html>".to_owned()), "<html>")]
    {
        env.emulator.reset();
        env.emulator.inject(Fault::once(Operation::Create, Effect::Before, outcome));
        let response = send(env.create(json!({"name": "n"}))).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), body);
        assert_eq!(env.emulator.keys().len(), 1);
    }
}

#[tokio::test]
async fn latency_holds_back_the_answer_and_not_the_effect() {
    let env = TestEnv::new().await;
    let id = env.emulator.create_foreign("n").unwrap();
    let mut slow = Fault::once(Operation::Revoke, Effect::Before, Outcome::Answer);
    slow.latency_milliseconds = 200;
    env.emulator.inject(slow);
    let started = Instant::now();
    ok(env.revoke(&id)).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    let asked = env.emulator.requests()[0].at;
    let revoked = env.emulator.key(&id).unwrap().revoked_at.unwrap();
    assert!(asked.duration_until(revoked).as_millis() < 200);

    let env = TestEnv::with(Settings { latency_milliseconds: 50, ..Settings::default() }).await;
    let started = Instant::now();
    env.list("").await;
    env.list("").await;
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn faults_wait_for_their_operation_in_turn_and_as_often_as_asked() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::List, Effect::None, Outcome::status(501)).times(2));
    env.emulator.inject(Fault {
        operation: None,
        ..Fault::once(Operation::List, Effect::None, Outcome::status(502))
    });
    env.emulator.inject(Fault::once(Operation::List, Effect::None, Outcome::status(503)));
    let list = || async { send(env.request(Method::GET, KEYS)).await.status().as_u16() };
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(list().await);
    }
    assert_eq!(seen, [501, 501, 502, 503, 200]);
    env.emulator.inject(Fault::once(Operation::AuthMe, Effect::None, Outcome::status(504)).times(u32::MAX));
    assert_eq!(list().await, 200, "not its operation");
    assert_eq!(send(env.me(env.emulator.admin_key())).await.status(), 504);
    env.emulator.clear_faults();
    assert_eq!(send(env.me(env.emulator.admin_key())).await.status(), 200);
}

#[tokio::test]
async fn a_request_over_the_limit_leaves_the_fault_for_the_next() {
    let env = TestEnv::with(Settings { requests_per_second: Some(0), ..Settings::default() }).await;
    env.emulator.inject(Fault::once(Operation::List, Effect::None, Outcome::status(503)));
    assert_eq!(refused(env.request(Method::GET, KEYS)).await.0, 429);
    env.emulator.change(|settings| settings.requests_per_second = None);
    assert_eq!(refused(env.request(Method::GET, KEYS)).await.0, 503);
}

#[tokio::test]
async fn an_effect_from_before_a_reset_does_not_show_after_it() {
    let env = TestEnv::new().await;
    env.emulator.inject(Fault::once(Operation::Create, Effect::OnRelease, Outcome::Hold));
    let held = tokio::spawn(env.create(json!({"name": "old"})).send());
    eventually("it is held", async || env.emulator.held() == 1).await;
    env.emulator.reset();
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), 500);
    let (_, id) = env.created(json!({"name": "new"})).await;
    let [key] = env.emulator.keys().try_into().unwrap();
    assert_eq!((key.name.as_str(), &key.id), ("new", &id));
    assert_eq!(env.emulator.requests().len(), 1);
    assert_eq!(text(&env.list("").await["data"][0]["name"]), "new");
}

#[tokio::test]
async fn a_fault_that_stands_stays_until_it_is_lifted_and_meets_nobody_else() {
    let env = TestEnv::new().await;
    let (_, id) = env.created(json!({"name": "team/one bo.x", "workspace_id": "ws_a"})).await;
    let (_, other) = env.created(json!({"name": "team/two bo.x", "workspace_id": "ws_b"})).await;
    let create = |name: &str, workspace: &str| json!({"name": name, "workspace_id": workspace});
    let status =
        async |name: &str, workspace: &str| send(env.create(create(name, workspace))).await.status().as_u16();

    env.emulator.stand("one", StandingFault::status(Operation::Create, 402).about("team/one"));
    env.emulator.stand("ws_b", StandingFault::status(Operation::Create, 409).in_workspace("ws_b"));
    for _ in 0..3 {
        assert_eq!(status("team/one bo.x", "ws_a").await, 402);
        assert_eq!(status("team/two bo.x", "ws_b").await, 409);
        assert_eq!(status("team/two bo.x", "ws_a").await, 200);
    }
    // One that counts its requests comes first.
    env.emulator.inject(Fault::once(Operation::Create, Effect::None, Outcome::status(503)));
    assert_eq!(status("team/one bo.x", "ws_a").await, 503);
    assert_eq!(status("team/one bo.x", "ws_a").await, 402);
    env.emulator.lift("one");
    assert_eq!(status("team/one bo.x", "ws_a").await, 200);
    assert_eq!(status("team/two bo.x", "ws_b").await, 409);

    // A key to be revoked is known by its id and its workspace.
    env.emulator.stand("id", StandingFault::status(Operation::Revoke, 404).about(&id));
    assert_eq!(send(env.revoke(&id)).await.status(), 404);
    assert!(env.emulator.key(&id).unwrap().revoked_at.is_none(), "without effect");
    env.emulator.stand("ws_b", StandingFault::status(Operation::Revoke, 403).in_workspace("ws_b"));
    assert_eq!(send(env.revoke(&other)).await.status(), 403);
    env.emulator.lift("id");
    env.emulator.lift("ws_b");
    ok(env.revoke(&id)).await;
    ok(env.revoke(&other)).await;

    // As JSON.
    let fault = json!({
        "fault": {"operation": "list", "outcome": {"status": {"status": 404}}},
        "workspace": "ws_a",
    });
    let stood = env.control(Method::PUT, "standing-faults/list", fault).await;
    assert_eq!(stood.status(), 204);
    let standing = env.control(Method::GET, "standing-faults", json!(null)).await;
    assert_eq!(standing.json::<serde_json::Value>().await.unwrap()["list"]["workspace"], "ws_a");
    let list =
        async |query: &str| send(env.request(Method::GET, &format!("{KEYS}{query}"))).await.status().as_u16();
    assert_eq!((list("?workspace_id=ws_a").await, list("").await), (404, 200));
    for expected in [204, 404] {
        let lifted = env.control(Method::DELETE, "standing-faults/list", json!(null)).await;
        assert_eq!(lifted.status(), expected);
    }
    assert_eq!(list("?workspace_id=ws_a").await, 200);
}

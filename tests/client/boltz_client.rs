//! The client of Boltz's API against the emulator: every call, every kind of failure, one try per call.

use boltz_emulator::{AdminKey, Effect as When, Emulator, Fault, Lie, Operation, Options, Outcome, Settings};
use boltz_harness::eventually;
use boltz_operator::{
    boltz::{
        BoltzClient, BoltzClientOptions, BoltzError, CreateKeyRequest, CreatedKey, KeyMode, Revocation,
        SendError,
    },
    observability::metrics::Metrics,
    plan::{BoltzErrorKind, Effect},
};
use secrecy::{ExposeSecret, SecretString};
use std::{
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

struct ClientEnv {
    emulator: Emulator,
    client: BoltzClient,
    metrics: Arc<Metrics>,
    admin_key: watch::Sender<Option<SecretString>>,
}

impl ClientEnv {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let emulator = Emulator::start(Options { settings, ..Options::default() }).await.unwrap();
        let metrics = Arc::new(Metrics::new());
        let (admin_key, changes) = watch::channel(Some(SecretString::from(emulator.admin_key())));
        let client = client(&emulator.base_url(), changes, &metrics);
        Self { emulator, client, metrics, admin_key }
    }

    async fn create(&self) -> Result<CreatedKey, BoltzError> {
        self.client.create_key(&named("n"), 10 * SECOND).await
    }

    /// The error of the next create, which meets this fault.
    async fn create_with(&self, effect: When, outcome: Outcome) -> BoltzError {
        self.emulator.inject(Fault::once(Operation::Create, effect, outcome));
        match self.create().await {
            Err(error) => error,
            Ok(_) => panic!("a create that meets a fault succeeds"),
        }
    }
}

fn client(url: &str, key: watch::Receiver<Option<SecretString>>, metrics: &Arc<Metrics>) -> BoltzClient {
    // The first provider that is installed stays, whichever test comes first.
    boltz_harness::install_tls_provider();
    let options =
        BoltzClientOptions { base_url: url.to_owned(), extra_roots_pem: None, request_timeout: 10 * SECOND };
    BoltzClient::new(options, key, Arc::clone(metrics)).unwrap()
}

fn named(name: &str) -> CreateKeyRequest {
    CreateKeyRequest {
        name: name.to_owned(),
        allowed_ips: Vec::new(),
        expires_in_days: None,
        mode: KeyMode::Live,
        workspace_id: None,
    }
}

/// All that an error says, with its sources, for people and for developers.
fn all_words(error: &BoltzError) -> String {
    let mut words = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        words += &format!(" {error} {error:?}");
        source = error.source();
    }
    words
}

#[tokio::test]
async fn a_key_is_created_with_what_was_asked_and_its_value_works() {
    let env = ClientEnv::new().await;
    let request = CreateKeyRequest {
        name: "all of it".to_owned(),
        allowed_ips: vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
        expires_in_days: Some(30),
        mode: KeyMode::Test,
        workspace_id: Some("ws_design".to_owned()),
    };
    let created = env.client.create_key(&request, SECOND).await.unwrap();
    let details = &created.details;
    assert_eq!(
        (details.name.as_str(), details.livemode, details.is_active),
        ("all of it", Some(false), true)
    );
    assert_eq!(details.workspace_id.as_deref(), Some("ws_design"));
    let lifetime = details.expires_at.unwrap().duration_since(details.created_at.unwrap());
    assert_eq!(lifetime.as_hours(), 30 * 24);
    let known = env.emulator.key(&details.id).unwrap();
    assert_eq!(known.allowed_ips, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(env.emulator.authenticate(created.key.expose_secret()).as_ref(), Some(&details.id));

    let plain = env.create().await.unwrap().details;
    assert!(plain.livemode == Some(true) && plain.expires_at.is_none());
    assert_eq!(env.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn the_list_is_read_to_its_end_by_its_cursor() {
    for page_size in [1, 3, 7, 100] {
        let env = ClientEnv::with(Settings { page_size, ..Settings::default() }).await;
        let made: Vec<String> =
            (0..7).map(|number| env.emulator.create_foreign(&format!("key {number}")).unwrap()).collect();
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = env.client.list_keys(after.as_deref(), None).await.unwrap();
            listed.extend(page.data.into_iter().map(|key| key.id));
            after = page.last_id;
            if !page.has_more {
                break;
            }
        }
        listed.reverse();
        assert_eq!(listed, made, "pages of {page_size}");
    }
}

#[tokio::test]
async fn revoked_is_revoked_however_boltz_says_it() {
    for revoking_twice_fails in [false, true] {
        let env = ClientEnv::with(Settings { revoking_twice_fails, ..Settings::default() }).await;
        let id = env.create().await.unwrap().details.id;
        let Revocation::Revoked(details) = env.client.revoke_key(&id).await.unwrap() else {
            panic!("it was there");
        };
        assert!(!details.is_active && env.emulator.active_keys().is_empty());
        let again = env.client.revoke_key(&id).await.unwrap();
        assert_eq!(matches!(again, Revocation::AlreadyRevoked), revoking_twice_fails);
        assert_eq!(env.client.revoke_key("key_unknown").await.unwrap(), Revocation::NotFound);
    }
}

#[tokio::test]
async fn a_revocation_that_leaves_the_key_active_is_none() {
    let env = ClientEnv::new().await;
    let id = env.create().await.unwrap().details.id;
    let body = format!(r#"{{"id":"{id}","is_active":true,"name":"n"}}"#);
    env.emulator.inject(Fault::once(Operation::Revoke, When::None, Outcome::Foreign(body)));
    assert!(matches!(env.client.revoke_key(&id).await, Err(BoltzError::Unreadable)));
    let body = r#"{"id":"key_of_another","is_active":false,"name":"n"}"#.to_owned();
    env.emulator.inject(Fault::once(Operation::Revoke, When::None, Outcome::Foreign(body)));
    assert!(matches!(env.client.revoke_key(&id).await, Err(BoltzError::Unreadable)), "about another key");
    // A refusal for another reason is none either.
    for status in [400, 403, 409, 422, 500] {
        env.emulator.inject(Fault::once(Operation::Revoke, When::None, Outcome::status(status)));
        assert_eq!(env.client.revoke_key(&id).await.unwrap_err().status(), Some(status));
    }
    assert_eq!(env.emulator.active_keys().len(), 1);
}

/// RFC 3986, section 2.3: what needs no encoding is sent as it is, for gateways that compare text.
#[tokio::test]
async fn unreserved_characters_of_an_id_are_sent_as_they_are() {
    let env = ClientEnv::new().await;
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&paths);
    let client = env.client.clone().through(tower::service_fn(move |request: reqwest::Request| {
        seen.lock().unwrap().push(request.url().path().to_owned());
        async { Err(SendError::Timeout) }
    }));
    client.revoke_key("key_a-B.9~").await.unwrap_err();
    assert_eq!(*paths.lock().unwrap(), ["/compute/v1/admin/api-keys/key_a-B.9~/revoke"]);
}

#[tokio::test]
async fn an_id_is_one_segment_of_the_path_whatever_it_holds() {
    let env = ClientEnv::new().await;
    let victim = env.create().await.unwrap().details.id;
    for id in [
        format!("x/../{victim}"),
        format!("{victim}/revoke?"),
        format!("../api-keys/{victim}"),
        format!("{victim}%2F.."),
        format!("{victim}#"),
        "a b\u{e9}\u{0}".to_owned(),
    ] {
        assert_eq!(env.client.revoke_key(&id).await.unwrap(), Revocation::NotFound, "{id}");
    }
    for id in ["", ".", ".."] {
        let error = env.client.revoke_key(id).await.unwrap_err();
        assert_eq!((error.effect(), error.kind()), (Effect::None, BoltzErrorKind::Invalid));
    }
    assert_eq!(env.emulator.active_keys().len(), 1, "nothing else was revoked");
}

#[tokio::test]
async fn the_admin_key_is_the_one_of_the_moment() {
    let env = ClientEnv::new().await;
    let me = env.client.auth_me().await.unwrap().unwrap();
    assert_eq!((me.key_type.as_str(), me.mode.as_deref()), ("admin", Some("live")));
    env.emulator.set_admin_keys(vec![AdminKey::new("sk_bc_admin_live_second".to_owned())]);
    let error = env.client.auth_me().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (BoltzErrorKind::Unauthorized, Some(401)));
    env.admin_key.send_replace(Some(SecretString::from("sk_bc_admin_live_second")));
    assert!(env.client.auth_me().await.is_ok());
    env.admin_key.send_replace(None);
    assert_eq!(env.client.list_keys(None, None).await.unwrap_err().status(), Some(401));
}

#[tokio::test]
async fn a_server_without_auth_me_is_no_error() {
    let env = ClientEnv::with(Settings { has_auth_me: false, ..Settings::default() }).await;
    assert_eq!(env.client.auth_me().await.unwrap(), None);
}

#[tokio::test]
async fn every_status_is_sorted_by_its_meaning_and_by_what_it_may_have_done() {
    use BoltzErrorKind::{Invalid, RateLimited, Refused, Unauthorized, Unavailable};
    let env = ClientEnv::new().await;
    for (status, kind, effect) in [
        (400, Invalid, Effect::None),
        (401, Unauthorized, Effect::None),
        (403, Unauthorized, Effect::None),
        (404, Refused, Effect::None),
        (408, Unavailable, Effect::Unknown),
        (409, Unavailable, Effect::Unknown),
        (422, Invalid, Effect::None),
        (429, RateLimited, Effect::Unknown),
        (500, Unavailable, Effect::Unknown),
        (503, Unavailable, Effect::Unknown),
    ] {
        // What may have had an effect is met both ways: the client cannot know.
        for when in [When::None, When::Before] {
            let before = env.emulator.keys().len();
            let error = env.create_with(when, Outcome::status(status)).await;
            assert_eq!((error.status(), error.kind()), (Some(status), kind));
            assert_eq!(error.effect(), effect, "{status}");
            let made = env.emulator.keys().len() - before;
            assert_eq!(made, usize::from(when == When::Before), "one try: {status}");
        }
    }
    assert_eq!(env.emulator.count(Operation::Create), 20, "one request for each call");
}

#[tokio::test]
async fn boltzs_own_words_are_passed_on_shortened_and_without_control_characters() {
    let env = ClientEnv::new().await;
    let body = format!(r#"{{"code":"VALIDATION_ERROR","message":"bad\nname {}"}}"#, "x".repeat(1000));
    let outcome = Outcome::Status { status: 422, headers: [].into(), body: Some(body) };
    let words = env.create_with(When::None, outcome).await.to_string();
    assert!(words.starts_with("Boltz responded with 422 (VALIDATION_ERROR: badname xxx"), "{words}");
    assert!(words.len() < 400);
    let outcome = Outcome::Status { status: 502, headers: [].into(), body: Some("<html>".to_owned()) };
    assert_eq!(env.create_with(When::None, outcome).await.to_string(), "Boltz responded with 502");
}

#[tokio::test]
async fn retry_after_is_heard() {
    let env = ClientEnv::new().await;
    for (name, value, wait) in [
        ("retry-after", "7", Some(7 * SECOND)),
        ("retry-after-ms", "1500", Some(SECOND * 3 / 2)),
        ("retry-after", "tomorrow", None),
    ] {
        let headers = [(name.to_owned(), value.to_owned())].into();
        let outcome = Outcome::Status { status: 429, headers, body: None };
        assert_eq!(env.create_with(When::None, outcome).await.retry_after(), wait, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_cut_is_doubt_and_is_not_tried_again() {
    let env = ClientEnv::new().await;
    for (when, outcome, keys) in [
        (When::None, Outcome::Cut, 0),
        (When::Before, Outcome::Cut, 1),
        (When::Before, Outcome::CutMidAnswer, 1),
    ] {
        env.emulator.reset();
        let error = env.create_with(when, outcome.clone()).await;
        assert!(matches!(error, BoltzError::Transport(_)), "{outcome:?}: {error:?}");
        assert_eq!((error.effect(), error.kind()), (Effect::Unknown, BoltzErrorKind::Unavailable));
        assert_eq!(env.emulator.keys().len(), keys);
        assert_eq!(env.emulator.count(Operation::Create), 1, "not even on a fresh connection");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_doubt_and_its_content_stays_untold() {
    let env = ClientEnv::new().await;
    let details = r#"{"id":"key_1","is_active":true,"name":"n"}"#;
    for outcome in [
        Outcome::Truncated(40),
        Outcome::Foreign("<html>sk_bc_ws_live_secret</html>".to_owned()),
        Outcome::Foreign(r#"{"key":"sk_bc_ws_live_secret"}"#.to_owned()),
        Outcome::Foreign(r#"{"key":42,"key_details":"sk_bc_ws_live_secret"}"#.to_owned()),
        Outcome::Foreign(format!(r#"{{"key":"","key_details":{details}}}"#)),
        Outcome::Foreign(format!(r#"{{"key":"sk_bc_ws_live_secret","key_details":{details}"#)),
        Outcome::Foreign("[]".to_owned()),
        Outcome::Foreign(String::new()),
    ] {
        let error = env.create_with(When::Before, outcome.clone()).await;
        assert!(matches!(error, BoltzError::Unreadable), "{outcome:?}: {error:?}");
        assert_eq!(error.effect(), Effect::Unknown);
        assert!(!all_words(&error).contains("sk_bc"), "{}", all_words(&error));
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let env = ClientEnv::new().await;
    let outcome = Outcome::Foreign("x".repeat(8 << 20));
    let error = env.create_with(When::Before, outcome).await;
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(matches!(error, BoltzError::Unreadable), "{error:?}");
}

#[tokio::test]
async fn a_call_ends_with_its_timeout_and_its_effect_may_come_later() {
    let env = ClientEnv::new().await;
    env.emulator.inject(Fault::once(Operation::Create, When::OnRelease, Outcome::Hang));
    let Err(error) = env.client.create_key(&named("late"), SECOND / 5).await else { panic!("it hangs") };
    assert!(matches!(error, BoltzError::Timeout), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
    env.emulator.release();
    eventually(PATIENCE, "the key is made after all", async || match env.emulator.keys().len() {
        1 => Ok(()),
        count => Err(format!("{count} keys")),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    // Bound and not listened to by anybody once it is dropped.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (_sender, key) = watch::channel(Some(SecretString::from("sk_bc_admin_live_x")));
    let client = client(&format!("http://127.0.0.1:{port}"), key, &Arc::new(Metrics::new()));
    let Err(error) = client.create_key(&named("n"), SECOND).await else { panic!("there is nobody") };
    assert!(matches!(error, BoltzError::Connect(_)), "{error:?}");
    assert_eq!((error.effect(), error.kind()), (Effect::None, BoltzErrorKind::Unavailable));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (env, elsewhere) = (ClientEnv::new().await, ClientEnv::new().await);
    for status in [301, 302, 307, 308] {
        let location = format!("{}/compute/v1/admin/api-keys", elsewhere.emulator.base_url());
        let headers = [("location".to_owned(), location)].into();
        let error = env.create_with(When::None, Outcome::Status { status, headers, body: None }).await;
        assert_eq!((error.status(), error.effect()), (Some(status), Effect::Unknown));
    }
    assert_eq!(elsewhere.emulator.requests().len(), 0, "the admin key goes nowhere else");
}

#[tokio::test]
async fn calls_are_counted_by_operation_and_code() {
    let env = ClientEnv::new().await;
    let id = env.create().await.unwrap().details.id;
    env.client.list_keys(None, None).await.unwrap();
    env.client.revoke_key(&id).await.unwrap();
    env.client.auth_me().await.unwrap();
    env.create_with(When::None, Outcome::status(503)).await;
    env.create_with(When::None, Outcome::Cut).await;
    let text = env.metrics.to_text();
    for line in [
        r#"boltz_api_requests_total{operation="create",code="200"} 1"#,
        r#"boltz_api_requests_total{operation="create",code="503"} 1"#,
        r#"boltz_api_requests_total{operation="create",code="error"} 1"#,
        r#"boltz_api_requests_total{operation="list",code="200"} 1"#,
        r#"boltz_api_requests_total{operation="revoke",code="200"} 1"#,
        r#"boltz_api_requests_total{operation="auth_me",code="200"} 1"#,
        r#"boltz_api_request_duration_seconds_count{operation="create"} 3"#,
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn no_error_tells_a_key() {
    let env = ClientEnv::new().await;
    let mut errors = vec![
        env.create_with(When::Before, Outcome::Cut).await,
        env.create_with(When::Before, Outcome::CutMidAnswer).await,
        env.create_with(When::Before, Outcome::Truncated(60)).await,
        env.create_with(When::None, Outcome::status(500)).await,
    ];
    env.emulator.set_admin_keys(Vec::new());
    errors.push(env.client.auth_me().await.unwrap_err());
    for error in &errors {
        assert!(!all_words(error).contains("sk_bc"), "{}", all_words(error));
    }
    assert!(!format!("{:?}", env.client).contains("sk_bc"));
}

/// A gateway that repeats the headers of the request, wherever they stand.
#[tokio::test]
async fn the_admin_key_is_not_repeated() {
    let env = ClientEnv::new().await;
    let admin_key = "of-an-unusual-shape";
    env.emulator.set_admin_keys(vec![AdminKey::new(admin_key)]);
    env.admin_key.send_replace(Some(SecretString::from(admin_key)));
    let escaped = admin_key.replacen('o', "\\u006f", 1);
    let body = format!(r#"{{"key":"{escaped}","key_details":{{"id":"key_1","name":"n"}}}}"#);
    env.emulator.inject(Fault::once(Operation::Create, When::None, Outcome::Foreign(body)));
    assert!(matches!(env.create().await, Err(BoltzError::Unreadable)), "escaped");
    for before in [0, 200, 240, 250] {
        let body = format!(r#"{{"message":"{}{admin_key}"}}"#, "x".repeat(before));
        let outcome = Outcome::Status { status: 500, headers: Default::default(), body: Some(body) };
        let error = env.create_with(When::None, outcome).await;
        assert!(!all_words(&error).contains("xof") && !all_words(&error).contains("unusual"), "{error}");
    }
    let rows = format!(r#"{{"data":[{{"id":"key_1","name":"{admin_key}"}}],"has_more":false}}"#);
    env.emulator.inject(Fault::once(Operation::List, When::None, Outcome::Foreign(rows)));
    let page = env.client.list_keys(None, None).await.unwrap();
    assert!(!page.data[0].name.contains("unusual"), "{:?}", page.data);
    let body = format!(r#"{{"key":"{admin_key}","key_details":{{"id":"key_1","name":"n"}}}}"#);
    env.emulator.inject(Fault::once(Operation::Create, When::None, Outcome::Foreign(body)));
    assert!(matches!(env.create().await, Err(BoltzError::Unreadable)), "it would get into a Secret");
    let body = format!(r#"{{"key_type":"workspace","api_key_id":"{admin_key}"}}"#);
    env.emulator.inject(Fault::once(Operation::AuthMe, When::None, Outcome::Foreign(body)));
    let me = env.client.auth_me_with(&SecretString::from("another")).await.unwrap().unwrap();
    assert_eq!(me.api_key_id, None, "it is no id");
}

/// A gateway's page of many megabytes.
#[tokio::test]
async fn the_status_of_a_refusal_counts_whatever_its_body() {
    let env = ClientEnv::new().await;
    for status in [400, 401, 429, 503] {
        let headers = [("retry-after".to_owned(), "7".to_owned())].into();
        let body = Some("x".repeat(5 << 20));
        let error = env.create_with(When::None, Outcome::Status { status, headers, body }).await;
        assert_eq!((error.status(), error.retry_after()), (Some(status), Some(7 * SECOND)));
    }
}

/// A key whose id cannot be stored could not be found again by its id.
#[tokio::test]
async fn an_answer_to_a_create_needs_an_id_that_can_be_repeated() {
    let env = ClientEnv::new().await;
    for id in
        ["x".repeat(257), String::new(), "line\nbreak".to_owned(), "sk_bc_ws_live_0123456789".to_owned()]
    {
        let error = env.create_with(When::Before, Outcome::Lie(Lie::Id(id.clone()))).await;
        assert!(matches!(error, BoltzError::Unreadable), "{id}: {error:?}");
        assert_eq!(error.effect(), Effect::Unknown);
    }
    let repeats_value = r#"{"key":"an-odd-value","key_details":{"id":"key-an-odd-value","name":"n"}}"#;
    env.emulator.inject(Fault::once(
        Operation::Create,
        When::None,
        Outcome::Foreign(repeats_value.to_owned()),
    ));
    assert!(matches!(env.create().await, Err(BoltzError::Unreadable)));
}

/// The operator's clock is years ahead.
#[tokio::test]
async fn a_date_to_wait_for_is_compared_with_the_date_of_the_answer() {
    let env = ClientEnv::new().await;
    let headers = [("date", "Sun, 01 Jan 2023 10:00:00 GMT"), ("retry-after", "Sun Jan  1 10:00:40 2023")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let error = env.create_with(When::None, Outcome::Status { status: 429, headers, body: None }).await;
    assert_eq!(error.retry_after(), Some(40 * SECOND));
}

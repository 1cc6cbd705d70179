//! The client of Boltz's API against the emulator: every call, every kind of failure, one try per call.

use boltz_emulator::{AdminKey, Effect as When, Emulator, Fault, Operation, Options, Outcome, Settings};
use boltz_harness::eventually;
use boltz_operator::{
    boltz::{
        BoltzClient, BoltzClientOptions, BoltzError, BoltzErrorKind, CreateKeyRequest, CreatedKey, Effect,
        KeyMode, Revocation,
    },
    metrics::Metrics,
};
use secrecy::{ExposeSecret, SecretString};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    emulator: Emulator,
    client: BoltzClient,
    metrics: Arc<Metrics>,
    admin_key: watch::Sender<Option<SecretString>>,
}

impl Bed {
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
    let bed = Bed::new().await;
    let request = CreateKeyRequest {
        name: "all of it".to_owned(),
        allowed_ips: vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
        expires_in_days: Some(30),
        mode: KeyMode::Test,
        workspace_id: Some("ws_design".to_owned()),
    };
    let created = bed.client.create_key(&request, SECOND).await.unwrap();
    let details = &created.details;
    assert_eq!((details.name.as_str(), details.livemode, details.is_active), ("all of it", false, true));
    assert_eq!(details.workspace_id.as_deref(), Some("ws_design"));
    let life = details.expires_at.unwrap().duration_since(details.created_at.unwrap());
    assert_eq!(life.as_hours(), 30 * 24);
    let known = bed.emulator.key(&details.id).unwrap();
    assert_eq!(known.allowed_ips, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(bed.emulator.authenticate(created.key.expose_secret()).as_ref(), Some(&details.id));

    let plain = bed.create().await.unwrap().details;
    assert!(plain.livemode && plain.expires_at.is_none());
    assert_eq!(bed.emulator.count(Operation::Create), 2);
}

#[tokio::test]
async fn the_list_is_read_to_its_end_by_its_cursor() {
    for page_size in [1, 3, 7, 100] {
        let bed = Bed::with(Settings { page_size, ..Settings::default() }).await;
        let made: Vec<String> =
            (0..7).map(|number| bed.emulator.create_foreign(&format!("key {number}")).unwrap()).collect();
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = bed.client.list_keys(after.as_deref()).await.unwrap();
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
        let bed = Bed::with(Settings { revoking_twice_fails, ..Settings::default() }).await;
        let id = bed.create().await.unwrap().details.id;
        let Revocation::Revoked(details) = bed.client.revoke_key(&id).await.unwrap() else {
            panic!("it was there");
        };
        assert!(!details.is_active && bed.emulator.active_keys().is_empty());
        let again = bed.client.revoke_key(&id).await.unwrap();
        assert_eq!(matches!(again, Revocation::AlreadyGone), revoking_twice_fails);
        assert_eq!(bed.client.revoke_key("key_unknown").await.unwrap(), Revocation::AlreadyGone);
    }
}

#[tokio::test]
async fn a_revocation_that_leaves_the_key_active_is_none() {
    let bed = Bed::new().await;
    let id = bed.create().await.unwrap().details.id;
    let body = format!(r#"{{"id":"{id}","is_active":true,"name":"n"}}"#);
    bed.emulator.inject(Fault::once(Operation::Revoke, When::None, Outcome::Foreign(body)));
    assert!(matches!(bed.client.revoke_key(&id).await, Err(BoltzError::Unreadable { .. })));
    // A refusal for another reason is none either.
    for status in [400, 403, 409, 422, 500] {
        bed.emulator.inject(Fault::once(Operation::Revoke, When::None, Outcome::status(status)));
        assert_eq!(bed.client.revoke_key(&id).await.unwrap_err().status(), Some(status));
    }
    assert_eq!(bed.emulator.active_keys().len(), 1);
}

#[tokio::test]
async fn an_id_is_one_segment_of_the_path_whatever_it_holds() {
    let bed = Bed::new().await;
    let victim = bed.create().await.unwrap().details.id;
    for id in [
        format!("x/../{victim}"),
        format!("{victim}/revoke?"),
        format!("../api-keys/{victim}"),
        format!("{victim}%2F.."),
        format!("{victim}#"),
        "a b\u{e9}\u{0}".to_owned(),
    ] {
        assert_eq!(bed.client.revoke_key(&id).await.unwrap(), Revocation::AlreadyGone, "{id}");
    }
    for id in ["", ".", ".."] {
        let error = bed.client.revoke_key(id).await.unwrap_err();
        assert_eq!((error.effect(), error.kind()), (Effect::None, BoltzErrorKind::Rejected));
    }
    assert_eq!(bed.emulator.active_keys().len(), 1, "nothing else was revoked");
}

#[tokio::test]
async fn the_admin_key_is_the_one_of_the_moment() {
    let bed = Bed::new().await;
    let me = bed.client.auth_me().await.unwrap().unwrap();
    assert_eq!((me.key_type.as_str(), me.mode.as_deref()), ("admin", Some("live")));
    bed.emulator.set_admin_keys(vec![AdminKey::new("sk_bc_admin_live_second".to_owned())]);
    let error = bed.client.auth_me().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (BoltzErrorKind::Unauthorized, Some(401)));
    bed.admin_key.send_replace(Some(SecretString::from("sk_bc_admin_live_second")));
    assert!(bed.client.auth_me().await.is_ok());
    bed.admin_key.send_replace(None);
    assert_eq!(bed.client.list_keys(None).await.unwrap_err().status(), Some(401));
}

#[tokio::test]
async fn a_server_without_auth_me_is_no_error() {
    let bed = Bed::with(Settings { has_auth_me: false, ..Settings::default() }).await;
    assert_eq!(bed.client.auth_me().await.unwrap(), None);
}

#[tokio::test]
async fn every_status_is_sorted_by_its_meaning_and_by_what_it_may_have_done() {
    use BoltzErrorKind::{RateLimited, Rejected, Unauthorized, Unavailable};
    let bed = Bed::new().await;
    for (status, kind, effect) in [
        (400, Rejected, Effect::None),
        (401, Unauthorized, Effect::None),
        (403, Unauthorized, Effect::None),
        (404, Rejected, Effect::None),
        (408, Unavailable, Effect::Unknown),
        (409, Unavailable, Effect::Unknown),
        (422, Rejected, Effect::None),
        (429, RateLimited, Effect::Unknown),
        (500, Unavailable, Effect::Unknown),
        (503, Unavailable, Effect::Unknown),
    ] {
        // What may have had an effect is met both ways: the client cannot know.
        for when in [When::None, When::Before] {
            let before = bed.emulator.keys().len();
            let error = bed.create_with(when, Outcome::status(status)).await;
            assert_eq!((error.status(), error.kind()), (Some(status), kind));
            assert_eq!(error.effect(), effect, "{status}");
            let made = bed.emulator.keys().len() - before;
            assert_eq!(made, usize::from(when == When::Before), "one try: {status}");
        }
    }
    assert_eq!(bed.emulator.count(Operation::Create), 20, "one request for each call");
}

#[tokio::test]
async fn boltzs_own_words_are_passed_on_shortened_and_without_control_characters() {
    let bed = Bed::new().await;
    let body = format!(r#"{{"code":"VALIDATION_ERROR","message":"bad\nname {}"}}"#, "x".repeat(1000));
    let outcome = Outcome::Status { status: 422, headers: [].into(), body: Some(body) };
    let words = bed.create_with(When::None, outcome).await.to_string();
    assert!(words.starts_with("create a key: Boltz answered 422 (VALIDATION_ERROR: badname xxx"), "{words}");
    assert!(words.len() < 400);
    let outcome = Outcome::Status { status: 502, headers: [].into(), body: Some("<html>".to_owned()) };
    assert_eq!(bed.create_with(When::None, outcome).await.to_string(), "create a key: Boltz answered 502");
}

#[tokio::test]
async fn retry_after_is_heard() {
    let bed = Bed::new().await;
    for (name, value, wait) in [
        ("retry-after", "7", Some(7 * SECOND)),
        ("retry-after-ms", "1500", Some(SECOND * 3 / 2)),
        ("retry-after", "tomorrow", None),
    ] {
        let headers = [(name.to_owned(), value.to_owned())].into();
        let outcome = Outcome::Status { status: 429, headers, body: None };
        assert_eq!(bed.create_with(When::None, outcome).await.retry_after(), wait, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_cut_is_doubt_and_is_not_tried_again() {
    let bed = Bed::new().await;
    for (when, outcome, keys) in [
        (When::None, Outcome::Cut, 0),
        (When::Before, Outcome::Cut, 1),
        (When::Before, Outcome::CutMidAnswer, 1),
    ] {
        bed.emulator.reset();
        let error = bed.create_with(when, outcome.clone()).await;
        assert!(matches!(error, BoltzError::Transport { .. }), "{outcome:?}: {error:?}");
        assert_eq!((error.effect(), error.kind()), (Effect::Unknown, BoltzErrorKind::Unavailable));
        assert_eq!(bed.emulator.keys().len(), keys);
        assert_eq!(bed.emulator.count(Operation::Create), 1, "not even on a fresh connection");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_doubt_and_its_content_stays_untold() {
    let bed = Bed::new().await;
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
        let error = bed.create_with(When::Before, outcome.clone()).await;
        assert!(matches!(error, BoltzError::Unreadable { .. }), "{outcome:?}: {error:?}");
        assert_eq!(error.effect(), Effect::Unknown);
        assert!(!all_words(&error).contains("sk_bc"), "{}", all_words(&error));
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let bed = Bed::new().await;
    let outcome = Outcome::Foreign("x".repeat(8 << 20));
    let error = bed.create_with(When::Before, outcome).await;
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(matches!(error, BoltzError::Unreadable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_call_ends_with_its_timeout_and_its_effect_may_come_later() {
    let bed = Bed::new().await;
    bed.emulator.inject(Fault::once(Operation::Create, When::OnRelease, Outcome::Hang));
    let Err(error) = bed.client.create_key(&named("late"), SECOND / 5).await else { panic!("it hangs") };
    assert!(matches!(error, BoltzError::Timeout { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
    bed.emulator.release();
    eventually(PATIENCE, "the key is made after all", async || match bed.emulator.keys().len() {
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
    assert!(matches!(error, BoltzError::Connect { .. }), "{error:?}");
    assert_eq!((error.effect(), error.kind()), (Effect::None, BoltzErrorKind::Unavailable));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (bed, elsewhere) = (Bed::new().await, Bed::new().await);
    for status in [301, 302, 307, 308] {
        let location = format!("{}/compute/v1/admin/api-keys", elsewhere.emulator.base_url());
        let headers = [("location".to_owned(), location)].into();
        let error = bed.create_with(When::None, Outcome::Status { status, headers, body: None }).await;
        assert_eq!((error.status(), error.effect()), (Some(status), Effect::Unknown));
    }
    assert_eq!(elsewhere.emulator.requests().len(), 0, "the admin key goes nowhere else");
}

#[tokio::test]
async fn calls_are_counted_by_operation_and_code() {
    let bed = Bed::new().await;
    let id = bed.create().await.unwrap().details.id;
    bed.client.list_keys(None).await.unwrap();
    bed.client.revoke_key(&id).await.unwrap();
    bed.client.auth_me().await.unwrap();
    bed.create_with(When::None, Outcome::status(503)).await;
    bed.create_with(When::None, Outcome::Cut).await;
    let text = bed.metrics.to_text();
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
    let bed = Bed::new().await;
    let mut errors = vec![
        bed.create_with(When::Before, Outcome::Cut).await,
        bed.create_with(When::Before, Outcome::CutMidAnswer).await,
        bed.create_with(When::Before, Outcome::Truncated(60)).await,
        bed.create_with(When::None, Outcome::status(500)).await,
    ];
    bed.emulator.set_admin_keys(Vec::new());
    errors.push(bed.client.auth_me().await.unwrap_err());
    for error in &errors {
        assert!(!all_words(error).contains("sk_bc"), "{}", all_words(error));
    }
    assert!(!format!("{:?}", bed.client).contains("sk_bc"));
}

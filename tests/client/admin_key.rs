//! A new admin key is proved before it takes the place of the old one, and the log and the metrics tell its expiry.

use crate::inventory::{HOUR, SECOND, transport};
use boltz_emulator::{
    AdminKey, Clock as EmulatorClock, Emulator, Operation, Options, Settings, StandingFault,
};
use boltz_operator::{
    boltz::{
        BoltzClient, BoltzClientOptions, MintLimits, account::Account, cluster_names::ClusterNames,
        inventory::Inventory,
    },
    clock::Clock,
    observability::metrics::Metrics,
    protocol::marker::MarkerFormat,
};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

const OLD: &str = "sk_bc_admin_live_old";
const NEW: &str = "sk_bc_admin_live_new";
const UNPROVED: &str = "boltz_admin_key_new_unproved 1";

/// An account at work over an emulator, which knows its organization.
struct AccountEnv {
    emulator: Arc<Emulator>,
    metrics: Arc<Metrics>,
    file: watch::Sender<Option<SecretString>>,
    used: watch::Receiver<Option<SecretString>>,
    _tasks: JoinSet<()>,
}

impl AccountEnv {
    /// With these admin keys besides the old one. It has made its first pass.
    async fn with(others: Vec<AdminKey>) -> Self {
        let start = "2026-11-24T00:00:00Z".parse().unwrap();
        let settings = Settings { list_admin_keys: true, ..Settings::default() };
        let options = Options { settings, ..Options::default() };
        let emulator = Arc::new(Emulator::in_memory(options, EmulatorClock::starting_at(start)));
        emulator.set_admin_keys([vec![AdminKey::new(OLD)], others].concat());
        let metrics = Arc::new(Metrics::new());
        // Only a leader shows what it knows.
        metrics.set_leader(true);
        let (file, offers) = watch::channel(Some(SecretString::from(OLD)));
        let (in_use, used) = watch::channel(Some(SecretString::from(OLD)));
        boltz_harness::install_tls_provider();
        let base_url = "http://boltz.example".to_owned();
        let options = BoltzClientOptions { base_url, extra_roots_pem: None, request_timeout: 10 * SECOND };
        let client = BoltzClient::new(options, used.clone(), Arc::clone(&metrics)).unwrap();
        let limits = MintLimits { per_minute: 600, per_namespace: None, at_once: 16 };
        let account = Account::new(transport(client, &emulator), limits, Arc::clone(&metrics));
        let account = Arc::new(account);
        let mut tasks = JoinSet::new();
        let (checks, proofs) = (Arc::clone(&account), Arc::clone(&account));
        let key = used.clone();
        tasks.spawn(async move { checks.watch_admin_key(key).await });
        tasks.spawn(async move { proofs.take_new_admin_keys(offers, in_use).await });
        let inventory =
            Inventory::new(ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One));
        let (clock, for_passes) = (Clock::simulated(start), Arc::clone(&metrics));
        tasks.spawn(async move { inventory.run(&account, HOUR, clock, &for_passes).await });
        let env = Self { emulator, metrics, file, used, _tasks: tasks };
        env.until("the first pass", |env| env.emulator.count(Operation::List) > 0).await;
        sleep(10 * SECOND).await;
        env
    }

    /// Somebody writes that key into the file.
    fn offer(&self, key: &str) {
        self.file.send_replace(Some(SecretString::from(key)));
    }

    fn uses(&self, key: &str) -> bool {
        self.used.borrow().as_ref().is_some_and(|used| used.expose_secret() == key)
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.to_text().lines().any(|known| known == line)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < 2 * HOUR, "{what}\n{}", self.metrics.to_text());
            sleep(SECOND).await;
        }
    }
}

fn of_another_organization() -> AdminKey {
    AdminKey { organization_id: Some("org_other".to_owned()), ..AdminKey::new(NEW) }
}

#[tokio::test(start_paused = true)]
async fn a_new_admin_key_of_the_same_organization_is_taken() {
    let env = AccountEnv::with(vec![AdminKey::new(NEW)]).await;
    env.offer(NEW);
    env.until("it is used", |env| env.uses(NEW)).await;
    sleep(10 * SECOND).await;
    assert!(!env.shows(UNPROVED) && env.shows(r#"boltz_admin_key_state{state="valid"} 1"#));
}

/// The old key goes on working: so it is used, and an alarm tells it.
#[tokio::test(start_paused = true)]
async fn while_a_new_admin_key_is_not_proved_the_old_one_is_used() {
    let of_a_workspace = AdminKey { key_type: "workspace".to_owned(), ..AdminKey::new(NEW) };
    for (what, others) in [
        ("of another organization", vec![of_another_organization()]),
        ("of a workspace", vec![of_a_workspace]),
        ("unknown to Boltz", vec![]),
    ] {
        let env = AccountEnv::with(others).await;
        env.offer(NEW);
        env.until(what, |env| env.shows(UNPROVED)).await;
        let lists = env.emulator.count(Operation::List);
        sleep(3 * HOUR).await;
        assert!(env.uses(OLD) && env.shows(UNPROVED), "{what}");
        assert!(env.shows(r#"boltz_admin_key_state{state="valid"} 1"#), "{what}");
        assert!(env.emulator.count(Operation::List) > lists, "{what}: passes go on");
        env.offer(OLD);
        env.until("the old one is back", |env| !env.shows(UNPROVED)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_admin_key_waits_until_boltz_says_whose_it_is() {
    let env = AccountEnv::with(vec![AdminKey::new(NEW)]).await;
    env.emulator.stand("auth/me", StandingFault::status(Operation::AuthMe, 500));
    env.offer(NEW);
    env.until("the alarm", |env| env.shows(UNPROVED)).await;
    sleep(HOUR).await;
    assert!(env.uses(OLD));
    env.emulator.lift("auth/me");
    sleep(61 * SECOND).await;
    assert!(env.uses(NEW) && !env.shows(UNPROVED));
}

/// There is nothing to lose: the conditions then say what is wrong with the new one.
#[tokio::test(start_paused = true)]
async fn when_the_old_admin_key_is_refused_nothing_is_done_with_one_of_another_organization() {
    let env = AccountEnv::with(vec![of_another_organization()]).await;
    env.offer(NEW);
    env.until("the alarm", |env| env.shows(UNPROVED)).await;
    env.emulator.set_admin_keys(vec![of_another_organization()]);
    env.until("it is known to be wrong", |env| {
        env.shows(r#"boltz_admin_key_state{state="wrong_organization"} 1"#)
    })
    .await;
    assert!(env.uses(NEW));
    sleep(10 * SECOND).await;
    let others = |env: &AccountEnv| env.emulator.requests().len() - env.emulator.count(Operation::AuthMe);
    let before = others(&env);
    sleep(3 * HOUR).await;
    assert_eq!(others(&env), before, "no call but auth/me");
    // Somebody puts a good one into its place.
    env.emulator.set_admin_keys(vec![AdminKey::new(OLD)]);
    env.offer(OLD);
    env.until("valid again", |env| env.shows(r#"boltz_admin_key_state{state="valid"} 1"#)).await;
}

#[tokio::test(start_paused = true)]
async fn an_admin_key_that_is_taken_away_is_not_used_any_more() {
    let env = AccountEnv::with(vec![]).await;
    env.file.send_replace(None);
    env.until("refused", |env| env.shows(r#"boltz_admin_key_state{state="refused"} 1"#)).await;
    assert!(env.used.borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_expiry_of_the_admin_key_is_told_once_the_list_shows_it() {
    let expires_at = "2026-12-01T00:00:00Z".parse().unwrap();
    let env = AccountEnv::with(vec![AdminKey { expires_at: Some(expires_at), ..AdminKey::new(NEW) }]).await;
    let line = format!("boltz_admin_key_expiration_timestamp_seconds {}", expires_at.as_second());
    sleep(2 * HOUR).await;
    assert!(!env.metrics.to_text().contains("admin_key_expiration"), "the old one never expires");
    env.offer(NEW);
    env.until("it is used", |env| env.uses(NEW)).await;
    sleep(2 * HOUR).await;
    assert!(env.shows(&line), "{}", env.metrics.to_text());
}

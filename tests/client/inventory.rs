//! The inventory: whole passes over the emulator's list, in virtual time, and what a pass says about an object.

use axum::body::{Body, to_bytes};
use boltz_emulator::{
    Clock as EmulatorClock, Effect, Emulator, Fault, Lie, LoggedRequest, Operation, Options, Outcome,
    Settings, StandingFault,
};
use boltz_operator::{
    boltz::{
        BoltzClient, BoltzClientOptions, MintLimits, SendError, account::Account,
        cluster_names::ClusterNames, inventory::Inventory, snapshot::Snapshot,
    },
    clock::Clock,
    observability::metrics::Metrics,
    plan::Doubt,
    protocol::marker::{AttemptId, MarkerFormat, ObjectMark},
};
use secrecy::SecretString;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tower::ServiceExt;

pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3600);
const UID: &str = "550e8400-e29b-41d4-a716-446655440000";
const ANOTHER_UID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

/// What the key of an object's attempt is called in that cluster.
fn name(cluster: &str, uid: &str, attempt: u64) -> String {
    let names = ClusterNames::named(cluster.parse().unwrap(), Vec::new(), MarkerFormat::One);
    names.marker(ObjectMark::from_uid(uid), AttemptId::from_random(attempt)).to_string()
}

/// An inventory of the clusters `mine` and, formerly, `old`, at work over an emulator's list: a pass each hour.
struct InventoryEnv {
    emulator: Arc<Emulator>,
    inventory: Arc<Inventory>,
    clock: Clock,
    task: JoinHandle<()>,
}

impl Drop for InventoryEnv {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl InventoryEnv {
    fn with(settings: Settings, prepare: impl FnOnce(&Emulator)) -> Self {
        let start = "2026-11-24T00:00:00Z".parse().unwrap();
        let options = Options { settings, ..Options::default() };
        let emulator = Arc::new(Emulator::in_memory(options, EmulatorClock::starting_at(start)));
        prepare(&emulator);
        let metrics = Arc::new(Metrics::new());
        let former = vec!["old".parse().unwrap()];
        let names = ClusterNames::named("mine".parse().unwrap(), former, MarkerFormat::One);
        let client = client(&emulator, &metrics);
        let limits = MintLimits { per_minute: 600, per_namespace: None, at_once: 16 };
        let account = Account::new(client, limits, Arc::clone(&metrics));
        let inventory = Arc::new(Inventory::new(names));
        let clock = Clock::simulated(start);
        let task = tokio::spawn({
            let inventory = Arc::clone(&inventory);
            async move { inventory.run(&account, HOUR, clock, &metrics).await }
        });
        Self { emulator, inventory, clock, task }
    }

    /// The newest pass, once there have been so many.
    async fn pass(&self, number: u64) -> Arc<Snapshot> {
        let mut completions = self.inventory.completions();
        let wait = completions.wait_for(|count| *count >= number);
        tokio::time::timeout(2 * HOUR, wait).await.expect("it makes that many passes").unwrap();
        assert!(self.inventory.snapshots().len() <= 2);
        Arc::clone(&self.inventory.snapshots()[0])
    }

    /// When the list was asked for, in whole seconds after the start.
    fn asked_at(&self) -> Vec<i64> {
        let mut requests = self.emulator.requests();
        requests.retain(|request| request.operation == Operation::List);
        let first = requests[0].at;
        let seconds = |request: &LoggedRequest| request.at.as_second() - first.as_second();
        requests.iter().map(seconds).collect()
    }
}

fn client(emulator: &Arc<Emulator>, metrics: &Arc<Metrics>) -> BoltzClient {
    boltz_harness::install_tls_provider();
    let (_, key) = watch::channel(Some(SecretString::from(emulator.admin_key())));
    let base_url = "http://boltz.example".to_owned();
    let options = BoltzClientOptions { base_url, extra_roots_pem: None, request_timeout: 10 * SECOND };
    transport(BoltzClient::new(options, key, Arc::clone(metrics)).unwrap(), emulator)
}

/// The client's requests go to the emulator, without a network.
pub fn transport(client: BoltzClient, emulator: &Arc<Emulator>) -> BoltzClient {
    let emulator = Arc::clone(emulator);
    client.through(tower::service_fn(move |request: reqwest::Request| {
        let routes = emulator.routes();
        async move {
            let request: http::Request<reqwest::Body> = request.try_into().unwrap();
            let (head, body) = routes.oneshot(request.map(Body::new)).await.unwrap().into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            Ok::<_, SendError>(http::Response::from_parts(head, body).into())
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn a_pass_shows_each_object_its_own_keys() {
    let env = InventoryEnv::with(Settings::default(), |emulator| {
        for name in [
            name("mine", UID, 1),
            name("old", UID, 2),
            name("another", UID, 3),
            name("mine", ANOTHER_UID, 4),
            "somebody's".to_owned(),
        ] {
            emulator.create_foreign(&name).unwrap();
        }
    });
    let ids: Vec<String> = env.emulator.keys().into_iter().map(|key| key.id).collect();
    env.inventory.set_named(&ObjectMark::from_uid(UID), &ids);
    let pass = env.pass(1).await;
    assert_eq!(pass.rows, 5);
    let named = ids.iter().map(String::as_str).chain(["not-listed"]);
    let view = pass.view(&ObjectMark::from_uid(UID), named, &[]);
    let keys: BTreeSet<(&str, &AttemptId)> =
        view.keys.iter().map(|key| (key.id.as_str(), &key.attempt)).collect();
    let attempts = [1, 2].map(AttemptId::from_random);
    assert_eq!(keys, BTreeSet::from([(ids[0].as_str(), &attempts[0]), (ids[1].as_str(), &attempts[1])]));
    assert_eq!(view.under_other_names, ids[2..].iter().cloned().collect());
    assert!(env.inventory.names().include(&"old".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_a_pass_too() {
    let env = InventoryEnv::with(Settings::default(), |_| {});
    let pass = env.pass(1).await;
    assert_eq!(pass.rows, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pass_reads_every_page_and_no_page_twice() {
    let env = InventoryEnv::with(Settings { page_size: 10, ..Settings::default() }, |emulator| {
        for attempt in 0..30 {
            emulator.create_foreign(&name("mine", UID, attempt)).unwrap();
        }
    });
    assert_eq!(env.pass(1).await.rows, 30);
    assert_eq!(env.emulator.count(Operation::List), 3, "the third page says that it is the last");
}

/// Each lie costs a pass, which proves nothing. The next one, without it, completes.
#[tokio::test(start_paused = true)]
async fn a_list_that_contradicts_itself_is_no_pass() {
    for lie in [Lie::EmptyPageAndMore, Lie::NoCursor, Lie::SamePage] {
        let env = InventoryEnv::with(Settings::default(), |emulator| {
            emulator.create_foreign(&name("mine", UID, 1)).unwrap();
            emulator.stand("lie", StandingFault::lie(Operation::List, lie.clone()));
        });
        sleep(600 * SECOND).await;
        assert!(env.inventory.snapshots().is_empty(), "{lie:?}");
        let asked = env.emulator.count(Operation::List);
        assert!((5..60).contains(&asked), "{lie:?}: asked for {asked} times");
        env.emulator.lift("lie");
        assert_eq!(env.pass(1).await.rows, 1, "{lie:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_fails_after_a_quarter_of_an_hour_and_leaves_nothing_behind() {
    let env = InventoryEnv::with(Settings::default(), |emulator| {
        emulator.stand("lie", StandingFault::lie(Operation::List, Lie::NoEnd));
    });
    sleep(14 * 60 * SECOND).await;
    assert!(env.inventory.snapshots().is_empty());
    env.emulator.lift("lie");
    // The cursor of the lie leads nowhere. The next pass begins anew.
    assert_eq!(env.pass(1).await.rows, 0);
    assert!(env.clock.now().monotonic.0 < 16 * 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn odd_rows_are_read() {
    let env = InventoryEnv::with(Settings::default(), |emulator| {
        emulator.create_foreign(&name("mine", UID, 1)).unwrap();
        emulator.create_foreign(&format!("team/key {}", name("mine", UID, 2))).unwrap();
        emulator.create_foreign("somebody's").unwrap();
        emulator.stand("lie", StandingFault::lie(Operation::List, Lie::OddRows));
    });
    let pass = env.pass(1).await;
    assert_eq!((pass.rows, pass.keys().count()), (3, 1), "a null name is not ours");
}

#[tokio::test(start_paused = true)]
async fn a_pass_survives_failures_in_its_middle() {
    for status in [429, 500, 503] {
        let env = InventoryEnv::with(Settings { page_size: 10, ..Settings::default() }, |emulator| {
            for attempt in 0..300 {
                emulator.create_foreign(&name("mine", UID, attempt)).unwrap();
            }
            // Every second page fails.
            for _ in 0..30 {
                emulator.inject(Fault::once(Operation::List, Effect::Before, Outcome::Answer));
                emulator.inject(Fault::once(Operation::List, Effect::None, Outcome::status(status)));
            }
        });
        assert_eq!(env.pass(1).await.rows, 300, "{status}");
        assert_eq!(env.emulator.count(Operation::List), 59, "{status}: no page is read twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_completes_under_a_rate_limit() {
    let settings = Settings { page_size: 10, requests_per_second: Some(5), ..Settings::default() };
    let env = InventoryEnv::with(settings, |emulator| {
        for attempt in 0..300 {
            emulator.create_foreign(&name("mine", UID, attempt)).unwrap();
        }
    });
    assert_eq!(env.pass(1).await.rows, 300);
    assert!(env.clock.now().monotonic.0 < 60 * SECOND, "{:?}", env.clock.now());
}

#[tokio::test(start_paused = true)]
async fn a_large_page_that_is_refused_becomes_a_default_one() {
    for larger_limit_status in [400, 403, 404, 408, 422, 500, 502, 503, 504] {
        let settings =
            Settings { largest_limit: 100, page_size: 100, larger_limit_status, ..Settings::default() };
        let env = InventoryEnv::with(settings, |emulator| {
            for attempt in 0..150 {
                emulator.create_foreign(&name("mine", UID, attempt)).unwrap();
            }
        });
        assert_eq!(env.pass(1).await.rows, 150, "{larger_limit_status}");
        assert_eq!(env.emulator.count(Operation::List), 3, "{larger_limit_status}: one refused, two pages");
        assert_eq!(env.pass(2).await.rows, 150, "{larger_limit_status}");
        assert_eq!(env.emulator.count(Operation::List), 6, "{larger_limit_status}: each pass tries it once");
    }
}

/// One row of many says something else than before, or than another row.
#[tokio::test(start_paused = true)]
async fn one_odd_row_of_many_costs_nobody_else_anything() {
    let active = |pass: &Snapshot, env: &InventoryEnv| pass.active_keys(env.clock.now().wall).count();
    for (lie, left) in [
        // It was shown under its own name before.
        (Lie::Renamed as fn(String) -> Lie, 12),
        (Lie::OneInactive, 11),
        (Lie::OneExpired, 11),
        (|_| Lie::RowsTwice, 12),
    ] {
        let env = InventoryEnv::with(Settings::default(), |emulator| {
            for attempt in 0..12 {
                emulator.create_foreign(&name("mine", UID, attempt)).unwrap();
            }
        });
        assert_eq!(active(&*env.pass(1).await, &env), 12);
        let id = env.emulator.keys()[3].id.clone();
        let lie = lie(id.clone());
        env.inventory.set_named(&ObjectMark::from_uid(UID), std::slice::from_ref(&id));
        env.emulator.stand("lie", StandingFault::lie(Operation::List, lie.clone()));
        let pass = env.pass(2).await;
        assert_eq!((active(&pass, &env), pass.doubt), (left, Doubt::None), "{lie:?}");
        let view = pass.view(&ObjectMark::from_uid(UID), std::iter::once(id.as_str()), &[]);
        assert_eq!((view.keys.len(), view.under_other_names.len()), (12, 0), "{lie:?}");
    }
}

/// Boltz says something else about the admin key than before: the pass read the list of nobody knows whom.
#[tokio::test(start_paused = true)]
async fn a_pass_is_of_one_organization_from_its_begin_to_its_end() {
    let env = InventoryEnv::with(Settings::default(), |emulator| {
        emulator.create_foreign(&name("mine", UID, 1)).unwrap();
    });
    assert_eq!(env.pass(1).await.organization.as_deref(), Some("org_example"));
    env.emulator.change(|settings| settings.organization_id = Some("org_other".to_owned()));
    sleep(3 * HOUR).await;
    let passes = env.inventory.snapshots();
    assert!(passes.iter().all(|pass| pass.organization.as_deref() == Some("org_example")));
    assert_eq!(
        (passes.len(), env.emulator.count(Operation::List)),
        (1, 2),
        "the admin key is not used any more"
    );
}

/// `auth/me` is not needed for a pass.
#[tokio::test(start_paused = true)]
async fn a_pass_completes_while_auth_me_fails() {
    let env = InventoryEnv::with(Settings::default(), |emulator| {
        emulator.stand("auth/me", StandingFault::status(Operation::AuthMe, 500));
    });
    assert_eq!(env.pass(1).await.organization, None);
    env.emulator.lift("auth/me");
    assert_eq!(env.pass(2).await.organization.as_deref(), Some("org_example"));
}

/// The list of another organization, or of nobody.
#[tokio::test(start_paused = true)]
async fn a_list_that_suddenly_lacks_many_keys_is_doubted() {
    for lie in [Lie::NoKeys, Lie::Inactive] {
        let env = InventoryEnv::with(Settings::default(), |emulator| {
            for attempt in 0..12 {
                emulator.create_foreign(&name("mine", UID, attempt)).unwrap();
            }
        });
        assert_eq!(env.pass(1).await.doubt, Doubt::None);
        env.emulator.stand("lie", StandingFault::lie(Operation::List, lie.clone()));
        assert_eq!(env.pass(2).await.doubt, Doubt::Many, "{lie:?}");
        assert_eq!(env.pass(3).await.doubt, Doubt::Many, "{lie:?}");
        env.emulator.lift("lie");
        assert_eq!(env.pass(4).await.doubt, Doubt::None, "{lie:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_comes_each_hour_and_sooner_when_something_newer_is_wanted() {
    let env = InventoryEnv::with(Settings::default(), |_| {});
    let first = env.pass(1).await;
    assert_eq!(env.pass(2).await.started, first.started.plus(HOUR), "by itself");
    let inventory = &env.inventory;
    for number in 3..5 {
        sleep(10 * SECOND).await;
        inventory.request_pass_since(env.clock.now().monotonic);
        if number == 4 {
            // Nobody's older wish takes the newer one back.
            inventory.request_pass_since(first.started);
        }
        let wanted = env.clock.now();
        let pass = env.pass(number).await;
        assert_eq!((pass.started, pass.started_at), (wanted.monotonic, wanted.wall));
    }
    let last = env.clock.now().monotonic;
    assert_eq!(env.pass(5).await.started, last.plus(HOUR), "the wishes are fulfilled");
}

#[tokio::test(start_paused = true)]
async fn wishes_at_nearly_the_same_time_become_one_pass() {
    let env = InventoryEnv::with(Settings::default(), |_| {});
    env.pass(1).await;
    for _ in 0..20 {
        env.inventory.request_pass_since(env.clock.now().monotonic);
        sleep(Duration::from_millis(20)).await;
    }
    sleep(60 * SECOND).await;
    assert_eq!(env.emulator.count(Operation::List), 2);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_read_is_asked_for_ever_more_seldom() {
    for status in [500, 400] {
        let env = InventoryEnv::with(Settings::default(), |emulator| {
            emulator.inject(Fault::once(Operation::List, Effect::None, Outcome::status(status)).times(7));
        });
        env.pass(1).await;
        let asked = env.asked_at();
        assert_eq!(asked.len(), 8);
        let waits: Vec<i64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            waits[0] <= 2 && waits[6] >= 25,
            "{status}: nearly half a minute at least after the last: {waits:?}"
        );
    }
}

/// Resident memory of this process, in MB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1000
}

/// For docs/performance.md: `cargo test --test client a_million_keys -- --ignored --nocapture`.
#[test]
#[ignore = "prints what a pass over a million keys costs, and needs 1 GB"]
fn a_million_keys() {
    let names = ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One);
    let now = boltz_operator::plan::Now {
        wall: "2026-11-24T00:00:00Z".parse().unwrap(),
        monotonic: boltz_operator::plan::Monotonic::default(),
    };
    let row = |number: u64| -> boltz_operator::boltz::KeyDetails {
        let json = serde_json::json!({
            "id": format!("key_{number:020}"),
            "name": name("mine", &format!("{number:032x}"), number),
            "key_prefix": "sk_bc_abcdef", "is_active": true, "livemode": true,
            "created_at": "2026-11-24T00:00:00Z", "expires_at": "2027-11-24T00:00:00Z",
        });
        serde_json::from_value(json).unwrap()
    };
    for count in [100_000, 1_000_000] {
        let (before, begun) = (resident(), std::time::Instant::now());
        let pass = Snapshot::of(now, (0..count).map(row), &names, Default::default());
        let took = begun.elapsed();
        let first = pass.view(&ObjectMark::from_uid(&format!("{:032x}", 1)), std::iter::empty(), &[]);
        assert_eq!((pass.rows, first.keys.len()), (count as usize, 1));
        println!("{count} keys: {} MB, {took:.1?} with the JSON of their rows", resident() - before);
    }
}

//! Boltz's list of keys: it lags, has pages and shows keys of others.

use crate::test_env::{EnvOptions, TestEnv, run_rows};
use boltz_emulator::{Effect, Fault, Operation, Outcome, Settings};
use kube::api::DeleteParams;
use serde_json::json;
use std::{collections::VecDeque, time::Duration};

/// The lags of 5 s and 60 s with a settle time of 2 min, for the tests' of 8 s.
const SHORT_LAG: u64 = 333;
const LONG_LAG: u64 = 4000;
/// Cells that run side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 7;

/// A name, the lag in milliseconds, the keys on a page, whether the newest comes first, whether inactive ones show.
type Row = (&'static str, u64, usize, bool, bool);

const ROWS: &[Row] = &[
    ("at once, one page", 0, 1000, true, true),
    ("at once, a key on each page", 0, 1, false, true),
    ("short lag, newest first", SHORT_LAG, 2, true, false),
    ("short lag, oldest first", SHORT_LAG, 2, false, true),
    ("long lag, one page", LONG_LAG, 1000, true, false),
    ("long lag, newest first", LONG_LAG, 2, true, true),
    ("long lag, oldest first", LONG_LAG, 2, false, false),
];

#[tokio::test]
async fn however_boltz_lists_keys_each_is_accounted_for_and_those_of_others_are_left_alone() {
    run_rows(SIDE_BY_SIDE, ROWS.iter().map(|row| (row.0, cell(row)))).await;
}

async fn cell(&(_, lag, page_size, newest_first, list_inactive): &Row) {
    let settings = Settings {
        list_lag_milliseconds: lag,
        page_size,
        newest_first,
        list_inactive,
        // A pass over several pages takes a while, in which keys of others come and go.
        latency_milliseconds: 10,
        ..Settings::default()
    };
    let env = TestEnv::with_options(EnvOptions { settings, ..EnvOptions::default() }).await;
    env.create("key", json!({"rotation": {"overlap": "1s"}})).await;
    env.create("ended", json!({})).await;
    env.ready("key").await;
    let uid = env.ready("ended").await.metadata.uid.unwrap();
    let mark: String = uid.replace('-', "").chars().take(16).collect();
    let others: Vec<String> = [
        "laptop".to_owned(),
        // The object's own mark, of another cluster; and what only looks like one of ours.
        format!("prod/ended bo.other.{mark}.0123456789ab"),
        format!("prod/ended bo.{}x.{mark}.0123456789ab", env.namespace),
        format!("bo.{}.{mark}", env.namespace),
        format!("bo.{}.{mark}.0123456789ab (copy)", env.namespace),
    ]
    .iter()
    .map(|name| env.emulator.create_foreign(name).unwrap())
    .collect();
    tokio::select! {
        () = come_and_go(&env) => {}
        () = acts(&env) => {}
    }
    // Those of the last moment stay.
    let strangers: Vec<String> = env
        .emulator
        .active_keys()
        .into_iter()
        .filter(|key| key.name.starts_with("a person's"))
        .map(|key| key.id)
        .chain(others)
        .collect();
    let strangers: Vec<&str> = strangers.iter().map(String::as_str).collect();
    env.judge_all(&["key"], &strangers).await;
    env.passes(2).await;
    env.judge_all(&["key"], &strangers).await;
    let revoked = env.revoked_ids();
    for key in env.emulator.keys().iter().filter(|key| revoked.contains(&key.id)) {
        assert!(!strangers.contains(&key.id.as_str()), "{} was revoked", key.name);
    }
    // Two first keys, two rotations and a new Secret; an answer was lost on purpose.
    assert!(env.unanswered() > 0);
    assert_eq!(env.emulator.count(Operation::Create), 5 + env.unanswered());
}

/// What users do, and an answer that is lost.
async fn acts(env: &TestEnv) {
    let first = env.id_of("key").await;
    env.annotate("key", "boltz.bio/rotate", "1").await;
    let second = replaced(env, &first).await;
    // The key of this POST is found in the list only, once that shows it.
    env.emulator.inject(Fault::once(Operation::Create, Effect::Before, Outcome::Cut));
    env.annotate("key", "boltz.bio/rotate", "2").await;
    let third = replaced(env, &second).await;
    env.secrets().delete("key", &DeleteParams::default()).await.unwrap();
    replaced(env, &third).await;
    env.delete("ended").await;
    env.gone("ended").await;
}

async fn replaced(env: &TestEnv, old: &str) -> String {
    let object = env
        .until("key", "another key", |object| {
            object.status.as_ref().is_some_and(|status| status.key_id.as_deref().is_some_and(|id| id != old))
        })
        .await;
    object.status.unwrap().key_id.unwrap()
}

/// With every page that is asked for a key of somebody else comes and an older one goes: rows move between pages.
async fn come_and_go(env: &TestEnv) {
    let mut seen = 0;
    let mut ids = VecDeque::new();
    loop {
        let pages = env.emulator.count(Operation::List);
        if pages > seen {
            seen = pages;
            ids.extend(env.emulator.create_foreign("a person's"));
            if ids.len() > 4 {
                env.emulator.deactivate(&ids.pop_front().unwrap());
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

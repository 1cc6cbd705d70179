//! The list: pages, both ways, filtered.

use crate::client::{KEYS, TestEnv, ok, refused, text};
use boltz_emulator::Settings;
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// The names on all pages, walking one way, and how many pages there were. Each page is put in front of the earlier
/// ones when the walk goes backwards.
async fn walk(env: &TestEnv, start: &str, backwards: bool) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    let mut query = start.to_owned();
    for pages in 1.. {
        let page = env.list(&query).await;
        let rows = page["data"].as_array().unwrap();
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            assert_eq!((&page["first_id"], &page["last_id"]), (&first["id"], &last["id"]));
        }
        let mut found: Vec<String> = rows.iter().map(|row| text(&row["name"])).collect();
        if backwards {
            found.append(&mut names);
            names = found;
        } else {
            names.append(&mut found);
        }
        if page["has_more"] == false {
            return (names, pages);
        }
        let cursor = if backwards { ("before_id", "first_id") } else { ("after_id", "last_id") };
        query = format!("limit=2&{}={}", cursor.0, text(&page[cursor.1]));
    }
    unreachable!()
}

async fn five(settings: Settings) -> (TestEnv, Vec<String>) {
    let env = TestEnv::with(settings).await;
    let ids = (0..5).map(|number| env.emulator.create_foreign(&number.to_string()).unwrap()).collect();
    (env, ids)
}

#[tokio::test]
async fn both_ways_and_in_both_orders_every_key_comes_once() {
    for newest_first in [true, false] {
        let (env, ids) = five(Settings { newest_first, ..Settings::default() }).await;
        let expected: Vec<&str> =
            if newest_first { vec!["4", "3", "2", "1", "0"] } else { vec!["0", "1", "2", "3", "4"] };
        let (names, pages) = walk(&env, "limit=2", false).await;
        assert_eq!((names.iter().map(String::as_str).collect::<Vec<_>>(), pages), (expected.clone(), 3));
        let last = if newest_first { &ids[0] } else { &ids[4] };
        let (names, pages) = walk(&env, &format!("limit=2&before_id={last}"), true).await;
        assert_eq!(
            (names.iter().map(String::as_str).collect::<Vec<_>>(), pages),
            (expected[..4].to_vec(), 2)
        );
    }
}

#[tokio::test]
async fn a_page_that_holds_all_is_the_last_one() {
    let (env, ids) = five(Settings::default()).await;
    assert_eq!(env.list("limit=5").await["has_more"], false);
    assert_eq!(env.list("limit=4").await["has_more"], true);
    assert_eq!(env.list(&format!("limit=4&before_id={}", ids[0])).await["has_more"], false);
    assert_eq!(env.list(&format!("limit=3&before_id={}", ids[0])).await["has_more"], true);
}

#[tokio::test]
async fn an_empty_page_has_no_cursors() {
    let env = TestEnv::new().await;
    let empty = json!({"data": [], "first_id": null, "last_id": null, "has_more": false});
    assert_eq!(env.list("").await, empty);
    let id = env.emulator.create_foreign("only").unwrap();
    assert_eq!(env.list(&format!("after_id={id}")).await, empty);
    assert_eq!(env.list(&format!("before_id={id}")).await, empty);
}

#[tokio::test]
async fn a_hundred_rows_unless_asked_and_never_more_than_the_forced_page_size() {
    let env = TestEnv::new().await;
    for number in 0..150 {
        env.emulator.create_foreign(&format!("n{number}")).unwrap();
    }
    let rows = async |query: &str| env.list(query).await["data"].as_array().unwrap().len();
    assert_eq!(rows("").await, 100);
    assert_eq!(rows("limit=120").await, 120);
    env.emulator.change(|settings| settings.page_size = 7);
    assert_eq!(rows("limit=120").await, 7);
    assert_eq!(rows("").await, 7);
}

#[tokio::test]
async fn bad_queries_are_refused() {
    let (env, ids) = five(Settings::default()).await;
    let both = format!("after_id={}&before_id={}", ids[0], ids[1]);
    for (query, status) in [
        ("limit=0", 422),
        ("limit=1001", 422),
        ("limit=-1", 422),
        ("limit=all", 422),
        ("after_id=key_unknown", 400),
        ("before_id=key_unknown", 400),
        ("after_id=", 400),
        ("limit=1&limit=2", 400),
        (both.as_str(), 422),
    ] {
        let request = env.request(Method::GET, &format!("{KEYS}?{query}"));
        assert_eq!(refused(request).await.0, status, "{query}");
    }
}

#[tokio::test]
async fn a_workspace_shows_only_its_own_keys() {
    let env = TestEnv::new().await;
    for number in 0..6 {
        let workspace = format!("ws_{}", number % 2);
        env.created(json!({"name": number.to_string(), "workspace_id": workspace})).await;
    }
    let page = env.list("workspace_id=ws_1&limit=2").await;
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|row| text(&row["name"])).collect()
    };
    assert_eq!((names(&page), &page["has_more"]), (vec!["5".to_owned(), "3".to_owned()], &json!(true)));
    let query = format!("workspace_id=ws_1&limit=2&after_id={}", text(&page["last_id"]));
    let page = env.list(&query).await;
    assert_eq!((names(&page), &page["has_more"]), (vec!["1".to_owned()], &json!(false)));
    assert_eq!(env.list("workspace_id=ws_none").await["data"], json!([]));
    assert_eq!(env.list("").await["data"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn rows_shift_when_keys_come_but_a_cursor_stays_where_it_was() {
    let (env, _) = five(Settings::default()).await;
    let first = env.list("limit=2").await;
    env.emulator.create_foreign("new").unwrap();
    let rest = env.list(&format!("limit=10&after_id={}", text(&first["last_id"]))).await;
    let names: Vec<String> = rest["data"].as_array().unwrap().iter().map(|row| text(&row["name"])).collect();
    assert_eq!(names, ["2", "1", "0"]);
}

#[tokio::test]
async fn ten_thousand_keys_are_listed_quickly() {
    let env = TestEnv::new().await;
    for number in 0..10_000 {
        env.emulator.create_foreign(&format!("key {number}")).unwrap();
    }
    let started = Instant::now();
    let (mut seen, mut query) = (0, "limit=100".to_owned());
    loop {
        let page = ok(env.request(Method::GET, &format!("{KEYS}?{query}"))).await;
        seen += page["data"].as_array().unwrap().len();
        if page["has_more"] == false {
            break;
        }
        query = format!("limit=100&after_id={}", text(&page["last_id"]));
    }
    assert_eq!(seen, 10_000);
    // Without optimization, on a busy machine, it takes about a second; a quadratic list takes minutes.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

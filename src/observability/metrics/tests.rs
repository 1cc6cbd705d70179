use super::*;
use crate::protocol::account_name::AccountName;
use std::collections::BTreeSet;

fn leading() -> Metrics {
    let metrics = Metrics::new();
    metrics.set_leader(true);
    metrics.begin_to_lead();
    metrics
}

/// Everything that can be shown, is.
fn full() -> Metrics {
    let metrics = leading();
    let now = Some(Timestamp::now());
    let object = ObjectGauges {
        ready: Some(true),
        reason: "Issued".to_owned(),
        created_at: now,
        expires_at: now,
        renewal_at: now,
        last_used_at: now,
        in_use_since: now,
        ..ObjectGauges::default()
    };
    metrics.set_object("team", "key", object);
    metrics.set_admin_key(&AccountName::OF_FLAGS, AdminKeyState::Valid);
    metrics.set_admin_key_expiry(&AccountName::OF_FLAGS, now);
    metrics.set_watch_healthy("team", "secrets", true);
    metrics.set_orphaned_keys(&AccountName::OF_FLAGS, Some(0));
    let started_at = Timestamp::now();
    metrics.set_inventory(
        &AccountName::OF_FLAGS,
        PassGauges { keys: 1, is_doubtful: false, missing: 0, started_at },
    );
    metrics.set_waiting(&AccountName::OF_FLAGS, [("first", 0); 4]);
    metrics.set_clock_skew(0);
    metrics
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|known| known == line)
}

#[test]
fn an_object_that_is_gone_is_not_shown() {
    let metrics = leading();
    let show = |ready| metrics.set_object("team", "key", ObjectGauges { ready, ..ObjectGauges::default() });
    show(Some(true));
    assert!(has(&metrics.to_text(), r#"boltz_apikey_ready{namespace="team",name="key"} 1"#));
    show(None);
    assert!(!metrics.to_text().contains("boltz_apikey_ready"));
    metrics.forget("team", "key");
    assert!(!metrics.to_text().contains("team"));
    show(Some(true));
    metrics.begin_to_lead();
    assert!(!metrics.to_text().contains("team"));
    let metrics = metrics.per_object(false);
    metrics.set_object("team", "key", ObjectGauges::default());
    assert!(!metrics.to_text().contains("team"));
}

#[test]
fn a_reason_takes_the_place_of_another() {
    let metrics = leading();
    let show = |reason: &str| {
        let gauges = ObjectGauges { reason: reason.to_owned(), ..ObjectGauges::default() };
        metrics.set_object("team", "key", gauges);
        let text = metrics.to_text();
        text.lines().filter(|line| line.starts_with("boltz_apikey_status")).collect::<String>()
    };
    assert!(show("Pending").contains(r#"reason="Pending""#));
    assert_eq!(show("Issued"), r#"boltz_apikey_status{namespace="team",name="key",reason="Issued"} 1"#);
}

#[test]
fn a_process_that_does_not_lead_knows_nothing_of_objects_and_list() {
    let metrics = full();
    let series_of = |text: &str| -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    };
    assert!(series_of(&metrics.to_text()).contains("boltz_orphaned_keys"));
    metrics.set_leader(false);
    let text = metrics.to_text();
    for name in metrics.leaders.names() {
        assert!(!series_of(&text).contains(&format!("boltz_{name}")), "{name}");
    }
    assert!(has(&text, "boltz_leader 0"));
    // One that leads again begins anew, but for what it knows as a standby.
    metrics.set_leader(true);
    metrics.begin_to_lead();
    let text = metrics.to_text();
    assert!(!text.contains("boltz_apikey_ready") && !text.contains("boltz_inventory_keys"));
    assert!(has(&text, r#"boltz_admin_key_state{state="valid"} 1"#));
    assert!(has(&text, "boltz_inventory_age_seconds 0"));
}

#[test]
fn the_admin_key_has_one_state_once_it_is_known() {
    let metrics = leading();
    assert!(!metrics.to_text().contains("boltz_admin_key_state"));
    metrics.set_admin_key(&AccountName::OF_FLAGS, AdminKeyState::WrongOrganization);
    let text = metrics.to_text();
    let states: Vec<&str> = text.lines().filter(|line| line.starts_with("boltz_admin_key_state")).collect();
    assert_eq!(
        states,
        [
            r#"boltz_admin_key_state{state="valid"} 0"#,
            r#"boltz_admin_key_state{state="test_mode"} 0"#,
            r#"boltz_admin_key_state{state="refused"} 0"#,
            r#"boltz_admin_key_state{state="unreachable"} 0"#,
            r#"boltz_admin_key_state{state="wrong_organization"} 1"#,
        ]
    );
}

/// The series of the flags' account look as if there were no other.
#[test]
fn only_other_accounts_have_a_label() {
    let metrics = leading();
    let other = AccountName::named("other");
    metrics.set_orphaned_keys(&AccountName::OF_FLAGS, Some(1));
    metrics.set_orphaned_keys(&other, Some(2));
    metrics.set_waiting(&other, [("first", 3); 4]);
    let text = metrics.to_text();
    assert!(has(&text, "boltz_orphaned_keys 1"), "{text}");
    assert!(has(&text, r#"boltz_orphaned_keys{account="other"} 2"#), "{text}");
    assert!(has(&text, r#"boltz_mint_queue_length{account="other",class="first"} 3"#), "{text}");
    metrics.forget_account(&other);
    assert!(!metrics.to_text().contains("other"));
}

#[test]
fn counters_are_there_from_the_start_and_end_in_total() {
    let metrics = Metrics::new();
    let lines = |number: u32| {
        [
            format!(r#"boltz_apikey_issued_total{{reason="Initial"}} {number}"#),
            format!(r#"boltz_apikey_revoked_total{{reason="Stray"}} {number}"#),
            format!(r#"boltz_apikey_issue_failures_total{{reason="PolicyDenied"}} {number}"#),
            format!(r#"boltz_apikey_revoke_failures_total{{reason="BoltzRejected"}} {number}"#),
            format!("boltz_strays_revoked_total {number}"),
            format!(r#"boltz_api_requests_total{{operation="create",code="429"}} {number}"#),
        ]
    };
    let text = metrics.to_text();
    lines(0).iter().for_each(|line| assert!(has(&text, line), "{line} is not in\n{text}"));
    metrics.count_issued("Initial");
    metrics.count_revoked("Stray");
    metrics.count_issue_failed("PolicyDenied");
    metrics.count_revoke_failed("BoltzRejected");
    metrics.count_stray_revoked();
    metrics.boltz_call("create", "429", Duration::from_millis(3));
    let text = metrics.to_text();
    lines(1).iter().for_each(|line| assert!(has(&text, line), "{line} is not in\n{text}"));
}

#[test]
fn a_pause_that_boltz_asks_for_runs_out() {
    let metrics = Metrics::new();
    assert!(has(&metrics.to_text(), "boltz_api_retry_after_seconds 0"));
    metrics.set_retry_after(Duration::from_secs(3600));
    let text = metrics.to_text();
    let line = text.lines().find(|line| line.starts_with("boltz_api_retry_after_seconds")).unwrap();
    let seconds: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&seconds), "{line}");
}

/// The table in docs/reference/metrics.md has every metric, with its labels, and no others.
#[test]
fn the_reference_lists_every_metric() {
    let metrics = full();
    let mut text = String::new();
    metrics.write(Format::Classic, &mut text).unwrap();
    let reference = include_str!("../../../docs/reference/metrics.md");
    let rows: Vec<(&str, BTreeSet<&str>)> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(name, _)| name.starts_with("boltz_") || name.starts_with("process_"))
        .map(|(name, rest)| {
            let labels = rest.split(" | ").next().unwrap_or_default().split(", ");
            (name, labels.filter(|label| *label != "–").collect())
        })
        .collect();
    let mut documented: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    documented.sort_unstable();
    let mut known = metrics.names();
    known.sort_unstable();
    assert_eq!(documented, known);
    for (name, labels) in rows {
        let series =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
        let Some(line) = text.lines().find(series) else { panic!("{name} is not shown") };
        let shown = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
        let shown = shown.split(',').filter_map(|pair| pair.split_once('=')).map(|(label, _)| label);
        let shown: BTreeSet<&str> = shown.filter(|label| *label != "le").collect();
        assert_eq!(shown, labels, "{name}");
    }
}

#[test]
fn the_queue_is_shown_up_to_a_limit() {
    let metrics = Metrics::new();
    for name in ["b", "c", "a", "b"] {
        metrics.add_to_queue("team", name);
    }
    let object = |name: &str| ("team".to_owned(), name.to_owned());
    assert_eq!(metrics.queue(2), (3, vec![object("a"), object("b")]));
    metrics.remove_from_queue("team", "a");
    assert_eq!(metrics.queue(9), (2, vec![object("b"), object("c")]));
}

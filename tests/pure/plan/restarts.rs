//! Workloads that were restarted: what their rollouts mean, how often they are read, and which overlaps end because of them.

use boltz_operator::{
    api::{RestartState, RestartStatus},
    plan::{Doubt, RevokeReason, Rollout, Step, Workload},
};
use plan_world::{DAY, Fault, HOUR, MINUTE, Process, SECOND, World};
use serde_json::{Value as Json, json};
use std::time::Duration;

fn live(process: &mut Process, world: &mut World, by: Duration) {
    let until = world.elapsed + by;
    process.live_until(world, until);
}

/// A merge patch: null removes.
fn merge(into: &mut Json, from: &Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Json::Null), value);
            }
            into.retain(|_, value| !value.is_null());
        }
        (into, from) => *into = from.clone(),
    }
}

const KEY: &str = "key-2";

/// A workload that was restarted, of three pods, whose controller has seen it. With that change.
fn rollout(change: &Json) -> Rollout {
    let mut workload = json!({
        "metadata": {"generation": 7},
        "spec": {
            "replicas": 3,
            "template": {
                "metadata": {"annotations": {"boltz.bio/restarted-for": KEY}},
                "spec": {"terminationGracePeriodSeconds": 40, "containers": []},
            },
        },
        "status": {"observedGeneration": 7, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3},
    });
    merge(&mut workload, change);
    serde_json::from_value::<Workload>(workload).unwrap().rollout(KEY)
}

#[test]
fn what_a_rollout_means() {
    let done = || Rollout::Done(40 * SECOND);
    let paused =
        |rollout: &Rollout, words: &str| matches!(rollout, Rollout::Paused(why) if why.contains(words));
    let daemon = |desired: i32, updated: i32, available: i32| {
        json!({
            "spec": {"replicas": null},
            "status": {
                "replicas": 0, "updatedReplicas": 0, "availableReplicas": 0,
                "desiredNumberScheduled": desired, "updatedNumberScheduled": updated, "numberAvailable": available,
            },
        })
    };
    let rows = [
        ("all pods are new and available", json!({}), done()),
        (
            "scaled to nothing",
            json!({"spec": {"replicas": 0}, "status": {"replicas": 0, "updatedReplicas": 0, "availableReplicas": 0}}),
            done(),
        ),
        (
            "no number of pods means one",
            json!({"spec": {"replicas": null}, "status": {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}}),
            done(),
        ),
        ("an HPA makes more", json!({"spec": {"replicas": 4}}), Rollout::Progressing),
        ("the status is of an older template", json!({"metadata": {"generation": 8}}), Rollout::Restarted),
        (
            "nobody has looked at it",
            json!({"status": {"observedGeneration": 0, "replicas": 0}}),
            Rollout::Restarted,
        ),
        ("some pods are old", json!({"status": {"updatedReplicas": 2}}), Rollout::Progressing),
        ("an old pod is left over", json!({"status": {"replicas": 4}}), Rollout::Progressing),
        ("a new pod is not available", json!({"status": {"availableReplicas": 2}}), Rollout::Progressing),
        ("an old pod still ends", json!({"status": {"terminatingReplicas": 1}}), Rollout::Progressing),
        (
            "the template is another key's",
            json!({"spec": {"template": {"metadata": {"annotations": {"boltz.bio/restarted-for": "key-1"}}}}}),
            Rollout::ChangedBack,
        ),
        (
            "the template has no annotation",
            json!({"spec": {"template": {"metadata": null}}}),
            Rollout::ChangedBack,
        ),
        (
            "no grace period means half a minute",
            json!({"spec": {"template": {"spec": null}}}),
            Rollout::Done(30 * SECOND),
        ),
        (
            "it makes progress",
            json!({"status": {"updatedReplicas": 1, "conditions": [{"type": "Progressing", "reason": "ReplicaSetUpdated", "message": "x"}]}}),
            Rollout::Progressing,
        ),
        (
            "its time is over",
            json!({"status": {"updatedReplicas": 1, "conditions": [{"type": "Available"}, {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]}}),
            Rollout::Failed("timed out".to_owned()),
        ),
        (
            "its time was over, and it is done",
            json!({"status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]}}),
            done(),
        ),
        (
            "its time was over before this rotation",
            json!({"metadata": {"generation": 8}, "status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]}}),
            Rollout::Restarted,
        ),
        ("it is paused, and done", json!({"spec": {"paused": true}}), done()),
        ("somebody deleted all pods", json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}), done()),
        (
            "a partition below the first number",
            json!({"spec": {"ordinals": {"start": 5}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 5}}}, "status": {"updatedReplicas": 2}}),
            Rollout::Progressing,
        ),
        ("all nodes have new pods", daemon(5, 5, 5), done()),
        ("no node wants one", daemon(0, 0, 0), done()),
        ("a node has an old pod", daemon(5, 4, 5), Rollout::Progressing),
        ("a node has a pod that is not available", daemon(5, 5, 4), Rollout::Progressing),
    ];
    for (what, change, expected) in rows {
        assert_eq!(rollout(&change), expected, "{what}");
    }
    // These are said at once, before any controller has looked.
    for observed in [6, 7] {
        let status = json!({"observedGeneration": observed, "updatedReplicas": 1});
        let rows = [
            ("paused is true", json!({"paused": true})),
            ("OnDelete", json!({"updateStrategy": {"type": "OnDelete"}})),
            (
                "partition 2",
                json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
            ),
        ];
        for (words, spec) in rows {
            let shown = rollout(&json!({"spec": spec, "status": status}));
            assert!(paused(&shown, words), "{words}: {shown:?}");
        }
    }
    let mut daemon = daemon(3, 1, 3);
    merge(&mut daemon, &json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
    assert!(paused(&rollout(&daemon), "OnDelete"));
}

fn targets() -> Json {
    json!([{"kind": "Deployment", "name": "web"}, {"kind": "StatefulSet", "name": "db"}])
}

/// An object whose key is replaced after two hours; its workloads show that after the restart.
fn rotated(policy: &str, rollout: Rollout) -> (World, Process) {
    let spec =
        json!({"rolloutRestartTargets": targets(), "rotation": {"overlap": "24h", "overlapPolicy": policy}});
    let (mut world, mut process) = World::ready(spec);
    live(&mut process, &mut world, 2 * HOUR);
    world.rollout = rollout;
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.reconcile(&mut world);
    (world, process)
}

fn set(world: &mut World, target: &str, rollout: Rollout) {
    world.workloads.get_mut(target).unwrap().1 = rollout;
}

fn states(world: &World) -> Vec<RestartState> {
    let restarts = &world.object().status.restarts;
    assert!(restarts.iter().all(|restart| restart.key_id == "key-2"), "{restarts:?}");
    restarts.iter().map(|restart| restart.state).collect()
}

#[test]
fn the_status_says_how_far_each_restart_is() {
    use RestartState::{Done, Failed, Paused, Progressing, Restarted};
    let (mut world, mut process) = rotated("Strict", Rollout::Restarted);
    assert_eq!(states(&world), [Restarted, Restarted], "in the write that names the key");
    let writes = world.counts.status_writes;
    live(&mut process, &mut world, 3 * SECOND);
    assert_eq!(world.counts.status_writes, writes, "nothing new");
    set(&mut world, "Deployment web", Rollout::Progressing);
    set(&mut world, "StatefulSet db", Rollout::Paused("OnDelete".to_owned()));
    live(&mut process, &mut world, 5 * SECOND);
    assert_eq!(states(&world), [Progressing, Paused]);
    assert_eq!(world.object().status.restarts[1].message.as_deref(), Some("OnDelete"));
    set(&mut world, "Deployment web", Rollout::Failed("its time is over".to_owned()));
    live(&mut process, &mut world, MINUTE);
    assert_eq!(states(&world), [Failed, Paused]);
    set(&mut world, "Deployment web", Rollout::Done(SECOND));
    world.workloads.remove("StatefulSet db");
    live(&mut process, &mut world, 10 * MINUTE);
    assert_eq!(states(&world), [Done, Failed]);
    assert_eq!(world.counts.status_writes, writes + 3);
    // The next rotation begins anew; a target that is not asked for any more is not listed.
    world.edit_spec(json!({"rolloutRestartTargets": [{"kind": "Deployment", "name": "web"}]}));
    world.edit(|object| object.rotate = Some("2".to_owned()));
    process.reconcile(&mut world);
    let restarts = &world.object().status.restarts;
    assert_eq!((restarts.len(), restarts[0].key_id.as_str(), restarts[0].state), (1, "key-3", Restarted));
}

#[test]
fn a_workload_that_does_not_exist_is_not_asked_about_again() {
    let missing = |step: &Step| matches!(step, Step::RestartWorkload { .. }).then_some(Fault::NotFound);
    let (mut world, mut process) = World::ready(json!({"rolloutRestartTargets": targets()}));
    world.edit(|object| object.rotate = Some("1".to_owned()));
    process.reconcile_with(&mut world, &mut { missing }).unwrap();
    assert_eq!(states(&world), [RestartState::Failed; 2]);
    assert_eq!(world.object().status.restarts[0].message.as_deref(), Some("It does not exist."));
    let calls = world.counts.api_calls;
    live(&mut process, &mut world, 2 * HOUR);
    assert_eq!(world.counts.api_calls, calls);
}

/// The API server drops the list. It is not written again and again, and the overlap ends as it should.
#[test]
fn an_older_crd_has_no_list() {
    let spec = json!({"rolloutRestartTargets": targets(), "rotation": {"overlapPolicy": "UntilIdle"}});
    let (mut world, mut process) = World::ready(spec);
    process.memory.lacks_value_sha256 = true;
    world.rollout = Rollout::Progressing;
    world.edit(|object| object.rotate = Some("1".to_owned()));
    live(&mut process, &mut world, 2 * DAY);
    assert!(world.object().status.restarts.is_empty());
    assert_eq!(world.active(), ["key-1", "key-2"]);
    for target in ["Deployment web", "StatefulSet db"] {
        set(&mut world, target, Rollout::Done(SECOND));
    }
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.active(), ["key-2"]);
}

#[test]
fn reads_become_rare_and_end() {
    let (mut world, mut process) = rotated("Strict", Rollout::Progressing);
    let calls = world.counts.api_calls;
    live(&mut process, &mut world, HOUR);
    let first_hour = world.counts.api_calls - calls;
    assert!((12..=24).contains(&first_hour), "{first_hour} calls in the first hour");
    live(&mut process, &mut world, 10 * HOUR);
    let later = world.counts.api_calls - calls - first_hour;
    assert!((40..=70).contains(&later), "{later} calls in ten hours");
    // Without a previous key they are rarer still.
    live(&mut process, &mut world, 14 * HOUR);
    assert!(world.object().status.previous_keys.is_empty());
    let calls = world.counts.api_calls;
    live(&mut process, &mut world, DAY);
    let per_day = world.counts.api_calls - calls;
    assert!((10..=30).contains(&per_day), "{per_day} calls in a day");
    for target in ["Deployment web", "StatefulSet db"] {
        set(&mut world, target, Rollout::Done(SECOND));
    }
    live(&mut process, &mut world, 3 * HOUR);
    assert_eq!(states(&world), [RestartState::Done; 2]);
    let calls = world.counts.api_calls;
    let mut other = Process::start_other(&world, 9);
    live(&mut process, &mut world, 3 * HOUR);
    live(&mut other, &mut world, 3 * HOUR);
    assert_eq!(world.counts.api_calls, calls, "not even after a restart of the operator");
}

#[test]
fn another_process_goes_on_where_the_first_ended() {
    let (mut world, _) = rotated("Strict", Rollout::Progressing);
    let mut other = Process::start_other(&world, 9);
    other.reconcile(&mut world);
    assert_eq!(states(&world), [RestartState::Progressing; 2], "it reads them at once, and restarts nothing");
    for target in ["Deployment web", "StatefulSet db"] {
        set(&mut world, target, Rollout::Done(SECOND));
    }
    live(&mut other, &mut world, MINUTE);
    assert_eq!(states(&world), [RestartState::Done; 2]);
}

#[test]
fn a_workload_that_cannot_be_read_is_said_in_the_list_and_nowhere_else() {
    let (mut world, mut process) = rotated("Strict", Rollout::Done(SECOND));
    let cut = &mut |step: &Step| matches!(step, Step::ReadRollout { .. }).then_some(Fault::Cut);
    let until = world.elapsed + 3 * SECOND;
    process.live_with(&mut world, until, cut).unwrap();
    assert_eq!(world.object().status.restarts[0].message, None, "not for a moment");
    let until = world.elapsed + MINUTE;
    process.live_with(&mut world, until, cut).unwrap();
    let message = world.object().status.restarts[0].message.clone().unwrap();
    assert!(message.contains("cannot be read: the API server says Unknown"), "{message}");
    let conditions = &world.object().status.conditions;
    assert!(conditions.iter().all(|condition| (condition.type_ == "Ready") == (condition.status == "True")));
    live(&mut process, &mut world, 10 * MINUTE);
    assert_eq!(states(&world), [RestartState::Done; 2]);
}

#[test]
fn under_until_idle_a_restart_that_has_not_ended_is_use() {
    let holds = [
        Rollout::Restarted,
        Rollout::Progressing,
        Rollout::Paused("OnDelete".to_owned()),
        Rollout::Failed("its time is over".to_owned()),
    ];
    for rollout in holds {
        let (mut world, mut process) = rotated("UntilIdle", rollout.clone());
        live(&mut process, &mut world, 2 * DAY);
        assert_eq!(world.active(), ["key-1", "key-2"], "{rollout:?}");
        assert_eq!(world.ready_reason(), "PreviousKeyStillUsed");
        let ready = &world.object().status.conditions[0].message;
        assert!(ready.contains("has not ended: Deployment web, StatefulSet db."), "{ready}");
        // Another process has not seen it itself.
        let mut other = Process::start_other(&world, 9);
        live(&mut other, &mut world, HOUR);
        assert_eq!(world.active(), ["key-1", "key-2"], "{rollout:?}");
        set(&mut world, "Deployment web", Rollout::Done(SECOND));
        live(&mut other, &mut world, HOUR);
        assert_eq!(world.active(), ["key-1", "key-2"], "{rollout:?}, one of two");
        set(&mut world, "StatefulSet db", Rollout::Done(SECOND));
        live(&mut other, &mut world, HOUR);
        assert_eq!(world.active(), ["key-2"], "{rollout:?}");
        assert_eq!(world.ready_reason(), "Issued");
    }
    // Nothing runs there, or nobody can say what does: Boltz's list decides alone.
    for rollout in [Rollout::ChangedBack, Rollout::Missing] {
        let (mut world, mut process) = rotated("UntilIdle", rollout.clone());
        live(&mut process, &mut world, DAY + 20 * MINUTE);
        assert_eq!(world.active(), ["key-2"], "{rollout:?}");
    }
}

#[test]
fn under_until_idle_a_restart_that_is_pending_is_use() {
    let refused = &mut |step: &Step| matches!(step, Step::RestartWorkload { .. }).then_some(Fault::Refused);
    let spec = json!({"rolloutRestartTargets": targets(), "rotation": {"overlapPolicy": "UntilIdle"}});
    let (mut world, mut process) = World::ready(spec);
    world.edit(|object| object.rotate = Some("1".to_owned()));
    let until = world.elapsed + 2 * DAY;
    process.live_with(&mut world, until, refused).unwrap();
    assert_eq!(world.active(), ["key-1", "key-2"]);
    assert_eq!(world.object().status.pending_restarts.len(), 2);
    live(&mut process, &mut world, 2 * HOUR);
    assert_eq!(world.active(), ["key-2"]);
}

#[test]
fn under_until_idle_a_workload_that_the_operator_may_not_restart_or_read_delays_nothing() {
    let may_not_restart = |step: &Step| matches!(step, Step::RestartWorkload { .. });
    let may_not_read = |step: &Step| matches!(step, Step::ReadRollout { .. });
    for may_not in [may_not_restart, may_not_read] {
        let spec = json!({"rolloutRestartTargets": targets(), "rotation": {"overlapPolicy": "UntilIdle"}});
        let (mut world, mut process) = World::ready(spec);
        world.edit(|object| object.rotate = Some("1".to_owned()));
        let until = world.elapsed + 23 * HOUR;
        let forbidden = &mut |step: &Step| may_not(step).then_some(Fault::Forbidden);
        process.live_with(&mut world, until, forbidden).unwrap();
        assert_eq!(world.active(), ["key-1", "key-2"], "the overlap");
        let until = world.elapsed + 2 * HOUR;
        process.live_with(&mut world, until, forbidden).unwrap();
        assert_eq!(world.active(), ["key-2"], "nobody has used the old one");
    }
}

/// When the old key was revoked, counted from the rotation.
fn revoked_after(world: &mut World, process: &mut Process) -> Duration {
    let begin = world.elapsed;
    while world.active().len() > 1 {
        assert!(world.elapsed < begin + 2 * DAY, "it is never revoked");
        live(process, world, 10 * SECOND);
    }
    world.elapsed - begin
}

#[test]
fn until_rolled_out_ends_the_overlap_when_all_pods_are_new_and_the_key_is_idle() {
    let done = Rollout::Done(30 * SECOND);
    // The new attempt settles after three minutes, which is the longest of what is awaited.
    let (mut world, mut process) = rotated("UntilRolledOut", done.clone());
    let after = revoked_after(&mut world, &mut process);
    assert!((3 * MINUTE..=4 * MINUTE).contains(&after), "{after:?}");
    assert_eq!(world.key("key-1").reason, Some(RevokeReason::RolledOut));
    live(&mut process, &mut world, HOUR);
    world.assert_good();
    assert!(world.object().status.previous_keys.is_empty());

    // Pods that end slowly are waited for.
    let (mut world, mut process) = rotated("UntilRolledOut", Rollout::Done(20 * MINUTE));
    let after = revoked_after(&mut world, &mut process);
    assert!((20 * MINUTE..=21 * MINUTE).contains(&after), "{after:?}");

    // A rollout that takes long, and another one that is there from the beginning.
    let (mut world, mut process) = rotated("UntilRolledOut", Rollout::Progressing);
    set(&mut world, "StatefulSet db", done.clone());
    live(&mut process, &mut world, 3 * HOUR);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    set(&mut world, "Deployment web", done.clone());
    let after = revoked_after(&mut world, &mut process);
    assert!((2 * MINUTE..=25 * MINUTE).contains(&after), "{after:?}");

    // Somebody else uses the key.
    let (mut world, mut process) = rotated("UntilRolledOut", done.clone());
    live(&mut process, &mut world, 2 * MINUTE);
    world.key("key-1").last_used_at = Some(world.true_time());
    let after = revoked_after(&mut world, &mut process);
    assert!((HOUR..=HOUR + MINUTE).contains(&after), "{after:?}");
}

/// In each of these the overlap is as long as it can be.
#[test]
fn until_rolled_out_ends_no_overlap_without_proof() {
    type Change = fn(&mut World, &mut Process);
    let done = || Rollout::Done(30 * SECOND);
    let rows: [(&str, Rollout, Change); 14] = [
        ("it goes on", Rollout::Progressing, |_, _| {}),
        ("it has not begun", Rollout::Restarted, |_, _| {}),
        ("OnDelete", Rollout::Paused("OnDelete".to_owned()), |_, _| {}),
        ("it has failed", Rollout::Failed("late".to_owned()), |_, _| {}),
        ("it was changed back", Rollout::ChangedBack, |_, _| {}),
        ("it cannot be read", Rollout::Unreadable("forbidden".to_owned()), |_, _| {}),
        ("one of two goes on", done(), |world, _| set(world, "StatefulSet db", Rollout::Progressing)),
        ("one of two is gone", done(), |world, _| drop(world.workloads.remove("StatefulSet db"))),
        ("one of two loads an older key", done(), |world, _| {
            world.workloads.get_mut("StatefulSet db").unwrap().0 = "key-1".to_owned();
        }),
        ("a target was added", done(), |world, _| {
            let mut targets = targets();
            targets.as_array_mut().unwrap().push(json!({"kind": "DaemonSet", "name": "late"}));
            let rotation = json!({"overlap": "24h", "overlapPolicy": "UntilRolledOut"});
            world.edit_spec(json!({"rolloutRestartTargets": targets, "rotation": rotation}));
        }),
        ("there are no targets", done(), |world, _| {
            world.edit_spec(json!({"rotation": {"overlap": "24h", "overlapPolicy": "UntilRolledOut"}}));
        }),
        ("the policy is another one now", done(), |world, _| {
            world.edit_spec(json!({"rolloutRestartTargets": targets(), "rotation": {"overlap": "24h"}}));
        }),
        ("no list is believed", done(), |world, _| world.doubt = Doubt::Many),
        ("the status is forged", Rollout::Progressing, |world, process| {
            live(process, world, MINUTE);
            world.edit(|object| {
                object.status.restarts.iter_mut().for_each(|restart| restart.state = RestartState::Done);
            });
            // This process has seen nothing itself.
            *process = Process::start_other(world, 9);
        }),
    ];
    for (what, rollout, change) in rows {
        let (mut world, mut process) = rotated("UntilRolledOut", rollout);
        change(&mut world, &mut process);
        live(&mut process, &mut world, 23 * HOUR + 58 * MINUTE);
        assert_eq!(world.active(), ["key-1", "key-2"], "{what}");
        world.doubt = Doubt::None;
        live(&mut process, &mut world, 3 * MINUTE);
        assert_eq!(world.active(), ["key-2"], "{what}: the overlap is the longest");
        assert_eq!(world.key("key-1").reason, Some(RevokeReason::OverlapOver), "{what}");
    }
}

#[test]
fn until_rolled_out_survives_a_restart_of_the_operator() {
    let (mut world, mut process) = rotated("UntilRolledOut", Rollout::Progressing);
    live(&mut process, &mut world, 10 * MINUTE);
    set(&mut world, "Deployment web", Rollout::Done(SECOND));
    set(&mut world, "StatefulSet db", Rollout::Done(SECOND));
    // The second process reads what the status says is not done, the third what it says is done.
    for seed in [7, 8] {
        process = Process::start_other(&world, seed);
        process.reconcile(&mut world);
        assert_eq!(states(&world), [RestartState::Done; 2]);
        assert_eq!(world.active(), ["key-1", "key-2"]);
    }
    let after = revoked_after(&mut world, &mut process);
    assert!((2 * MINUTE..=4 * MINUTE).contains(&after), "{after:?}: by what it saw itself");
}

/// A pause keeps the key; and the wall clock has no part in it.
#[test]
fn until_rolled_out_waits_while_paused_and_ignores_steps_of_the_clock() {
    let (mut world, mut process) = rotated("UntilRolledOut", Rollout::Done(SECOND));
    world.edit(|object| object.is_paused = true);
    live(&mut process, &mut world, HOUR);
    assert_eq!(world.active(), ["key-1", "key-2"]);
    world.edit(|object| object.is_paused = false);
    live(&mut process, &mut world, 2 * MINUTE);
    assert_eq!(world.active(), ["key-2"]);
    for step in [-20 * 3600, 3600] {
        let (mut world, mut process) = rotated("UntilRolledOut", Rollout::Progressing);
        world.clock_error = step;
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.active(), ["key-1", "key-2"], "{step}");
        set(&mut world, "Deployment web", Rollout::Done(SECOND));
        set(&mut world, "StatefulSet db", Rollout::Done(SECOND));
        live(&mut process, &mut world, HOUR);
        assert_eq!(world.active(), ["key-2"], "{step}");
    }
}

/// What a later release may write, this one reads as far as it knows it.
#[test]
fn entries_of_a_later_release_do_not_hide_the_status() {
    let known = json!({"kind": "Deployment", "name": "web", "keyID": "key-2", "state": "Done", "later": 1});
    let status: boltz_operator::api::BoltzApiKeyStatus = serde_json::from_value(json!({
        "keyID": "key-2",
        "restarts": [
            {"kind": "Deployment", "name": "api", "keyID": "key-2", "state": "Dreaming"},
            {"kind": "Rollout", "name": "x", "keyID": "key-2", "state": "Done"},
            known,
        ],
    }))
    .unwrap();
    let read: RestartStatus = serde_json::from_value(known).unwrap();
    assert_eq!((status.key_id.as_deref(), status.restarts), (Some("key-2"), vec![read]));
}

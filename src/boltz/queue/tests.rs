use super::*;
use std::time::Duration;

fn at(milliseconds: u64) -> Monotonic {
    Monotonic(Duration::from_millis(milliseconds))
}

fn limits(per_minute: u32, per_namespace: Option<u32>) -> MintLimits {
    MintLimits { per_minute, per_namespace, at_once: 10_000 }
}

fn waiter(uid: &str, namespace: &str, class: Class) -> Waiter {
    let (uid, namespace) = (uid.to_owned(), namespace.to_owned());
    Waiter { name: uid.clone(), uid, namespace, workspace: None, class }
}

/// A queue with a token for each of them.
fn queue(waiters: &[(&str, &str, Class)]) -> MintQueue {
    let mut queue = MintQueue::new(limits(6000, None), at(0));
    for (uid, namespace, class) in waiters {
        queue.join(waiter(uid, namespace, *class));
    }
    queue
}

/// Who gets the turns now, in order.
fn granted(queue: &mut MintQueue, now: Monotonic) -> Vec<String> {
    std::iter::from_fn(|| queue.grant(now, |_| true).map(|waiter| waiter.uid.clone())).collect()
}

#[test]
fn whose_turn_comes_first() {
    use Class::{First, Renewal, RotateNow, Rotation};
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str, Class)], &'a str);
    let rows: &[Row] = &[
        ("first come", &[("a1", "a", First), ("a2", "a", First)], "a1 a2"),
        (
            "the most urgent of a namespace",
            &[("a1", "a", First), ("a2", "a", Rotation), ("a3", "a", Renewal), ("a4", "a", RotateNow)],
            "a4 a3 a2 a1",
        ),
        (
            "namespaces take turns",
            &[("a1", "a", First), ("a2", "a", First), ("a3", "a", First), ("b1", "b", First)],
            "a1 b1 a2 a3",
        ),
        (
            "a namespace that comes later waits for those before it, and not for all their objects",
            &[("a1", "a", First), ("a2", "a", First), ("b1", "b", First), ("c1", "c", First)],
            "a1 b1 c1 a2",
        ),
        (
            "every second token is for a rotate-now of any namespace",
            &[
                ("a1", "a", First),
                ("b1", "b", First),
                ("c1", "c", First),
                ("d1", "d", First),
                ("e1", "e", First),
                ("z1", "z", RotateNow),
                ("z2", "z", RotateNow),
                ("y1", "y", RotateNow),
            ],
            "a1 z1 b1 y1 c1 z2 d1 e1",
        ),
    ];
    for (what, waiters, expected) in rows {
        assert_eq!(granted(&mut queue(waiters), at(0)).join(" "), *expected, "{what}");
    }
}

#[test]
fn a_thousand_rotate_nows_starve_nobody() {
    let mut queue = MintQueue::new(limits(600, None), at(0));
    granted(&mut queue, at(0));
    for number in 0..1000 {
        queue.join(waiter(&format!("leak-{number}"), "leaks", Class::RotateNow));
    }
    let mut now = at(0);
    let mut waited = |queue: &mut MintQueue, uid: &str, namespace: &str, class| {
        queue.join(waiter(uid, namespace, class));
        let since = now;
        loop {
            now = queue.next_at(now).unwrap();
            if granted(queue, now).contains(&uid.to_owned()) {
                return now.since(since);
            }
        }
    };
    // The queue begins with 60 tokens, which the first leaks take.
    granted(&mut queue, at(0));
    assert!(waited(&mut queue, "new", "other", Class::First) <= Duration::from_millis(300));
    assert!(waited(&mut queue, "leak", "other", Class::RotateNow) <= Duration::from_millis(300));
}

#[test]
fn a_new_leader_has_a_tenth_of_a_minute_and_a_full_bucket_a_whole_one() {
    for (per_minute, tenth) in [(1, 1), (5, 1), (120, 12), (1200, 120)] {
        let many: Vec<Waiter> =
            (0..3000).map(|number| waiter(&number.to_string(), "a", Class::First)).collect();
        let mut queue = MintQueue::new(limits(per_minute, None), at(7000));
        many.into_iter().for_each(|waiter| queue.join(waiter));
        assert_eq!(granted(&mut queue, at(7000)).len(), tenth, "{per_minute}");
        let spacing = Duration::from_secs(60) / per_minute;
        assert_eq!(
            queue.next_at(at(7000)),
            Some(at(7000).plus(spacing)).filter(|_| per_minute > 12).or(
                // The end of the turn that was given comes before the next token.
                Some(at(12_000))
            )
        );
        queue.lost(at(3_600_000));
        granted(&mut queue, at(3_600_000));
        assert_eq!(granted(&mut queue, at(7_200_000)).len(), per_minute as usize, "{per_minute}");
    }
}

#[test]
fn what_becomes_of_a_turn() {
    let only = |queue: &mut MintQueue, now| granted(queue, now).len();
    // One token at once, the next after a minute.
    let one = || {
        let mut queue = MintQueue::new(limits(1, None), at(0));
        queue.join(waiter("x", "a", Class::First));
        queue.join(waiter("y", "b", Class::First));
        assert_eq!(only(&mut queue, at(0)), 1);
        queue
    };
    let mut spent = one();
    assert!(spent.begin("x").is_some() && spent.leave("x").is_none());
    assert!(spent.end("x", true).is_some());
    assert_eq!(only(&mut spent, at(59_999)), 0);
    assert_eq!(only(&mut spent, at(60_000)), 1);
    let mut left = one();
    assert!(left.leave("x").is_some());
    assert_eq!(granted(&mut left, at(0)), ["y"], "the token is given back");
    let mut postponed = one();
    postponed.postpone("x");
    assert_eq!(postponed.len(), 2);
    assert_eq!(granted(&mut postponed, at(0)), ["y"], "its namespace had its turn");
    let mut refused = one();
    refused.begin("x");
    refused.end("x", false);
    assert_eq!(only(&mut refused, at(0)), 1);
    let mut untold = one();
    assert_eq!(untold.with_news().map(|waiter| waiter.uid.as_str()).collect::<Vec<_>>(), ["x"]);
    assert_eq!(untold.lost(at(4999)).len(), 0);
    assert_eq!(untold.lost(at(5000)).len(), 1);
    assert_eq!(granted(&mut untold, at(5000)), ["y"]);
    let mut told = one();
    assert!(told.turn("x", at(4000)).is_some() && told.with_news().next().is_none());
    assert_eq!(told.lost(at(63_999)).len(), 0, "it may be in the middle of a dry run");
    assert_eq!(told.lost(at(64_000)).len(), 1);
    let mut reminded = one();
    reminded.turn("x", at(0));
    reminded.remind();
    assert_eq!(reminded.with_news().map(|waiter| waiter.uid.as_str()).collect::<Vec<_>>(), ["y"]);
    reminded.join(waiter("y", "b", Class::First));
    assert_eq!(reminded.with_news().count(), 0);
}

#[test]
fn who_asks_again_keeps_its_place() {
    let mut queue = queue(&[("x", "a", Class::First), ("y", "a", Class::First)]);
    queue.join(waiter("x", "a", Class::First));
    queue.join(waiter("y", "a", Class::Rotation));
    queue.join(waiter("y", "a", Class::First));
    assert_eq!(granted(&mut queue, at(0)), ["x", "y"]);
    assert_eq!((queue.len(), queue.all.order.len(), queue.leaks.order.len()), (0, 0, 0));
}

#[test]
fn a_namespace_may_have_a_limit_of_its_own() {
    let mut queue = MintQueue::new(limits(6000, Some(60)), at(0));
    for number in 0..20 {
        queue.join(waiter(&format!("a{number}"), "a", Class::RotateNow));
    }
    queue.join(waiter("b", "b", Class::First));
    let first = granted(&mut queue, at(0));
    assert_eq!((first.len(), first.contains(&"b".to_owned())), (7, true), "a tenth of 60, and another's");
    assert_eq!(queue.next_at(at(0)), Some(at(1000)));
    assert_eq!(granted(&mut queue, at(1000)).len(), 1);
}

#[test]
fn what_hangs_leaves_room_for_others() {
    let mut queue = MintQueue::new(MintLimits { at_once: 2, ..limits(6000, None) }, at(0));
    let add = |queue: &mut MintQueue, uid: &str, namespace: &str, workspace: &str| {
        let workspace = Some(workspace.to_owned());
        queue.join(Waiter { workspace, ..waiter(uid, namespace, Class::First) });
    };
    for number in 0..5 {
        add(&mut queue, &format!("n{number}"), "hangs", &format!("any-{number}"));
        add(&mut queue, &format!("w{number}"), &format!("any-{number}"), "hangs");
    }
    add(&mut queue, "x", "other", "other");
    assert_eq!(granted(&mut queue, at(0)), ["n0", "w0", "w1", "x"]);
    queue.begin("n0");
    assert_eq!(granted(&mut queue, at(0)).len(), 0, "it may be in flight");
    queue.end("n0", true);
    assert_eq!(granted(&mut queue, at(0)), ["n1"]);
    queue.leave("w0");
    assert_eq!(granted(&mut queue, at(0)), ["w2"]);
    queue.lost(at(100_000));
    assert!(queue.turns.is_empty());
}

#[test]
fn one_namespace_leaves_room_in_a_workspace_that_all_share() {
    let mut queue = MintQueue::new(MintLimits { at_once: 4, ..limits(6000, None) }, at(0));
    for number in 0..5 {
        queue.join(waiter(&format!("n{number}"), "hangs", Class::First));
    }
    queue.join(waiter("x", "other", Class::First));
    assert_eq!(granted(&mut queue, at(0)), ["n0", "x", "n1"]);
}

#[test]
fn a_closed_workspace_holds_up_nobody_else() {
    let mut queue = MintQueue::new(limits(6000, None), at(0));
    let of = |workspace: &str, uid: &str| Waiter {
        workspace: Some(workspace.to_owned()),
        ..waiter(uid, "a", Class::First)
    };
    queue.join(of("bad", "x"));
    queue.join(of("good", "y"));
    queue.join(waiter("z", "a", Class::First));
    let open = |workspace: Option<&str>| workspace != Some("bad");
    let mut next = || queue.grant(at(0), open).map(|waiter| waiter.uid.clone());
    assert_eq!([next(), next(), next()], [Some("y".to_owned()), Some("z".to_owned()), None]);
}

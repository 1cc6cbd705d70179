//! Protects against a list that lies: if a pass suddenly lacks many keys, its absences are not believed for some time.

use super::snapshot::Snapshot;
use crate::plan::{Doubt, Monotonic, Now};
use jiff::Timestamp;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

/// So many keys, or this share of them, may go missing within this time without doubt.
const MAX_MISSING: usize = 3;
const MAX_MISSING_SHARE: usize = 10;
const MISSING_TIME: Duration = Duration::from_secs(3600);
/// So many passes over so long a time have to agree before a doubtful absence is believed.
const AGREEING_PASSES: u32 = 3;
const AGREEING_TIME: Duration = Duration::from_secs(3600);

/// What earlier passes showed, compared with each new pass.
#[derive(Debug, Default)]
pub struct Fuse {
    /// The keys that believed passes showed as active, less our own revocations, with their expiry.
    active: HashMap<String, Option<Timestamp>>,
    /// Number of keys that this process revoked.
    revoked: usize,
    /// Keys that this process revoked and that a pass may have read before.
    just_revoked: HashSet<String>,
    /// Keys that this process may have revoked.
    perhaps_revoked: HashSet<String>,
    /// Number of active keys that an earlier process saw and that this process has not seen yet. `None`: not read yet.
    remembered: Option<usize>,
    suspicion: Option<Suspicion>,
    /// How many keys went missing without doubt, and when.
    lost: VecDeque<(Monotonic, usize)>,
}

/// Consecutive passes that lack the same keys.
#[derive(Clone, Debug)]
struct Suspicion {
    missing: BTreeSet<String>,
    unseen: usize,
    since: Monotonic,
    passes: u32,
}

/// The judgment of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgment {
    /// What the pass does not prove.
    pub doubt: Doubt,
    /// Keys that earlier passes showed as active and this one does not, without our own revocations and expired keys.
    pub missing: usize,
    /// Keys that should be active: what `missing` is a part of.
    pub expected: usize,
}

impl Fuse {
    /// Tells how many active keys the process before this one saw last. Only the first time counts.
    pub fn remember(&mut self, active_keys: usize) {
        self.remembered.get_or_insert(active_keys);
    }

    /// Call after a revocation by this process whose result is not known: a pass that shows the key as inactive proves it. One
    /// that does not show the key at all may be wrong.
    pub fn record_possible_revocation(&mut self, id: &str) {
        self.perhaps_revoked.insert(id.to_owned());
    }

    /// Call after a successful revocation by this process.
    pub fn record_revocation(&mut self, id: &str) {
        self.revoked += usize::from(self.active.remove(id).is_some());
        self.just_revoked.insert(id.to_owned());
        self.perhaps_revoked.remove(id);
    }

    /// The number of keys that should be active: worth remembering for the next process.
    pub fn expected(&self) -> usize {
        self.active.len() + self.unseen(0)
    }

    fn unseen(&self, new: usize) -> usize {
        self.remembered.unwrap_or_default().saturating_sub(self.active.len() + self.revoked + new)
    }

    /// Compares a complete pass with what earlier ones showed. A person may have confirmed that so many keys are gone.
    pub fn judge(&mut self, pass: &Snapshot, confirmed: usize, now: Now) -> Judgment {
        for key in pass.keys().filter(|key| !key.is_active_at(now.wall)) {
            if self.perhaps_revoked.contains(&key.id) {
                self.record_revocation(&key.id);
            }
        }
        let mut shown: HashMap<String, Option<Timestamp>> =
            pass.active_keys(now.wall).map(|key| (key.id.clone(), key.expires_at)).collect();
        self.just_revoked.retain(|id| shown.contains_key(id));
        shown.retain(|id, _| !self.just_revoked.contains(id));
        self.active.retain(|_, expires_at| expires_at.is_none_or(|expires_at| now.wall < expires_at));
        let missing: BTreeSet<String> =
            self.active.keys().filter(|id| !shown.contains_key(*id)).cloned().collect();
        let new = shown.keys().filter(|id| !self.active.contains_key(*id)).count();
        let unseen = self.unseen(new);
        // Of the new keys, the process before this one may have seen some.
        let remembered = unseen + new.min(self.unseen(0));
        let (lacks, expected) = (missing.len() + unseen, self.active.len() + remembered);
        self.lost.retain(|(at, _)| now.monotonic.since(*at) < MISSING_TIME);
        let lost: usize = self.lost.iter().map(|(_, count)| count).sum();
        let are_many = |lacks: usize, expected: usize| lacks > MAX_MISSING.max(expected / MAX_MISSING_SHARE);
        let doubt = if are_many(lacks, expected) {
            Doubt::Many
        } else if lacks > 0 && lacks == expected {
            Doubt::All
        } else if lacks > 0 && are_many(lacks + lost, expected + lost) {
            Doubt::Many
        } else {
            Doubt::None
        };
        let is_small = doubt == Doubt::None;
        let doubt = if is_small || lacks <= confirmed || self.agrees(&missing, unseen, now) {
            self.active.retain(|id, _| !missing.contains(id));
            self.remembered = Some(0);
            self.suspicion = None;
            match is_small && lacks > 0 {
                true => self.lost.push_back((now.monotonic, lacks)),
                // Somebody, or three passes, said that so many keys are gone.
                false if !is_small => self.lost.clear(),
                false => {}
            }
            Doubt::None
        } else {
            doubt
        };
        self.active.extend(shown);
        Judgment { doubt, missing: lacks, expected }
    }

    /// Whether enough passes have shown the same for long enough. A pass that lacks other keys begins anew.
    fn agrees(&mut self, missing: &BTreeSet<String>, unseen: usize, now: Now) -> bool {
        let same = self
            .suspicion
            .as_ref()
            .filter(|before| missing.is_subset(&before.missing) && unseen <= before.unseen);
        let (since, passes) = same.map_or((now.monotonic, 0), |before| (before.since, before.passes));
        let passes = passes + 1;
        self.suspicion = Some(Suspicion { missing: missing.clone(), unseen, since, passes });
        passes >= AGREEING_PASSES && now.monotonic.since(since) >= AGREEING_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boltz::{cluster_names::ClusterNames, types::KeyDetails},
        protocol::marker::{AttemptId, MarkerFormat, ObjectMark},
    };
    use serde_json::json;

    const MINUTE: u64 = 60;

    fn at(seconds: u64) -> Now {
        let since_start = Duration::from_secs(seconds);
        let wall = Timestamp::UNIX_EPOCH.checked_add(since_start).unwrap();
        Now { wall, monotonic: Monotonic(since_start) }
    }

    fn key(number: u64, is_active: bool) -> KeyDetails {
        let name = names().marker(ObjectMark::from_uid("uid"), AttemptId::from_random(number)).to_string();
        let row = json!({"id": format!("key_{number}"), "name": name, "is_active": is_active});
        serde_json::from_value(row).unwrap()
    }

    fn names() -> ClusterNames {
        ClusterNames::named("mine".parse().unwrap(), Vec::new(), MarkerFormat::One)
    }

    fn pass(now: Now, keys: impl IntoIterator<Item = KeyDetails>) -> Snapshot {
        Snapshot::of(now, keys, &names(), HashSet::new())
    }

    fn active(numbers: std::ops::Range<u64>) -> Vec<KeyDetails> {
        numbers.map(|number| key(number, true)).collect()
    }

    fn judge(fuse: &mut Fuse, seconds: u64, keys: Vec<KeyDetails>) -> Doubt {
        fuse.judge(&pass(at(seconds), keys), 0, at(seconds)).doubt
    }

    #[test]
    fn a_few_missing_keys_are_believed_and_many_are_not() {
        for (before, now, doubt) in [
            (0, 0, Doubt::None),
            (0, 50, Doubt::None),
            (4, 1, Doubt::None),
            (5, 1, Doubt::Many),
            (100, 90, Doubt::None),
            (100, 89, Doubt::Many),
            (100, 0, Doubt::Many),
            (3, 0, Doubt::All),
            (1, 0, Doubt::All),
        ] {
            let mut fuse = Fuse::default();
            assert_eq!(judge(&mut fuse, 0, active(0..before)), Doubt::None);
            assert_eq!(
                judge(&mut fuse, 1, active(before.saturating_sub(now)..before)),
                doubt,
                "{before} to {now}"
            );
        }
    }

    /// A pass each second, each half hour, or each hour, lacks two keys more than the one before.
    #[test]
    fn many_keys_that_go_missing_one_by_one_are_doubted() {
        for (keys, interval, believed) in
            [(100, 1, 5), (100, 30 * MINUTE, 32), (20, 1, 1), (20, 60 * MINUTE, 9)]
        {
            let mut fuse = Fuse::default();
            judge(&mut fuse, 0, active(0..keys));
            let is_believed =
                |pass: &u64| judge(&mut fuse, pass * interval, active(2 * pass..keys)) == Doubt::None;
            assert_eq!((1..=keys / 2).take_while(is_believed).count(), believed, "{keys}, {interval}");
        }
    }

    #[test]
    fn inactive_is_as_doubtful_as_absent() {
        let mut fuse = Fuse::default();
        judge(&mut fuse, 0, active(0..12));
        assert_eq!(judge(&mut fuse, 1, (0..12).map(|number| key(number, false)).collect()), Doubt::Many);
        assert_eq!(judge(&mut fuse, 2, active(0..12)), Doubt::None, "as soon as the list is right again");
    }

    #[test]
    fn our_own_revocations_and_expiries_are_expected() {
        let mut fuse = Fuse::default();
        let mut keys = active(0..20);
        for key in &mut keys[10..] {
            key.expires_at = Some(at(5).wall);
        }
        judge(&mut fuse, 0, keys);
        (0..10).for_each(|number| fuse.record_revocation(&format!("key_{number}")));
        assert_eq!(judge(&mut fuse, 10, Vec::new()), Doubt::None);
    }

    #[test]
    fn three_passes_over_an_hour_are_believed() {
        let mut fuse = Fuse::default();
        judge(&mut fuse, 0, active(0..20));
        for minute in [1, 20, 40, 60] {
            assert_eq!(
                judge(&mut fuse, minute * MINUTE, active(0..5)),
                Doubt::Many,
                "after {minute} minutes"
            );
        }
        assert_eq!(judge(&mut fuse, 61 * MINUTE, active(0..5)), Doubt::None);
        assert_eq!(judge(&mut fuse, 62 * MINUTE, active(0..5)), Doubt::None);
        assert_eq!(fuse.expected(), 5);
    }

    #[test]
    fn so_many_keys_as_a_person_confirmed_may_be_missing() {
        for (confirmed, doubt) in [(0, Doubt::Many), (14, Doubt::Many), (15, Doubt::None), (99, Doubt::None)]
        {
            let mut fuse = Fuse::default();
            judge(&mut fuse, 0, active(0..20));
            assert_eq!(judge(&mut fuse, 1, active(0..5)), Doubt::Many);
            assert_eq!(fuse.judge(&pass(at(2), active(0..5)), confirmed, at(2)).doubt, doubt, "{confirmed}");
        }
    }

    #[test]
    fn two_passes_or_changing_ones_are_not_enough() {
        let mut fuse = Fuse::default();
        judge(&mut fuse, 0, active(0..20));
        judge(&mut fuse, MINUTE, active(0..5));
        assert_eq!(judge(&mut fuse, 120 * MINUTE, active(0..5)), Doubt::Many, "the second");
        assert_eq!(judge(&mut fuse, 121 * MINUTE, active(0..2)), Doubt::Many, "other keys are missing");
        assert_eq!(judge(&mut fuse, 122 * MINUTE, active(0..2)), Doubt::Many);
        assert_eq!(judge(&mut fuse, 182 * MINUTE, active(0..2)), Doubt::None);
    }

    #[test]
    fn a_new_process_remembers_how_many_keys_there_were() {
        for (remembered, shown, doubt) in [
            (0, 0, Doubt::None),
            (100, 95, Doubt::None),
            (100, 80, Doubt::Many),
            (2, 0, Doubt::All),
            (12, 0, Doubt::Many),
        ] {
            let mut fuse = Fuse::default();
            fuse.remember(remembered);
            assert_eq!(judge(&mut fuse, 0, active(0..shown)), doubt, "{shown} of {remembered}");
            assert_eq!(judge(&mut fuse, 1, active(0..shown)), doubt, "{shown} of {remembered}, again");
        }
        let mut fuse = Fuse::default();
        fuse.remember(12);
        judge(&mut fuse, 0, active(0..2));
        assert_eq!(judge(&mut fuse, 1, active(0..12)), Doubt::None, "the list is right again");
        assert_eq!(judge(&mut fuse, 2, active(0..1)), Doubt::Many);
    }

    /// The pass read their rows before.
    #[test]
    fn keys_that_were_revoked_during_a_pass_are_not_missed_later() {
        let mut fuse = Fuse::default();
        judge(&mut fuse, 0, active(0..20));
        (0..10).for_each(|number| fuse.record_revocation(&format!("key_{number}")));
        assert_eq!(judge(&mut fuse, 1, active(0..20)), Doubt::None);
        assert_eq!(judge(&mut fuse, 2, active(10..20)), Doubt::None);
        assert_eq!(fuse.expected(), 10);
    }

    #[test]
    fn what_was_revoked_during_doubt_stays_revoked() {
        let mut fuse = Fuse::default();
        fuse.remember(10);
        assert_eq!(judge(&mut fuse, 0, active(0..5)), Doubt::Many);
        (0..4).for_each(|number| fuse.record_revocation(&format!("key_{number}")));
        assert_eq!(judge(&mut fuse, 1, active(4..10)), Doubt::None);
    }
}

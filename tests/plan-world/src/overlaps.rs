//! The overlap: when each key that a Secret held left it, and until when it must live.

use crate::{HOUR, Key, Secret, World};
use boltz_operator::{
    api::{OverlapPolicy, RolloutRestartTarget},
    duration::parse_duration,
    plan::{ObjectFacts, RevokeReason, Rollout, later},
    protocol::{marker::ObjectMark, record::MAX_PREVIOUS},
};
use std::time::Duration;

/// A key that the Secret of its object held.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub key_id: String,
    /// Its object.
    pub uid: String,
    /// The request of `rotate-now` that it answered, if any.
    answers: Option<String>,
    pub left: Option<Left>,
}

/// It is not in the Secret any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// When its overlap ends, by `World::aged`.
    pub over_at: Duration,
    is_named: bool,
    /// A user took away all that named it: a known limit of the protocol.
    is_excused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The operator; its write was sent then, by `World::aged`.
    Operator(Duration),
    Users,
}

impl World {
    /// The time that has passed, and all by which the operator's calendar stepped forward meanwhile: a step forward ends
    /// an overlap earlier, which is a known limit, and a step back must not prolong what was promised.
    pub(crate) fn aged(&self) -> Duration {
        self.elapsed + self.stepped_forward
    }

    /// Call after users did something to Secrets without the methods of the world.
    pub fn follow_users(&mut self) {
        self.follow_deliveries(By::Users);
    }

    /// Looks what is in the Secrets after a change.
    pub(crate) fn follow_deliveries(&mut self, by: By) {
        let stepped = self.clock_error - self.last_clock_error;
        self.stepped_forward += Duration::from_secs(stepped.max(0).unsigned_abs());
        self.last_clock_error = self.clock_error;
        let Some(object) = self.object.clone().filter(|object| !object.deleting) else { return };
        self.follow_spec(&object);
        self.paused_since = self.paused_since.or(Some(self.elapsed)).filter(|_| object.is_paused);
        let is_own = |secret: &&Secret| secret.owner.as_deref() == Some(&object.uid);
        let own = || self.secrets.values().filter(is_own);
        // After the Secret was renamed, the old one is there until it is deleted; its key is replaced all the same.
        let wanted = self.secrets.get(object.secret_name()).filter(|secret| is_own(secret));
        let current: Vec<&Secret> = wanted.map_or_else(|| own().collect(), |wanted| vec![wanted]);
        let held: Vec<(String, Option<String>)> = current
            .into_iter()
            .filter_map(|secret| {
                let key = self.keys.iter().find(|key| Some(&key.value) == secret.value.as_ref())?;
                let record = secret.record.as_ref().filter(|record| record.key_id == key.id);
                Some((key.id.clone(), record.and_then(|record| record.rotate_now.clone())))
            })
            .collect();
        let is_named = |id: &str| {
            object.status.names(id)
                || own().filter_map(|secret| secret.record.as_ref()).any(|record| record.names(id))
        };
        let left_at = match by {
            By::Operator(sent_at) => sent_at,
            By::Users => self.aged(),
        };
        let over_at = left_at + self.least_overlap();
        let mut deliveries = self.deliveries.clone();
        for delivery in deliveries.iter_mut().filter(|delivery| delivery.uid == object.uid) {
            if held.iter().any(|(id, _)| *id == delivery.key_id) {
                delivery.left = None;
                continue;
            }
            let is_named = is_named(&delivery.key_id);
            let has_left = delivery.left.is_none();
            let left = delivery.left.get_or_insert(Left { over_at, is_named, is_excused: false });
            left.is_excused |= by == By::Users && !is_named && (has_left || left.is_named);
            left.is_named = is_named;
        }
        for (key_id, answers) in held {
            if deliveries.iter().all(|delivery| delivery.key_id != key_id) {
                deliveries.push(Delivery { key_id, uid: object.uid.clone(), answers, left: None });
            }
        }
        self.deliveries = deliveries;
    }

    /// Remembers which overlaps the spec asked for, as long as an attempt may have been made for them.
    fn follow_spec(&mut self, object: &ObjectFacts) {
        let Some(overlap) =
            object.spec.as_ref().ok().and_then(|spec| parse_duration(&spec.rotation.overlap).ok())
        else {
            return;
        };
        if self.overlaps.last().is_none_or(|(_, last)| *last != overlap) {
            self.overlaps.push((self.elapsed, overlap));
        }
    }

    /// The shortest overlap that an attempt may have been made for whose key is stored now.
    fn least_overlap(&self) -> Duration {
        let settling = self.settings.settle_time + self.settings.window();
        let ends = self.overlaps.iter().skip(1).map(|(at, _)| *at + settling).chain([Duration::MAX]);
        let wanted = self.overlaps.iter().zip(ends).filter(|(_, end)| *end >= self.elapsed);
        wanted.map(|((_, overlap), _)| *overlap).min().unwrap_or_default()
    }

    /// Why the operator must not revoke that key now, if there is a reason.
    pub(crate) fn why_it_must_live(&self, id: &str, reason: RevokeReason) -> Option<String> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        let has_expired =
            key.expires_at.is_some_and(|expires_at| expires_at <= self.true_time().max(self.wall()));
        let delivery = self.deliveries.iter().find(|delivery| delivery.key_id == id)?;
        let object = self.object.as_ref().filter(|object| object.uid == delivery.uid && !object.deleting)?;
        if key.revoked || has_expired {
            return None;
        }
        if self.is_paused_for_a_while() {
            return Some(format!("{id} is revoked ({}) while the object is paused", reason.as_str()));
        }
        let Some(left) = &delivery.left else {
            return Some(format!("the Secret holds {id}, which is revoked: {}", reason.as_str()));
        };
        let is_asked_for = object.rotate_now.is_some() && object.rotate_now != delivery.answers;
        let mark = ObjectMark::from_uid(&object.uid);
        let active = self.keys.iter().filter(|key| key.object == mark && !key.revoked).count();
        let is_cut = reason == RevokeReason::OverlapCut && active > MAX_PREVIOUS;
        let is_over = left.over_at <= self.aged();
        let is_rolled_out = reason == RevokeReason::RolledOut && self.is_rolled_out(object, key);
        let may_be_revoked = is_over || is_asked_for || is_cut || is_rolled_out || left.is_excused;
        (!may_be_revoked).then(|| {
            let early = left.over_at - self.aged();
            format!("{id} is revoked ({}) {early:?} before the end of its overlap", reason.as_str())
        })
    }

    /// What was decided before the pause may still be on its way at its begin.
    fn is_paused_for_a_while(&self) -> bool {
        self.paused_since.is_some_and(|since| since < self.elapsed)
    }

    /// `UntilRolledOut`: all targets have pods of the key in the Secret only, and nobody has used this one for an hour.
    fn is_rolled_out(&self, object: &ObjectFacts, key: &Key) -> bool {
        let Ok(spec) = &object.spec else { return false };
        let record = self.secrets.get(object.secret_name()).and_then(|secret| secret.record.as_ref());
        let is_done = |target: &RolloutRestartTarget| {
            matches!(self.workloads.get(&target.to_string()), Some((restarted_for, Rollout::Done(_)))
                if record.is_some_and(|record| record.key_id == *restarted_for))
        };
        let overlap = parse_duration(&spec.rotation.overlap).unwrap_or_default();
        let is_idle = key.last_used_at.is_none_or(|used| later(used, HOUR.min(overlap)) <= self.true_time());
        let targets = &spec.rollout_restart_targets;
        spec.rotation.overlap_policy == OverlapPolicy::UntilRolledOut
            && !targets.is_empty()
            && targets.iter().all(is_done)
            && is_idle
    }

    /// What is remembered, in words that tell two moments apart: of keys that may still be revoked too early.
    pub fn overlaps_told(&self) -> String {
        let is_active = |id: &str| self.keys.iter().any(|key| key.id == id && !key.revoked);
        let left =
            self.deliveries.iter().filter(|delivery| is_active(&delivery.key_id)).filter_map(|known| {
                let Left { over_at, is_named, is_excused } = known.left.as_ref()?;
                Some(format!("{} {over_at:?} {is_named} {is_excused} {:?} ", known.key_id, known.answers))
            });
        format!("{} {}", self.is_paused_for_a_while(), left.collect::<String>())
    }
}

//! Updates process memory from facts: which keys are stored, what users request now, what can be removed.

use super::{
    answer::KeyCheck,
    attempt::{Progress, Replaced},
    block::{Block, Reason},
    facts::{Doubt, Facts, SecretFacts},
    failing::SECRET_SLOTS,
    memory::{LastRecord, ProcessMemory, Proof, Request, Trouble},
    retry::{Failure, retry_backoff},
    settings::Settings,
    step::Slot,
    time::{Monotonic, Now, earlier},
};
use crate::protocol::{ledger::LedgerEntry, marker::AttemptId, record::Record};
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

/// Changes by users that follow each other faster count later, and once: two controllers may overwrite each other's
/// changes.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(10);

impl ProcessMemory {
    /// Updates process memory from the facts: a received key that the record or status names is stored (rule 9); a new
    /// request clears blocks; new ids get the current time as first seen.
    pub fn learn(&mut self, facts: &mut Facts, settings: &Settings, now: Now) {
        self.learn_adoptable(facts);
        self.learn_lost_attempts(facts, settings, now);
        self.prune(facts);
        for name in facts.ids_and_attempts() {
            self.first_seen.entry(name).or_insert(now.monotonic);
        }
        let request = Request {
            generation: facts.object.generation,
            annotations: [&facts.object.rotate, &facts.object.rotate_now, &facts.object.retry],
        };
        let request = request.hash();
        if self.request != Some(request) {
            // The first one that this process sees is no change. One that has waited until now takes this one with it.
            let is_counted = self.request.is_some() && !self.is_request_new;
            if is_counted && self.requested_at.is_none_or(|at| at <= now.monotonic) {
                let last = self.requested_at.map(|at| at.plus(BETWEEN_REQUESTS));
                self.requested_at = Some(last.map_or(now.monotonic, |at| at.max(now.monotonic)));
            }
            self.request = Some(request);
            self.is_request_new = true;
        }
        // What failed costs others calls when it is tried again.
        let is_early = self.requested_at.is_some_and(|at| at > now.monotonic);
        if self.is_request_new && (!is_early || self.troubles.is_empty()) {
            self.is_request_new = false;
            self.troubles.clear();
            self.done.clear();
            self.restarts.values_mut().for_each(|restart| restart.reads = 0);
        }
        if let Some(record) = facts.record() {
            let (key_id, rotate_now) = (record.key_id.clone(), record.rotate_now.clone());
            // Another key was not asked yet.
            if self.last_record.as_ref().is_some_and(|last| last.key_id != key_id) {
                self.troubles.remove(&Slot::Check);
            }
            self.last_record = Some(LastRecord { key_id, rotate_now });
        }
        self.learn_what_is_requested(facts);
        if facts.object.deleting {
            self.deleting_since.get_or_insert(now.monotonic);
        }
        self.leaked_since = facts.has_leaked(self).then(|| self.leaked_since.unwrap_or(now.wall));
        self.must_read &= !facts.live;
        self.learn_whose_secret(facts, settings, now.monotonic);
        self.learn_what_may_be_cured(facts, settings, now.monotonic);
        self.learn_what_is_stored(facts);
        self.learn_what_is_gone(facts, settings, now);
        self.learn_what_is_not_gone(facts, settings, now);
    }

    /// An attempt whose POST was not sent is for what is requested now. A webhook may change the spec with each write.
    fn learn_what_is_requested(&mut self, facts: &Facts) {
        let Ok(spec) = &facts.object.spec else { return };
        for (_, known) in self.attempts.iter_mut() {
            if known.progress == Progress::Written
                && let Some(intent) = &mut known.intent
                && intent.rotate == facts.object.rotate
                && intent.rotate_now == facts.object.rotate_now
                && intent.spec != *spec
            {
                intent.spec = spec.clone();
            }
        }
    }

    /// In place of a forged ledger: the attempts of this process and, from the pass on that shows them all, those of the
    /// object's active keys.
    fn learn_lost_attempts(&mut self, facts: &mut Facts, settings: &Settings, now: Now) {
        if facts.object.ledger.forgery.is_none() {
            self.forged_since = None;
            return;
        }
        let since = *self.forged_since.get_or_insert(now.monotonic);
        facts.memory.forged_since = Some(since);
        let organization = facts.account.organization.clone();
        let mut entries = Vec::new();
        let mut listed: HashSet<&AttemptId> = HashSet::new();
        if let Some(pass) = facts.pass_after_forgery(settings, now) {
            for key in pass.keys.iter().filter(|key| key.is_active_at(now.wall)) {
                if !self.attempts.contains_key(&key.attempt) && listed.insert(&key.attempt) {
                    self.first_seen.entry(key.attempt.to_string()).or_insert(since);
                    let entry = LedgerEntry::new(key.attempt.clone(), pass.started_at, organization.clone());
                    entries.push(entry.of_account(&facts.account.name));
                }
            }
        }
        let mut own: Vec<_> = self.attempts.iter().collect();
        own.sort_by_key(|(_, known)| known.written);
        entries.extend(own.into_iter().map(|(attempt, known)| {
            let written_at = earlier(now.wall, now.monotonic.since(known.written));
            LedgerEntry::new(attempt.clone(), written_at, organization.clone())
                .of_account(&facts.account.name)
        }));
        facts.object.ledger.entries = entries;
    }

    /// Removes entries that nothing refers to, so that process memory stays bounded.
    fn prune(&mut self, facts: &Facts) {
        if let Ok(spec) = &facts.object.spec {
            let targets: Vec<String> = spec.rollout_restart_targets.iter().map(ToString::to_string).collect();
            self.restarts.retain(|target, _| targets.contains(target));
        }
        let Self {
            attempts,
            revoked_ids,
            revoked_at,
            revoked_without_effect,
            perhaps_revoked,
            first_seen,
            troubles,
            key_check,
            ..
        } = self;
        attempts.retain(|attempt, known| {
            facts.object.ledger.contains(attempt)
                || match &known.progress {
                    Progress::InHand { .. } => true,
                    Progress::Stored { key, .. } => !revoked_ids.contains(&key.id),
                    Progress::Written | Progress::Sent | Progress::Ended => false,
                }
        });
        let named: BTreeSet<String> = facts.named_keys().into_iter().map(|key| key.id).collect();
        let is_held = |id: &str| facts.adoptable().is_some_and(|adoptable| adoptable.holds(id));
        key_check.take_if(|checked| !named.contains(&checked.key_id) && !is_held(&checked.key_id));
        let is_shown = |id: &String| {
            facts.passes.iter().flat_map(|pass| &pass.keys).any(|key| key.id == *id && key.is_active)
        };
        revoked_ids.retain(|id| named.contains(id) || is_shown(id));
        revoked_at.retain(|id, _| revoked_ids.contains(id));
        revoked_without_effect.retain(|id| named.contains(id) || is_shown(id));
        let is_in_hand = |id: &String| {
            attempts
                .values()
                .any(|known| matches!(&known.progress, Progress::InHand { key, .. } if key.id == *id))
        };
        let is_open =
            |id: &String| !revoked_ids.contains(id) && (named.contains(id) || is_shown(id) || is_in_hand(id));
        perhaps_revoked.retain(|id, _| is_open(id));
        troubles.retain(|slot, _| match slot {
            Slot::Revoke(id) => is_open(id),
            _ => true,
        });
        let to_remember = facts.ids_and_attempts();
        first_seen.retain(|name, _| to_remember.contains(name));
    }

    /// A Secret of another owner does not have our label, so no cache contains it. The result of a live read counts until
    /// the next live read.
    fn learn_whose_secret(&mut self, facts: &mut Facts, settings: &Settings, now: Monotonic) {
        let name = facts.object.secret_name().to_owned();
        match &facts.secret {
            SecretFacts::Foreign(whose) => {
                let is_known = self.foreign_secret.as_ref().is_some_and(|known| known.0 == name);
                if !is_known && !facts.live && facts.object.wants_to_adopt() {
                    // No cache shows whether it consents: a live read follows.
                    return;
                }
                let trouble = self.troubles.get(&Slot::Preflight);
                if !is_known || (facts.live && trouble.is_none_or(|trouble| !trouble.block.is_in_effect(now)))
                {
                    let failures = trouble.filter(|_| is_known).map_or(1, |trouble| trouble.failures + 1);
                    let wait = retry_backoff(&Slot::Preflight, Failure::Refused, settings).after(failures);
                    let block = Block {
                        reason: Reason::SecretConflict,
                        message: whose.clone(),
                        until: Some(now.plus(wait)),
                    };
                    self.troubles.insert(Slot::Preflight, Trouble { failures, ..Trouble::new(block) });
                }
                self.foreign_secret = Some(Box::new((name, whose.clone())));
            }
            SecretFacts::Absent if !facts.live => {
                if let Some((known, whose)) = self.foreign_secret.as_deref()
                    && *known == name
                {
                    facts.secret = SecretFacts::Foreign(whose.clone());
                }
            }
            SecretFacts::Absent | SecretFacts::Ours(_) | SecretFacts::Adoptable(_) => {
                if self.foreign_secret.take().is_some() {
                    self.lift_secret_troubles();
                }
            }
        }
    }

    /// Somebody else changed the Secret whose write was rejected: tried again at once. Not more often than a rejected
    /// write at first, because somebody may change it all the time.
    fn learn_what_may_be_cured(&mut self, facts: &Facts, settings: &Settings, now: Monotonic) {
        let version =
            facts.current_secret().map(|secret| secret.resource_version.clone()).unwrap_or_default();
        let is_changed = self.refused_version.as_ref().is_some_and(|refused| *refused != version);
        if !is_changed || self.lifted_at.is_some_and(|at| now.since(at) < settings.recheck) {
            return;
        }
        (self.refused_version, self.lifted_at) = (None, Some(now));
        for slot in SECRET_SLOTS {
            let trouble =
                self.troubles.get_mut(&slot).filter(|trouble| trouble.kind == Some(Failure::Refused));
            if let Some(trouble) = trouble {
                trouble.block.until = Some(now);
            }
        }
    }

    fn learn_what_is_stored(&mut self, facts: &Facts) {
        let others = facts.other_secrets.iter().filter_map(|secret| secret.record.as_ref());
        let records = facts.record().into_iter().chain(others);
        let is_recorded = |id: &str| records.clone().any(|record| record.names(id));
        let is_current = |id: &str| facts.record().is_some_and(|record| record.key_id == id);
        for (_, known) in self.attempts.iter_mut() {
            let (Progress::InHand { key, .. } | Progress::Stored { key, .. }) = &known.progress else {
                continue;
            };
            let is_reported = facts.object.status.names(&key.id)
                || matches!(known.progress, Progress::Stored { is_reported: true, .. });
            if is_reported || is_recorded(&key.id) {
                let replaced = records.clone().find_map(|record| replaced_by(record, &key.id));
                known.replaced = if is_current(&key.id) { None } else { replaced.or(known.replaced) };
                known.progress = Progress::Stored { key: key.clone(), is_reported };
                known.intent = None;
            }
        }
    }

    /// A 404 alone does not prove that a key is revoked: it may come from a gateway. Nor does a lost response. The key counts
    /// as revoked when a later pass shows it as inactive, or does not show it although it must.
    fn learn_what_is_gone(&mut self, facts: &Facts, settings: &Settings, now: Now) {
        let Some(pass) = facts.passes.first() else { return };
        let is_gone = |id: &String, at: &Monotonic| {
            let seen = self.first_seen.get(id).copied().or_else(|| {
                self.minted(id).and_then(|(attempt, _)| self.attempts.get(attempt)).map(|known| known.written)
            });
            let expected_from = seen.unwrap_or(*at).plus(settings.settle_time);
            let shown = pass.keys.iter().find(|key| key.id == *id);
            let is_gone = shown.map_or(pass.started >= expected_from, |key| !key.is_active_at(now.wall));
            // The key itself knows better than the list.
            let checked = self.check_of(id);
            let says = |check: &KeyCheck| checked.is_some_and(|checked| checked.check == *check);
            let says_so_itself = says(&KeyCheck::Invalid) && checked.is_some_and(|checked| checked.at > *at);
            let is_listed_so = pass.doubt == Doubt::None && pass.started > *at && is_gone;
            says_so_itself || is_listed_so && !says(&KeyCheck::Valid)
        };
        let gone: Vec<String> = self
            .perhaps_revoked
            .iter()
            .filter(|(id, at)| is_gone(id, at))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.mark_revoked(&id, now.monotonic, Proof::Check);
        }
    }

    /// A key counts as revoked, but a pass that must show the effect shows it as active. If Boltz had accepted the revocation,
    /// only a pass proves from now on that the key is revoked.
    fn learn_what_is_not_gone(&mut self, facts: &Facts, settings: &Settings, now: Now) {
        let Some(pass) = facts.passes.first() else { return };
        let Self { revoked_ids, revoked_at, revoked_without_effect, .. } = self;
        revoked_at.retain(|id, (at, proof)| {
            let is_active = pass.keys.iter().any(|key| key.id == *id && key.is_active_at(now.wall));
            let has_effect = !is_active || pass.started < at.plus(settings.settle_time);
            if !has_effect {
                revoked_ids.remove(id);
                if *proof == Proof::Response {
                    revoked_without_effect.insert(id.clone());
                }
            }
            has_effect
        });
    }

    /// Call when Boltz accepted the revocation, said that the key was revoked before, or a pass confirmed it. A later pass may
    /// show that the key is active after all.
    pub fn mark_revoked(&mut self, key_id: &str, now: Monotonic, proof: Proof) {
        self.revoked_ids.insert(key_id.to_owned());
        self.revoked_at.insert(key_id.to_owned(), (now, proof));
        self.key_check.take_if(|checked| checked.key_id == key_id);
        self.perhaps_revoked.remove(key_id);
        self.troubles.remove(&Slot::Revoke(key_id.to_owned()));
        for (_, known) in self.attempts.iter_mut() {
            if matches!(&known.progress, Progress::InHand { key, .. } if key.id == key_id) {
                known.progress = Progress::Ended;
            }
        }
    }
}

/// The end of the key's overlap, if the record lists it as previous.
fn replaced_by(record: &Record, id: &str) -> Option<Replaced> {
    let previous = record.previous.iter().find(|key| key.key_id == id)?;
    Some(Replaced { revoke_after: previous.revoke_after, even_if_used: previous.even_if_used })
}

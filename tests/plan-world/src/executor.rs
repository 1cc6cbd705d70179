//! The executor's calls to the API server and Boltz, in one piece: which write is made, under which preconditions, and how it
//! is answered. What an answer means, the operator's own code decides, as for `controller::execute` (`plan::response`).

use crate::{
    Crashed, Fault, Milestone, Process, Secret, UID, World, faults::Late, kubernetes::own_secret,
    overlaps::By,
};
use boltz_operator::{
    api::{Mode, annotations::FINALIZER},
    plan::{
        Answer, ApiFailure, BoltzErrorKind, BoltzFailure, Effect, Facts, KeyCheck, MintedKey, ObjectFacts,
        OwnSecret, Requested, Rollout, SecretFacts, Shown, Step, Verdict, with_finalizer,
    },
    protocol::{
        ledger::Ledger,
        marker::{AttemptId, ClusterName, Marker, MarkerFormat, ObjectMark},
        record::{IssueReason, Record, value_sha256},
    },
};

fn api_failed(verdict: Verdict) -> ApiFailure {
    let message = format!("the API server says {verdict:?}");
    ApiFailure { verdict, by_policy: false, is_forbidden: false, message }
}

/// How the API server answers when that goes wrong. What is undone is answered as if it was done.
fn api_fault(fault: Option<Fault>) -> Result<(), ApiFailure> {
    let is_forbidden = fault == Some(Fault::Forbidden);
    let failure = api_failed(match fault {
        None | Some(Fault::Undone) => return Ok(()),
        Some(
            Fault::Cut
            | Fault::Silent(_)
            | Fault::Lost
            | Fault::Late(_)
            | Fault::CrashBefore
            | Fault::CrashAfter,
        ) => Verdict::Unknown,
        Some(Fault::Refused | Fault::Forbidden | Fault::Boltz(_)) => Verdict::Refused,
        Some(Fault::Conflict) => Verdict::Conflict,
        Some(Fault::NotFound) => Verdict::NotFound,
    });
    Err(ApiFailure { is_forbidden, ..failure })
}

/// The object as the response to a write shows it, and what that means.
fn written(
    response: Result<Box<ObjectFacts>, ApiFailure>,
    means: impl FnOnce(&ObjectFacts) -> Answer,
) -> (Answer, Shown) {
    match response {
        Ok(shown) => (means(&shown), Shown::Object(shown)),
        Err(failure) => (Answer::ApiFailed(failure), Shown::Nothing),
    }
}

/// The same of the Secret.
fn secret_written(
    response: Result<OwnSecret, ApiFailure>,
    means: impl FnOnce(&OwnSecret) -> Answer,
    failed: impl FnOnce(ApiFailure) -> Answer,
) -> (Answer, Shown) {
    match response {
        Ok(shown) => (means(&shown), Shown::Secret(Box::new(shown))),
        Err(failure) => (failed(failure), Shown::Nothing),
    }
}

/// What a call means that shows nothing.
fn answer_to(response: Result<(), ApiFailure>) -> Answer {
    response.map_or_else(Answer::ApiFailed, |()| Answer::Done)
}

/// What Boltz answers when that goes wrong.
fn boltz_fault(fault: Fault) -> Answer {
    let (kind, effect) = match fault {
        Fault::Boltz(kind @ (BoltzErrorKind::RateLimited | BoltzErrorKind::Unavailable)) => {
            (kind, Effect::Unknown)
        }
        Fault::Boltz(kind) => (kind, Effect::None),
        Fault::Refused | Fault::Forbidden | Fault::NotFound | Fault::Undone => {
            (BoltzErrorKind::Refused, Effect::None)
        }
        Fault::Conflict => (BoltzErrorKind::Refused, Effect::Unknown),
        Fault::Cut
        | Fault::Silent(_)
        | Fault::Lost
        | Fault::Late(_)
        | Fault::CrashBefore
        | Fault::CrashAfter => (BoltzErrorKind::Unavailable, Effect::Unknown),
    };
    Answer::BoltzFailed(BoltzFailure { kind, effect, retry_after: None, message: format!("Boltz: {kind:?}") })
}

impl Process {
    /// Carries out a step as the executor does.
    pub(crate) fn execute(
        &mut self,
        world: &mut World,
        facts: &Facts,
        step: &Step,
        fault: Option<Fault>,
    ) -> Result<(Answer, Shown), Crashed> {
        // What others did since the last look.
        world.follow_deliveries(By::Users);
        if fault == Some(Fault::CrashBefore) {
            world.reached.insert(Milestone::Crashed);
            return Err(Crashed);
        }
        world.count_call(step);
        if let Some(Fault::Silent(time)) = fault {
            world.advance_to(world.elapsed + time);
        }
        let (answer, shown) = self.call(world, facts, step, fault);
        world.follow_deliveries(By::Operator(world.aged()));
        world.note(step, &answer, fault);
        if fault == Some(Fault::CrashAfter) { Err(Crashed) } else { Ok((answer, shown)) }
    }

    fn call(
        &mut self,
        world: &mut World,
        facts: &Facts,
        step: &Step,
        fault: Option<Fault>,
    ) -> (Answer, Shown) {
        let has_effect = fault.is_none_or(Fault::has_effect);
        let alone = |answer: Answer| (answer, Shown::Nothing);
        match step {
            Step::Wait => alone(Answer::Done),
            Step::ReadLive => match (api_fault(fault), self.facts(world, true)) {
                (Err(failure), _) => alone(Answer::ApiFailed(failure)),
                // Another object of that name is another's: only the UID counts.
                (Ok(()), Some(read)) if read.object.uid == facts.object.uid => {
                    (Answer::Done, Shown::Everything(Box::new(read)))
                }
                (Ok(()), _) => alone(Answer::Gone),
            },
            Step::Preflight => match api_fault(fault).and_then(|()| world.takes_secret(facts)) {
                Err(failure) => alone(Answer::secret_not_written(failure, &facts.secret)),
                Ok(()) if fault == Some(Fault::Undone) => {
                    alone(Answer::record_written(None, &Record::placeholder(&facts.object.uid)))
                }
                Ok(()) => (Answer::Done, Shown::Preflight),
            },
            Step::WriteAttempt { keep, intent } => {
                let now = self.now(world);
                self.attempts += 1;
                let attempt = AttemptId::from_random(self.seed << 20 | self.attempts);
                let ledger = self.memory.begin_attempt(&attempt, keep, intent, now, &facts.account);
                let finalizers = with_finalizer(&facts.object.finalizers);
                let response = world.write_object(facts, fault, |object| {
                    object.ledger = ledger;
                    object.finalizers = finalizers;
                });
                written(response, |shown| self.memory.attempt_written(&attempt, shown))
            }
            Step::WriteLedger(entries) => {
                let ledger = Ledger::new(entries.clone());
                let response = world.write_object(facts, fault, |object| object.ledger = ledger);
                written(response, Answer::ledger_written)
            }
            Step::Mint(attempt) => alone(self.mint(world, facts, attempt, fault)),
            Step::CheckKey { secret, key_id } => alone(match (api_fault(fault), fault) {
                (_, Some(Fault::Boltz(_))) => Answer::Checked(KeyCheck::Unclear(format!("{fault:?}"))),
                (Err(failure), _) => Answer::ApiFailed(failure),
                (Ok(()), _) => world.check_key(secret, key_id).map_or(Answer::Stale, Answer::Checked),
            }),
            Step::Store { attempt, record } => self.store(world, facts, attempt, record, fault),
            Step::WriteStatus(status) => {
                let before = world.counts.object_writes;
                let old = facts.object.status.clone();
                // It is answered as it was written, and then somebody changes it back.
                let is_undone = fault == Some(Fault::Undone);
                let sent = fault.filter(|_| !is_undone);
                let response = world.write_object(facts, sent, |object| object.status = (**status).clone());
                let made = world.counts.object_writes - before;
                world.counts.object_writes -= made;
                world.counts.status_writes += made;
                if is_undone && response.is_ok() {
                    world.edit(|object| object.status = old);
                }
                // The API server may have normalized the status: it counts as it was written.
                let as_written =
                    |shown: Box<ObjectFacts>| ObjectFacts { status: (**status).clone(), ..*shown };
                written(response.map(as_written).map(Box::new), |_| Answer::Done)
            }
            Step::Revoke { key_id, reason } => alone(match fault {
                Some(Fault::NotFound) => Answer::KeyNotFound,
                // Boltz says so, and it is not true.
                Some(Fault::Undone) => Answer::Done,
                Some(fault) => {
                    if has_effect {
                        world.revoke(&facts.object.uid, key_id, *reason);
                    }
                    boltz_fault(fault)
                }
                None if world.keys.iter().all(|key| key.id != *key_id) => Answer::KeyNotFound,
                None => {
                    world.revoke(&facts.object.uid, key_id, *reason);
                    Answer::Done
                }
            }),
            Step::AddFinalizer => {
                let finalizers = with_finalizer(&facts.object.finalizers);
                let response = world.write_object(facts, fault, |object| object.finalizers = finalizers);
                written(response, Answer::finalizer_added)
            }
            Step::WriteRecord(record) => {
                let SecretFacts::Ours(own) = &facts.secret else { return alone(Answer::Stale) };
                let response = world.patch_secret(facts, own, fault, |secret| {
                    secret.record = Some((**record).clone());
                });
                let means = |shown: &OwnSecret| Answer::record_written(shown.record.as_ref(), record);
                secret_written(response, means, Answer::ApiFailed)
            }
            Step::MoveSecret { from } => {
                let known = facts.other_secrets.iter().find(|secret| secret.name == *from);
                let Some(mut secret) = known.and_then(|own| world.read_value(own)) else {
                    return alone(Answer::Stale);
                };
                let record = reshape(&mut secret, facts);
                let response = world.create_secret(facts, secret, fault);
                let means = |shown: &OwnSecret| Answer::record_written(shown.record.as_ref(), &record);
                secret_written(response, means, Answer::ApiFailed)
            }
            Step::DeleteSecret { name, uid } => {
                if has_effect && world.secrets.get(name).is_some_and(|secret| secret.uid == *uid) {
                    world.secrets.remove(name);
                    world.counts.secret_writes += 1;
                }
                match api_fault(fault).map_or_else(Answer::secret_not_deleted, |()| Answer::Done) {
                    Answer::Done => (Answer::Done, Shown::NoSecret(name.clone())),
                    answer => alone(answer),
                }
            }
            Step::Reshape => {
                let SecretFacts::Ours(own) = &facts.secret else { return alone(Answer::Stale) };
                let Some(mut secret) = world.read_value(own) else { return alone(Answer::Stale) };
                let record = reshape(&mut secret, facts);
                let response = world.patch_secret(facts, own, fault, |stored| {
                    *stored = secret;
                });
                let means =
                    |shown: &OwnSecret| Answer::reshaped(shown.record.as_ref(), &record, shown.labelled);
                secret_written(response, means, Answer::ApiFailed)
            }
            Step::RestartWorkload { target, key_id } => {
                if has_effect {
                    let shown = (key_id.clone(), world.rollout.clone());
                    world.workloads.insert(target.to_string(), shown);
                }
                alone(answer_to(api_fault(fault)))
            }
            Step::ReadRollout { target, key_id } => alone(match api_fault(fault) {
                Err(ApiFailure { verdict: Verdict::NotFound, .. }) => Answer::RolloutRead(Rollout::Missing),
                Err(failure) => Answer::ApiFailed(failure),
                Ok(()) => Answer::RolloutRead(world.rollout_of(&target.to_string(), key_id)),
            }),
            Step::ReleaseSecret { name } => {
                let version = world.next_version();
                let Some(secret) = world.secrets.get_mut(name) else { return alone(Answer::Stale) };
                if has_effect {
                    (secret.owned, secret.version) = (facts.object.owns_its_secret(), version);
                    world.counts.secret_writes += 1;
                }
                alone(answer_to(api_fault(fault)))
            }
            Step::RemoveFinalizer { .. } => {
                let response = world.write_object(facts, fault, |object| {
                    object.finalizers.retain(|finalizer| finalizer != FINALIZER);
                });
                world.end_deletion();
                alone(Answer::finalizer_removed(response.as_deref().map_err(ApiFailure::clone)))
            }
        }
    }

    fn mint(
        &mut self,
        world: &mut World,
        facts: &Facts,
        attempt: &AttemptId,
        fault: Option<Fault>,
    ) -> Answer {
        world.counts.posts += 1;
        let spec = &self.memory.mark_posting(attempt).unwrap().1.spec;
        let (days, livemode, workspace) =
            (spec.expires_in_days, spec.mode == Mode::Live, spec.workspace_id.clone());
        if let Some(Fault::Late(by)) = fault {
            let object = facts.object.uid.clone();
            world.late.push((world.elapsed + by, Late::Post { object, attempt: attempt.clone(), days }));
        }
        if let Some(fault) = fault.filter(|fault| !fault.has_effect()) {
            return boltz_fault(fault);
        }
        let key = world.make_key(&facts.object.uid, attempt, days);
        if let Some(fault) = fault {
            return boltz_fault(fault);
        }
        let now = world.wall();
        let marker = Marker {
            format: MarkerFormat::One,
            cluster: ClusterName::from_kube_system_uid(UID),
            object: ObjectMark::from_uid(&facts.object.uid),
            attempt: attempt.clone(),
        };
        let minted = MintedKey {
            prefix: format!("sk_{}", key.id),
            id: key.id,
            value_sha256: value_sha256(key.value.as_bytes()),
            received_at: now,
            created_at: key.created_at,
            expires_at: key.expires_at,
            livemode,
            workspace_id: workspace.clone().or_else(|| Some("workspace".to_owned())),
            organization: self.account.organization.clone(),
        };
        let name = marker.name_with("team/key");
        let requested = Requested { marker: &marker, workspace: workspace.as_deref(), livemode };
        let answer = Answer::key_created(requested, &name, true, minted, now);
        if let Answer::Minted(_) = answer {
            self.values.insert(attempt.clone(), key.value);
        }
        answer
    }

    fn store(
        &mut self,
        world: &mut World,
        facts: &Facts,
        attempt: &AttemptId,
        record: &Record,
        fault: Option<Fault>,
    ) -> (Answer, Shown) {
        let Some(value) = self.values.get(attempt).cloned() else { return (Answer::Stale, Shown::Nothing) };
        self.memory.mark_storing(attempt);
        let name = facts.object.secret_name().to_owned();
        let version = world.next_version();
        let (uid, expected) = match &facts.secret {
            SecretFacts::Ours(own) => (own.uid.clone(), own.resource_version.parse().ok()),
            SecretFacts::Adoptable(found) => {
                (found.secret.uid.clone(), found.secret.resource_version.parse().ok())
            }
            SecretFacts::Absent | SecretFacts::Foreign(_) => (format!("secret-{version}"), None),
        };
        let secret = Secret {
            uid,
            version,
            // A webhook takes it off.
            record: (fault != Some(Fault::Undone)).then(|| record.clone()),
            value: Some(value),
            owner: Some(facts.object.uid.clone()),
            owned: facts.object.owns_its_secret(),
        };
        if let Some(Fault::Late(by)) = fault {
            let (name, secret, sent_at) = (name.clone(), Box::new(secret.clone()), world.aged());
            world.late.push((world.elapsed + by, Late::WriteSecret { name, expected, secret, sent_at }));
        }
        let fits = world.takes_secret(facts);
        if fault.is_none_or(|fault| fault.has_effect() || fault == Fault::Undone) && fits.is_ok() {
            world.counts.secret_writes += 1;
            world.put_secret(name.clone(), secret);
        }
        let response = api_fault(fault).and(fits).map(|()| world.shown_secret(facts, &name));
        let means = |shown: &OwnSecret| Answer::key_stored(shown.record.as_ref(), record);
        secret_written(response, means, |failure| Answer::secret_not_written(failure, &facts.secret))
    }
}

impl World {
    /// A write of the object under its resourceVersion and UID: the object as the response shows it.
    fn write_object(
        &mut self,
        facts: &Facts,
        fault: Option<Fault>,
        change: impl FnOnce(&mut ObjectFacts),
    ) -> Result<Box<ObjectFacts>, ApiFailure> {
        let fits = match &self.object {
            None => Err(api_failed(Verdict::NotFound)),
            Some(object)
                if object.uid != facts.object.uid
                    || object.resource_version != facts.object.resource_version =>
            {
                Err(api_failed(Verdict::Conflict))
            }
            Some(_) => Ok(()),
        };
        if fault.is_none_or(Fault::has_effect) && fits.is_ok() {
            self.change_object(change);
        }
        api_fault(fault).and(fits).map(|()| Box::new(self.object().clone()))
    }

    /// Whether the wanted Secret can be written: the one of the facts under its UID and version, or else a new one.
    fn takes_secret(&self, facts: &Facts) -> Result<(), ApiFailure> {
        let stored = self.secrets.get(facts.object.secret_name());
        match (&facts.secret, stored) {
            (SecretFacts::Ours(own), Some(stored)) if is_known(own, stored) => Ok(()),
            (SecretFacts::Adoptable(found), Some(stored)) if is_known(&found.secret, stored) => Ok(()),
            (SecretFacts::Ours(_) | SecretFacts::Adoptable(_), None) => Err(api_failed(Verdict::NotFound)),
            (SecretFacts::Absent | SecretFacts::Foreign(_), None) => Ok(()),
            (_, Some(_)) => Err(api_failed(Verdict::Conflict)),
        }
    }

    /// A write of the object's own Secret under the UID and version that the facts hold.
    fn patch_secret(
        &mut self,
        facts: &Facts,
        own: &OwnSecret,
        fault: Option<Fault>,
        change: impl FnOnce(&mut Secret),
    ) -> Result<OwnSecret, ApiFailure> {
        let fits = self.takes_secret(facts);
        if fault.is_none_or(Fault::has_effect) && fits.is_ok() {
            let version = self.next_version();
            let secret = self.secrets.get_mut(&own.name).unwrap();
            change(secret);
            secret.version = version;
            self.counts.secret_writes += 1;
        }
        api_fault(fault).and(fits).map(|()| self.shown_secret(facts, &own.name))
    }

    fn create_secret(
        &mut self,
        facts: &Facts,
        mut secret: Secret,
        fault: Option<Fault>,
    ) -> Result<OwnSecret, ApiFailure> {
        let name = facts.object.secret_name().to_owned();
        let is_free = !self.secrets.contains_key(&name);
        let fits = if is_free { Ok(()) } else { Err(api_failed(Verdict::Conflict)) };
        if fault.is_none_or(|fault| fault.has_effect() || fault == Fault::Undone) && is_free {
            secret.version = self.next_version();
            secret.uid = format!("secret-{}", secret.version);
            // A webhook takes it off.
            secret.record = secret.record.filter(|_| fault != Some(Fault::Undone));
            self.secrets.insert(name.clone(), secret);
            self.counts.secret_writes += 1;
        }
        api_fault(fault).and(fits).map(|()| self.shown_secret(facts, &name))
    }

    /// A Secret with its value, if both are as the facts say.
    fn read_value(&self, own: &OwnSecret) -> Option<Secret> {
        let stored = self.secrets.get(&own.name)?;
        let (record, value) = (stored.record.as_ref()?, stored.value.as_ref()?);
        own.is_as_known(&stored.version.to_string(), record, value.as_bytes()).then(|| stored.clone())
    }

    /// What an answered write showed of the Secret.
    fn shown_secret(&self, facts: &Facts, name: &str) -> OwnSecret {
        own_secret(name, &self.secrets[name], &facts.object.uid)
    }

    /// What a workload shows of its rollout for that key.
    fn rollout_of(&self, target: &str, key_id: &str) -> Rollout {
        match self.workloads.get(target) {
            None => Rollout::Missing,
            Some((restarted_for, _)) if restarted_for != key_id => Rollout::ChangedBack,
            Some((_, rollout)) => rollout.clone(),
        }
    }

    fn note(&mut self, step: &Step, answer: &Answer, fault: Option<Fault>) {
        match fault {
            Some(Fault::CrashAfter) => self.reached.insert(Milestone::Crashed),
            Some(_) => self.reached.insert(Milestone::Struck),
            None => {}
        }
        let has_keys = self.keys.iter().any(|key| !key.revoked && key.object == ObjectMark::from_uid(UID));
        self.reached.insert(match (step, answer) {
            (Step::Store { record, .. }, Answer::Done) if record.rotations == 0 => Milestone::Delivered,
            (Step::Store { record, .. }, Answer::Done) if record.reason == IssueReason::Renewal => {
                Milestone::Renewed
            }
            (Step::Store { .. }, Answer::Done) => Milestone::Rotated,
            (Step::MoveSecret { .. }, Answer::Done) => Milestone::Moved,
            (Step::DeleteSecret { .. }, Answer::Done) => Milestone::OldSecretDeleted,
            (Step::Reshape, Answer::Done) => Milestone::Reshaped,
            (Step::ReleaseSecret { .. }, Answer::Done) => Milestone::Released,
            (Step::WriteRecord(_), Answer::Done) => Milestone::RecordCompleted,
            (Step::WriteLedger(_), Answer::Done) => Milestone::LedgerReplaced,
            (Step::CheckKey { .. }, Answer::Checked(_)) => Milestone::KeyChecked,
            (Step::RemoveFinalizer { .. }, Answer::Gone) if has_keys => Milestone::Retained,
            (Step::RemoveFinalizer { .. }, Answer::Gone) => Milestone::DeletionEnded,
            _ => return,
        });
    }

    fn count_call(&mut self, step: &Step) {
        match step {
            Step::Wait => {}
            Step::Mint(_) | Step::Revoke { .. } => self.counts.boltz_calls += 1,
            // The object, and its Secret.
            Step::ReadLive => self.counts.api_calls += 2,
            Step::CheckKey { .. } => {
                self.counts.api_calls += 1;
                self.counts.boltz_calls += 1;
            }
            // The value has to be read first.
            Step::MoveSecret { .. } | Step::Reshape | Step::ReleaseSecret { .. } => {
                self.counts.api_calls += 2
            }
            _ => self.counts.api_calls += 1,
        }
    }
}

fn is_known(own: &OwnSecret, stored: &Secret) -> bool {
    own.uid == stored.uid && own.resource_version == stored.version.to_string()
}

/// Gives a Secret that was read the shape that the facts ask for, and returns its record.
fn reshape(secret: &mut Secret, facts: &Facts) -> Record {
    secret.owned = facts.object.owns_its_secret();
    let record = secret.record.as_mut().unwrap();
    if let Ok(spec) = &facts.object.spec {
        record.take_shape(spec, &facts.account.base_url);
    }
    record.clone()
}

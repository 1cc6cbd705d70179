//! The executor: carries out a step against the API server and Boltz, and says what was answered. What that means, the
//! operator's own `apply` decides.

use crate::{
    Crashed, Fault, Milestone, Process, Secret, UID, World, api_server::own_secret, deliveries::By,
    faults::Late,
};
use boltz_operator::{
    api::{Mode, annotations::FINALIZER},
    plan::{
        Answer, ApiFailure, BoltzErrorKind, BoltzFailure, Effect, Facts, KeyCheck, MintedKey, SecretFacts,
        Step, Verdict, with_finalizer,
    },
    protocol::{
        ledger::{Ledger, LedgerEntry},
        marker::{AttemptId, ObjectMark},
        record::{IssueReason, value_sha256},
    },
};

fn api_failed(verdict: Verdict) -> Answer {
    let message = format!("the API server says {verdict:?}");
    Answer::ApiFailed(ApiFailure { verdict, by_policy: false, message })
}

/// What the API server answers when that goes wrong.
fn api_fault(fault: Fault) -> Answer {
    api_failed(match fault {
        Fault::Cut
        | Fault::Silent(_)
        | Fault::Lost
        | Fault::Late(_)
        | Fault::CrashBefore
        | Fault::CrashAfter => Verdict::Unknown,
        Fault::Refused | Fault::Boltz(_) => Verdict::Refused,
        Fault::Conflict => Verdict::Conflict,
        Fault::NotFound => Verdict::NotFound,
        Fault::Undone => return Answer::Undone("it is as before".to_owned()),
    })
}

/// What Boltz answers when that goes wrong.
fn boltz_fault(fault: Fault) -> Answer {
    let (kind, effect) = match fault {
        Fault::Boltz(kind @ (BoltzErrorKind::RateLimited | BoltzErrorKind::Unavailable)) => {
            (kind, Effect::Unknown)
        }
        Fault::Boltz(kind) => (kind, Effect::None),
        Fault::Refused | Fault::NotFound | Fault::Undone => (BoltzErrorKind::Refused, Effect::None),
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
        facts: &mut Facts,
        step: &Step,
        fault: Option<Fault>,
    ) -> Result<Answer, Crashed> {
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
        let has_effect = fault.is_none_or(Fault::has_effect);
        let answer = match step {
            Step::Wait => Answer::Done,
            Step::ReadLive => match (fault, self.facts(world, true)) {
                (Some(fault), _) => api_fault(fault),
                // Another object of that name is another's: only the UID counts.
                (None, Some(read)) if read.object.uid == facts.object.uid => {
                    *facts = read;
                    Answer::Done
                }
                (None, _) => Answer::Gone,
            },
            Step::Preflight => {
                let name = facts.object.secret_name();
                let stored = world.secrets.get(name).map(|secret| secret.version.to_string());
                let known = match &facts.secret {
                    SecretFacts::Ours(own) => Some(own.resource_version.clone()),
                    SecretFacts::Absent | SecretFacts::Foreign(_) => None,
                };
                match fault {
                    Some(fault) => api_fault(fault),
                    None if stored != known => api_failed(Verdict::Conflict),
                    None => {
                        facts.preflight_passed = true;
                        Answer::Done
                    }
                }
            }
            Step::WriteAttempt { keep, intent } => {
                let now = self.now(world);
                self.attempts += 1;
                let attempt = AttemptId::from_random(self.seed << 20 | self.attempts);
                self.memory.mark_writing(attempt.clone(), (**intent).clone(), now.monotonic);
                let mut entries = keep.clone();
                entries.push(LedgerEntry::new(attempt.clone(), now.wall, self.account.organization.clone()));
                let finalizers = with_finalizer(&facts.object.finalizers);
                let answer = world.write_object(facts, fault, |object| {
                    object.ledger = Ledger::new(entries);
                    object.finalizers = finalizers;
                });
                if answer == Answer::Done {
                    self.memory.mark_written(&attempt);
                }
                answer
            }
            Step::WriteLedger(entries) => {
                let ledger = Ledger::new(entries.clone());
                world.write_object(facts, fault, |object| object.ledger = ledger)
            }
            Step::Mint(attempt) => self.mint(world, facts, attempt, fault),
            Step::CheckKey { key_id, .. } => match fault {
                Some(fault @ Fault::Boltz(_)) => Answer::Checked(KeyCheck::Unclear(format!("{fault:?}"))),
                Some(fault) => api_fault(fault),
                None => Answer::Checked(world.check_key(key_id)),
            },
            Step::Store { attempt, record } => {
                let Some(value) = self.values.get(attempt).cloned() else { return Ok(Answer::Stale) };
                self.memory.mark_storing(attempt);
                let name = facts.object.secret_name().to_owned();
                let expected = match &facts.secret {
                    SecretFacts::Ours(own) => own.resource_version.parse().ok(),
                    SecretFacts::Absent | SecretFacts::Foreign(_) => None,
                };
                let version = world.next_version();
                let secret = Secret {
                    uid: format!("secret-{version}"),
                    version,
                    // A webhook takes it off.
                    record: (fault != Some(Fault::Undone)).then(|| (**record).clone()),
                    value: Some(value),
                    owner: Some(facts.object.uid.clone()),
                    owned: facts.object.owns_its_secret(),
                };
                if let Some(Fault::Late(by)) = fault {
                    let secret = Box::new(secret.clone());
                    let name = name.clone();
                    let sent_at = world.aged();
                    world
                        .late
                        .push((world.elapsed + by, Late::WriteSecret { name, expected, secret, sent_at }));
                }
                let fits = world.secrets.get(&name).map(|known| known.version) == expected;
                if (has_effect || fault == Some(Fault::Undone)) && fits {
                    world.counts.secret_writes += 1;
                    world.put_secret(name.clone(), secret.clone());
                }
                match fault {
                    None | Some(Fault::Undone) if !fits => api_failed(Verdict::Conflict),
                    Some(Fault::Undone) => Answer::Unrecorded,
                    Some(fault) => api_fault(fault),
                    None => {
                        world.show_secret(facts, &name);
                        Answer::Done
                    }
                }
            }
            Step::WriteStatus(status) => {
                let answer = world.write_object(facts, fault, |object| object.status = (**status).clone());
                if has_effect && answer != api_failed(Verdict::Conflict) {
                    world.counts.object_writes = world.counts.object_writes.saturating_sub(1);
                    world.counts.status_writes += 1;
                }
                answer
            }
            Step::Revoke { key_id, reason } => {
                if has_effect {
                    world.revoke(&facts.object.uid, key_id, *reason);
                }
                facts.live = false;
                match fault {
                    Some(Fault::NotFound) => Answer::KeyNotFound,
                    // Boltz says so, and it is not true.
                    Some(Fault::Undone) => Answer::Done,
                    Some(fault) => boltz_fault(fault),
                    None => Answer::Done,
                }
            }
            Step::AddFinalizer => {
                let finalizers = with_finalizer(&facts.object.finalizers);
                world.write_object(facts, fault, |object| object.finalizers = finalizers)
            }
            Step::WriteRecord(record) => {
                world.write_secret(facts, fault, |secret| secret.record = Some((**record).clone()))
            }
            Step::MoveSecret { from } => {
                let name = facts.object.secret_name().to_owned();
                let known = facts.other_secrets.iter().find(|secret| secret.name == *from);
                let source = world.secrets.get(from).filter(|stored| {
                    known.is_some_and(|known| known.resource_version == stored.version.to_string())
                });
                match (source.cloned(), fault) {
                    (None, _) => Answer::Stale,
                    (Some(_), _) if world.secrets.contains_key(&name) => api_failed(Verdict::Conflict),
                    (Some(mut secret), fault) => {
                        if has_effect {
                            let version = world.next_version();
                            secret.uid = format!("secret-{version}");
                            secret.version = version;
                            reshape(&mut secret, facts);
                            world.secrets.insert(name.clone(), secret);
                            world.counts.secret_writes += 1;
                        }
                        if fault.is_none() {
                            world.show_secret(facts, &name);
                        }
                        fault.map_or(Answer::Done, api_fault)
                    }
                }
            }
            Step::DeleteSecret { name, uid } => {
                if has_effect && world.secrets.get(name).is_some_and(|secret| secret.uid == *uid) {
                    world.secrets.remove(name);
                    world.counts.secret_writes += 1;
                }
                if fault.is_none() {
                    facts.other_secrets.retain(|secret| secret.name != *name);
                }
                fault.map_or(Answer::Done, api_fault)
            }
            Step::Reshape => {
                let wanted = facts.clone();
                world.write_secret(facts, fault, |secret| reshape(secret, &wanted))
            }
            Step::RestartWorkload { .. } => fault.map_or(Answer::Done, api_fault),
            Step::ReleaseSecret { name } => {
                if has_effect && let Some(secret) = world.secrets.get_mut(name) {
                    secret.owned = false;
                }
                fault.map_or(Answer::Done, api_fault)
            }
            Step::RemoveFinalizer { .. } => {
                let answer = world.write_object(facts, fault, |object| {
                    object.finalizers.retain(|finalizer| finalizer != FINALIZER);
                });
                world.end_deletion();
                match answer {
                    Answer::Done | Answer::ApiFailed(ApiFailure { verdict: Verdict::NotFound, .. }) => {
                        Answer::Gone
                    }
                    answer => answer,
                }
            }
        };
        world.follow_deliveries(By::Operator(world.aged()));
        world.note(step, &answer, fault);
        if fault == Some(Fault::CrashAfter) { Err(Crashed) } else { Ok(answer) }
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
        let (days, livemode) = (spec.expires_in_days, spec.mode == Mode::Live);
        if let Some(Fault::Late(by)) = fault {
            let object = facts.object.uid.clone();
            world.late.push((world.elapsed + by, Late::Post { object, attempt: attempt.clone(), days }));
        }
        if fault.is_some_and(|fault| !fault.has_effect()) {
            return fault.map_or(Answer::Stale, boltz_fault);
        }
        let key = world.make_key(&facts.object.uid, attempt, days);
        if let Some(fault) = fault {
            return boltz_fault(fault);
        }
        let minted = MintedKey {
            prefix: format!("sk_{}", key.id),
            id: key.id,
            value_sha256: value_sha256(key.value.as_bytes()),
            received_at: world.wall(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            livemode,
            workspace_id: Some("workspace".to_owned()),
            organization: self.account.organization.clone(),
        };
        self.values.insert(attempt.clone(), key.value);
        Answer::Minted(Box::new(minted))
    }
}

impl World {
    /// A write of the object under its resourceVersion and UID; the answer becomes a fact.
    fn write_object(
        &mut self,
        facts: &mut Facts,
        fault: Option<Fault>,
        change: impl FnOnce(&mut boltz_operator::plan::ObjectFacts),
    ) -> Answer {
        if fault.is_some_and(|fault| !fault.has_effect()) {
            return fault.map_or(Answer::Stale, api_fault);
        }
        match &self.object {
            None => return fault.map_or_else(|| api_failed(Verdict::NotFound), api_fault),
            Some(object)
                if object.uid != facts.object.uid
                    || object.resource_version != facts.object.resource_version =>
            {
                return fault.map_or_else(|| api_failed(Verdict::Conflict), api_fault);
            }
            Some(_) => {}
        }
        self.change_object(change);
        if fault.is_none() {
            facts.object = self.object.clone().unwrap();
        }
        fault.map_or(Answer::Done, api_fault)
    }

    /// A write of the object's own Secret under the UID and version that the facts hold.
    fn write_secret(
        &mut self,
        facts: &mut Facts,
        fault: Option<Fault>,
        change: impl FnOnce(&mut Secret),
    ) -> Answer {
        let SecretFacts::Ours(own) = &facts.secret else { return Answer::Stale };
        let name = own.name.clone();
        let fits = self.secrets.get(&name).is_some_and(|stored| {
            stored.uid == own.uid && stored.version.to_string() == own.resource_version
        });
        if fault.is_none_or(Fault::has_effect) && fits {
            let version = self.next_version();
            let secret = self.secrets.get_mut(&name).unwrap();
            change(secret);
            secret.version = version;
            self.counts.secret_writes += 1;
        }
        match fault {
            Some(fault) => api_fault(fault),
            None if !fits => api_failed(Verdict::Conflict),
            None => {
                self.show_secret(facts, &name);
                Answer::Done
            }
        }
    }

    /// What an answered write showed of the wanted Secret becomes a fact.
    fn show_secret(&self, facts: &mut Facts, name: &str) {
        let own = own_secret(name, &self.secrets[name], &facts.object.uid);
        facts.secret = SecretFacts::Ours(Box::new(own));
        facts.preflight_passed = false;
    }

    /// Remembers what was reached.
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

fn reshape(secret: &mut Secret, facts: &Facts) {
    secret.owned = facts.object.owns_its_secret();
    if let (Some(record), Ok(spec)) = (&mut secret.record, &facts.object.spec) {
        record.take_shape(spec, &facts.account.base_url);
    }
}

//! The executor: carries out a step against the API server and Boltz.

use crate::{Crashed, Fault, Process, SECOND, Secret, World, api_server::own_secret, faults::Late};
use boltz_operator::{
    api::{FINALIZER, Mode},
    ledger::{Ledger, LedgerEntry},
    marker::AttemptId,
    plan::{Block, Facts, MintedKey, Reason, SecretFacts, Step, with_finalizer},
    record::value_sha256,
};

impl Process {
    /// Carries out a step as the executor does. `Ok(true)`: read again.
    pub(crate) fn execute(
        &mut self,
        world: &mut World,
        facts: &mut Facts,
        step: Step,
        fault: Option<Fault>,
    ) -> Result<bool, Crashed> {
        if fault == Some(Fault::CrashBefore) {
            return Err(Crashed);
        }
        let has_effect = !matches!(fault, Some(Fault::Cut | Fault::Refused | Fault::Late(_)));
        let is_lost = matches!(fault, Some(Fault::Cut | Fault::Lost | Fault::Late(_)));
        let read_again = match step {
            Step::Wait => false,
            Step::Preflight => match fault {
                Some(Fault::Refused) => {
                    self.block_storing(world);
                    false
                }
                Some(_) => true,
                None => {
                    let name = facts.object.secret_name();
                    let stored = world.secrets.get(name).map(|secret| secret.version.to_string());
                    let known = match &facts.secret {
                        SecretFacts::Ours(own) => Some(own.resource_version.clone()),
                        SecretFacts::Absent | SecretFacts::Foreign(_) => None,
                    };
                    facts.preflight_passed = stored == known;
                    stored != known
                }
            },
            Step::WriteAttempt { keep, intent } => {
                let now = self.now(world);
                self.attempts += 1;
                let attempt = AttemptId::from_random(self.seed << 20 | self.attempts);
                self.memory.writing(attempt.clone(), *intent, now.monotonic);
                let mut entries = keep;
                entries.push(LedgerEntry { attempt: attempt.clone(), written_at: now.wall });
                let finalizers = with_finalizer(&facts.object.finalizers);
                let written = has_effect
                    && world.write_object(facts, |object| {
                        object.ledger = Ledger { entries };
                        object.finalizers = finalizers;
                    });
                if written && !is_lost {
                    self.memory.written(&attempt);
                }
                !written || is_lost
            }
            Step::Mint(attempt) => {
                world.counts.posts += 1;
                let spec = &self.memory.posting(&attempt).unwrap().intent.spec;
                let (days, livemode) = (spec.expires_in_days, spec.mode == Mode::Live);
                if let Some(Fault::Late(by)) = fault {
                    let object = facts.object.uid.clone();
                    world
                        .late
                        .push((world.elapsed + by, Late::Post { object, attempt: attempt.clone(), days }));
                }
                if has_effect {
                    let key = world.make_key(&facts.object.uid, &attempt, days);
                    if !is_lost && fault != Some(Fault::CrashAfter) {
                        let minted = MintedKey {
                            prefix: format!("sk_{}", key.id),
                            id: key.id,
                            value_sha256: value_sha256(key.value.as_bytes()),
                            received_at: world.wall(),
                            created_at: key.created_at,
                            expires_at: key.expires_at,
                            livemode,
                            workspace_id: Some("workspace".to_owned()),
                        };
                        self.values.insert(attempt.clone(), key.value);
                        self.memory.answered(&attempt, minted);
                    }
                } else if fault == Some(Fault::Refused) {
                    self.memory.not_posted(&attempt);
                    self.memory.rejected = Some((facts.object.generation, "Boltz says no.".to_owned()));
                }
                false
            }
            Step::Store { attempt, record } => {
                let Some(value) = self.values.get(&attempt).cloned() else { return Ok(false) };
                let was_in_doubt = self.memory.storing(&attempt);
                let name = facts.object.secret_name().to_owned();
                let expected = match &facts.secret {
                    SecretFacts::Ours(own) => own.resource_version.parse().ok(),
                    SecretFacts::Absent | SecretFacts::Foreign(_) => None,
                };
                let version = world.next_version();
                let secret = Secret {
                    uid: format!("secret-{version}"),
                    version,
                    record: Some(*record),
                    value: Some(value),
                    owner: Some(facts.object.uid.clone()),
                    owned: true,
                };
                if let Some(Fault::Late(by)) = fault {
                    let secret = Box::new(secret.clone());
                    let name = name.clone();
                    world.late.push((world.elapsed + by, Late::WriteSecret { name, expected, secret }));
                }
                let fits = world.secrets.get(&name).map(|known| known.version) == expected;
                let written = has_effect && fits;
                if written {
                    world.counts.secret_writes += 1;
                    world.put_secret(name.clone(), secret.clone());
                }
                if written && !is_lost && fault.is_none() {
                    self.memory.stored(&attempt);
                    self.values.remove(&attempt);
                    // The answer becomes a fact; nothing else is read.
                    facts.secret = SecretFacts::Ours(Box::new(own_secret(&name, &secret, &facts.object.uid)));
                    facts.preflight_passed = false;
                    return Ok(false);
                } else {
                    let refused = fault == Some(Fault::Refused);
                    self.memory.not_stored(&attempt, was_in_doubt || is_lost, refused);
                    if is_lost || refused {
                        self.block_storing(world);
                    }
                }
                true
            }
            Step::WriteStatus(status) => {
                let written =
                    has_effect && world.write_object(facts, |object| object.status = *status.clone());
                if written {
                    world.counts.object_writes -= 1;
                    world.counts.status_writes += 1;
                }
                if written && !is_lost {
                    let now = self.now(world).monotonic;
                    self.memory.reported(&status, now);
                }
                !written || is_lost
            }
            Step::Revoke { key_id, reason } => {
                if has_effect {
                    world.revoke(&facts.object.uid, &key_id, reason);
                }
                facts.live = false;
                if is_lost || fault == Some(Fault::Refused) {
                    let until = Some(self.now(world).monotonic.plus(SECOND));
                    let (reason, message) = (Reason::BoltzUnavailable, "Boltz is silent.".to_owned());
                    self.memory.revoke_blocked = Some(Block { reason, message, until });
                } else {
                    self.memory.revoked(&key_id);
                }
                false
            }
            Step::AddFinalizer => {
                let finalizers = with_finalizer(&facts.object.finalizers);
                let written =
                    has_effect && world.write_object(facts, |object| object.finalizers = finalizers);
                !written || is_lost
            }
            Step::WriteRecord(record) => {
                if has_effect {
                    world.patch_secret(facts, |secret| secret.record = Some(*record));
                }
                true
            }
            Step::MoveSecret { from } => {
                let name = facts.object.secret_name();
                let known = facts.other_secrets.iter().find(|secret| secret.name == from);
                let source = world.secrets.get(&from).filter(|stored| {
                    known.is_some_and(|known| known.resource_version == stored.version.to_string())
                });
                let copy = source.filter(|_| has_effect && !world.secrets.contains_key(name)).cloned();
                if let Some(mut secret) = copy {
                    let version = world.next_version();
                    secret.uid = format!("secret-{version}");
                    secret.version = version;
                    reshape(&mut secret, facts);
                    world.secrets.insert(name.to_owned(), secret);
                    world.counts.secret_writes += 1;
                }
                true
            }
            Step::DeleteSecret { name, uid } => {
                if has_effect && world.secrets.get(&name).is_some_and(|secret| secret.uid == uid) {
                    world.secrets.remove(&name);
                    world.counts.secret_writes += 1;
                }
                true
            }
            Step::Reshape => {
                if has_effect {
                    world.patch_secret(facts, |secret| reshape(secret, facts));
                }
                true
            }
            Step::RestartWorkloads => {
                self.memory.restarted_for = facts.record().map(|record| record.key_id.clone());
                false
            }
            Step::ReleaseSecret { name } => {
                world.secrets.get_mut(&name).unwrap().owned = false;
                true
            }
            Step::DropFinalizer { .. } => {
                let dropped = has_effect
                    && world.write_object(facts, |object| {
                        object.finalizers.retain(|finalizer| finalizer != FINALIZER);
                    });
                world.end_deletion();
                // The object is let go, or not: a read tells.
                let _ = dropped;
                true
            }
        };
        if fault == Some(Fault::CrashAfter) { Err(Crashed) } else { Ok(read_again) }
    }

    fn block_storing(&mut self, world: &World) {
        let until = Some(self.now(world).monotonic.plus(SECOND));
        let (reason, message) = (Reason::SecretWriteFailed, "The Secret cannot be written.".to_owned());
        self.memory.store_blocked = Some(Block { reason, message, until });
    }
}

fn reshape(secret: &mut Secret, facts: &Facts) {
    if let (Some(record), Ok(spec)) = (&mut secret.record, &facts.object.spec) {
        record.take_shape(spec);
    }
}

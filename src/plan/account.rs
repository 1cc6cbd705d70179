//! Which account an object uses, and what that account allows it. No object changes its account: its keys are there.

use super::{
    Decision,
    block::{Block, Reason},
    facts::{Facts, ObjectFacts},
};
use crate::{
    api::{BoltzApiKeySpec, DeletionPolicy, Mode},
    protocol::{account_name::AccountName, record::IssueReason},
};
use std::fmt::Display;

/// The account of objects that name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultAccount {
    /// It is this one.
    Is(AccountName),
    /// There is none, and why.
    None(String),
    /// The `BoltzAccounts` were not read yet.
    Unknown,
}

impl Default for DefaultAccount {
    fn default() -> Self {
        Self::Is(AccountName::OF_FLAGS)
    }
}

/// The account that an object uses.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenAccount {
    /// Its name. `None`: it uses none, and `blocked` says why.
    pub name: Option<AccountName>,
    /// The object asks for another account than the one that it uses: what it is told.
    pub stays: Option<String>,
    /// Why it can use no account yet.
    pub blocked: Option<Block>,
}

impl ChosenAccount {
    fn is(name: AccountName) -> Self {
        Self { name: Some(name), stays: None, blocked: None }
    }

    fn none(reason: Reason, message: String) -> Self {
        Self { name: None, stays: None, blocked: Some(Block { reason, message, until: None }) }
    }
}

/// What an account allows the objects of one namespace. The default allows everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountPolicy {
    /// Why they may not use the account at all.
    pub refusal: Option<String>,
    /// The workspaces of keys. Empty: all.
    pub workspaces: Vec<String>,
    /// The workspace of keys whose object names none.
    pub default_workspace: Option<String>,
    /// The modes of keys. Empty: all.
    pub modes: Vec<Mode>,
    /// The longest life of a key.
    pub max_expires_in_days: Option<u32>,
    /// Every key must expire.
    pub require_expiry: bool,
    /// How many live keys there may be, and how many there are: stored, or requested for other objects.
    pub live_keys: Option<LiveKeys>,
    /// No key may be retained.
    pub forbids_retain: bool,
    /// The account is being deleted. Objects that have a key keep a valid one, and no other gets one.
    pub is_ending: bool,
}

/// The live keys of a namespace's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveKeys {
    /// How many there may be.
    pub most: u32,
    /// How many there are. `None`: no pass over Boltz's list shows it yet.
    pub now: Option<u32>,
}

/// Whether a new key is issued although a namespace has as many as it may have, or the account is being deleted: without it
/// a workload would lose its key, or a leaked key would stay.
pub fn outlasts_limit(reason: IssueReason) -> bool {
    matches!(reason, IssueReason::Renewal | IssueReason::KeyInactive | IssueReason::RotateNow)
}

impl AccountPolicy {
    /// The workspace that a key of this object is requested for. `None`: Boltz's default workspace.
    pub fn workspace_of<'a>(&'a self, spec: &'a BoltzApiKeySpec) -> Option<&'a str> {
        let asked = [&spec.workspace_id, &self.default_workspace].into_iter().flatten();
        asked.map(String::as_str).find(|id| !id.is_empty())
    }

    /// What of the spec is not allowed.
    fn violations(&self, object: &ObjectFacts, spec: &BoltzApiKeySpec) -> Vec<String> {
        let mut violations = Vec::new();
        let workspace = self.workspace_of(spec);
        if !self.workspaces.is_empty() && !self.workspaces.iter().any(|id| Some(id.as_str()) == workspace) {
            let asked = workspace.map_or_else(|| "Boltz's default workspace".to_owned(), quoted);
            violations.push(format!("workspaceID {asked}; allowed: {}", listed(&self.workspaces)));
        }
        if !self.modes.is_empty() && !self.modes.contains(&spec.mode) {
            let name = |mode: Mode| match mode {
                Mode::Live => "live",
                Mode::Test => "test",
            };
            let allowed = self.modes.iter().copied().map(name);
            violations.push(format!("mode {}; allowed: {}", name(spec.mode), listed(allowed)));
        }
        match (spec.expires_in_days, self.max_expires_in_days) {
            (Some(days), Some(most)) if days > most => {
                violations.push(format!("expiresInDays {days}; at most {most}"));
            }
            (None, Some(most)) => violations.push(format!("no expiresInDays; at most {most}")),
            (None, None) if self.require_expiry => violations.push("no expiresInDays".to_owned()),
            _ => {}
        }
        if self.forbids_retain && object.wanted_deletion_policy() == Ok(DeletionPolicy::Retain) {
            violations.push("deletionPolicy Retain".to_owned());
        }
        violations
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

impl Facts {
    /// The account of the object's keys and attempts: that of this process's own attempt, else of its status, which tenants
    /// usually cannot write, else of its record, else of its newest attempt. `None`: it has made no attempt yet. What an
    /// earlier release wrote is of the flags' account.
    pub fn pinned_account(&self) -> Option<AccountName> {
        let status = &self.object.status;
        let of_process = || self.memory.account.clone();
        let of_status = || status.key_id.as_ref().map(|_| AccountName::from(status.account_name.clone()));
        let of_record = || self.record().map(|record| record.account.clone());
        let of_attempt = || self.object.ledger.entries.last().map(|entry| entry.account.clone());
        of_process().or_else(of_status).or_else(of_record).or_else(of_attempt)
    }

    /// The account that the object uses: the one of its keys, else the one that its spec names, else the default.
    pub fn choose_account(&self, default: &DefaultAccount) -> ChosenAccount {
        let asked = self.object.spec.as_ref().ok().and_then(|spec| spec.account_ref.as_ref());
        let wanted = match asked {
            Some(asked) => DefaultAccount::Is(AccountName::named(&asked.name)),
            None => default.clone(),
        };
        match (self.pinned_account(), wanted) {
            (Some(pinned), DefaultAccount::Is(wanted)) if pinned != wanted => ChosenAccount {
                stays: Some(format!(
                    "The keys of this object belong to {pinned}, and an object cannot change its account: {} is {wanted}. \
                     Nothing is changed. To use {wanted}, create a new object.",
                    if asked.is_some() { "spec.accountRef" } else { "the default account" },
                )),
                ..ChosenAccount::is(pinned)
            },
            (Some(name), _) | (None, DefaultAccount::Is(name)) => ChosenAccount::is(name),
            (None, DefaultAccount::None(why)) => ChosenAccount::none(Reason::PolicyDenied, why),
            (None, DefaultAccount::Unknown) => ChosenAccount::none(
                Reason::Pending,
                "The operator has not read the BoltzAccounts yet.".to_owned(),
            ),
        }
    }

    /// Applies what the account says of deletions: if it allows no key to be retained, none is, whatever the spec and the
    /// annotation say.
    pub fn apply_account_policy(&mut self) {
        self.object.retain_is_forbidden = self.account.policy.forbids_retain;
    }
}

impl Decision<'_> {
    /// Why the object's account allows it no key for this reason; without a reason, what its spec violates.
    pub(super) fn policy_denies(&self, reason: Option<IssueReason>) -> Option<Block> {
        let object = &self.facts.object;
        let ObjectFacts { spec, namespace, .. } = object;
        let (account, policy) = (&self.facts.account, &self.facts.account.policy);
        let denied = |message, until| Some(Block { reason: Reason::PolicyDenied, message, until });
        if let Some(refusal) = &policy.refusal {
            return denied(format!("{refusal} No key is issued."), None);
        }
        let violations = policy.violations(object, spec.as_ref().ok()?);
        if !violations.is_empty() {
            let message =
                format!("{} does not allow this: {}. No key is issued.", account.name, violations.join("; "));
            return denied(message, None);
        }
        let is_new = reason.is_some_and(|reason| !outlasts_limit(reason));
        if is_new && policy.is_ending {
            return denied(format!("{} is being deleted. No key is issued.", account.name), None);
        }
        // Nothing tells when another object's key is gone.
        let until = Some(self.now.monotonic.plus(self.settings.recheck));
        match policy.live_keys? {
            // Without a usable admin key it is never read, and that is what is to be said.
            LiveKeys { now: None, .. } if is_new && !self.needs_somebody_for_calls() => {
                let message =
                    "How many live keys the namespace has is not known before Boltz's list was read."
                        .to_owned();
                Some(Block { reason: Reason::Pending, message, until })
            }
            LiveKeys { most, now: Some(now) }
                if (is_new && now >= most) || (reason.is_none() && now > most) =>
            {
                let end = match reason {
                    Some(_) => "No key is issued.",
                    None => "Keys are renewed, and no other key is issued.",
                };
                let message = format!(
                    "{} allows namespace {namespace} {most} live keys, and it has {now}: current ones, previous ones in \
                     their overlap, requested ones, and those of deleted objects that were not revoked. {end}",
                    account.name
                );
                denied(message, until)
            }
            LiveKeys { .. } => None,
        }
    }

    fn needs_somebody_for_calls(&self) -> bool {
        self.in_effect(&self.facts.account.calls_blocked).is_some_and(|block| block.reason.is_stalled())
    }

    /// What the status says of the account besides what is in the way of a key: the object asks for another account, or
    /// has a key that its account would not allow it now.
    pub(super) fn report_account(&mut self) {
        let stays = self.facts.account.stays.clone();
        let stays = stays.map(|message| Block { reason: Reason::PolicyDenied, message, until: None });
        let violated = self.policy_denies(None).filter(|block| self.findings.blocked.as_ref() != Some(block));
        self.findings.also.extend(stays.into_iter().chain(violated));
    }
}

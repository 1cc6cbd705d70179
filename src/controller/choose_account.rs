//! The account that an object uses, and the facts about it.

use super::Context;
use crate::{
    boltz::accounts::ServedAccount,
    plan::{AccountFacts, AccountPolicy, Block, ChosenAccount, DefaultAccount, Facts, LiveKeys, Now, Reason},
    protocol::{account_name::AccountName, marker::ObjectMark},
};
use std::sync::Arc;

/// Chooses the account, and puts what is known of it into the facts. An object that used another one before wants no key of
/// that any more.
pub(super) fn choose_account(
    context: &Context,
    facts: &mut Facts,
    mark: &ObjectMark,
    now: Now,
) -> Option<Arc<ServedAccount>> {
    let default = context.accounts.default_account();
    let ChosenAccount { name, stays, blocked } = facts.choose_account(&default);
    // Nothing is called so.
    let name = name.unwrap_or_else(|| AccountName::named(""));
    let is_pinned = facts.pinned_account().is_some();
    let before = context.awaited.set_account(*mark, &name, is_pinned);
    if let Some(before) = before.and_then(|before| context.accounts.get(&before)) {
        before.account.object_gone(&facts.object.uid, now.monotonic);
        before.forget(mark);
    }
    let served = context.accounts.get(&name);
    if let Some(served) = served.as_ref().filter(|_| !name.is_of_flags()) {
        served.live_keys.set_user(&facts.object.namespace, *mark);
    }
    facts.account = match &served {
        Some(served) => AccountFacts {
            stays,
            policy: policy(context, served, facts, mark, now),
            list_failing: served.inventory.list_failing(),
            ..served.account.facts(&facts.object, now.monotonic)
        },
        None => absent(context, name, blocked, default == DefaultAccount::Unknown, facts.object.deleting),
    };
    facts.apply_account_policy();
    served
}

/// The facts about an account that is not served.
fn absent(
    context: &Context,
    name: AccountName,
    blocked: Option<Block>,
    is_unread: bool,
    deleting: bool,
) -> AccountFacts {
    let of_name = || {
        let (reason, message) = context.accounts.why_unserved(&name);
        Block { reason, message, until: None }
    };
    let block = match is_unread {
        true => Block { reason: Reason::Pending, message: context.accounts.why_unread(), until: None },
        false => blocked.unwrap_or_else(of_name),
    };
    // Whether a `BoltzAccount` that exists allows keys to be retained is not known. Until it is, none is: a deletion waits.
    let forbids_retain = deleting && (is_unread || context.accounts.exists(&name));
    let policy = AccountPolicy { forbids_retain, ..AccountPolicy::default() };
    AccountFacts { name, policy, calls_blocked: Some(block), is_absent: true, ..AccountFacts::default() }
}

/// What the account allows this object.
fn policy(
    context: &Context,
    served: &ServedAccount,
    facts: &Facts,
    mark: &ObjectMark,
    now: Now,
) -> AccountPolicy {
    let Some(rules) = served.rules() else { return AccountPolicy::default() };
    let namespace = &facts.object.namespace;
    let refused = context.accounts.admits(&rules, served.name(), namespace).err();
    let live_keys = rules.max_per_namespace.map(|most| {
        let passes = served.inventory.snapshots();
        let count = served.live_keys.count(namespace, Some(*mark), &passes, now);
        LiveKeys { most, now: count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)) }
    });
    AccountPolicy { refusal: rules.policy.refusal.clone().or(refused), live_keys, ..rules.policy.clone() }
}

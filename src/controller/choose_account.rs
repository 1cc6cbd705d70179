//! The account that an object uses, and the facts about it.

use super::Context;
use crate::{
    boltz::accounts::ServedAccount,
    plan::{
        AccountFacts, AccountPolicy, Block, ChosenAccount, DefaultAccount, Facts, LiveKeys, Monotonic, Reason,
    },
    protocol::{account_name::AccountName, marker::ObjectMark},
};
use std::sync::Arc;

/// Chooses the account, and puts what is known of it into the facts. An object that used another one before wants no key of
/// that any more.
pub(super) fn choose_account(
    context: &Context,
    facts: &mut Facts,
    mark: &ObjectMark,
    now: Monotonic,
) -> Option<Arc<ServedAccount>> {
    let default = context.accounts.default_account();
    let ChosenAccount { name, stays, blocked } = facts.choose_account(&default);
    // Nothing is called so.
    let name = name.unwrap_or_else(|| AccountName::named(""));
    let before = context.awaited.set_account(*mark, &name);
    if let Some(before) = before.and_then(|before| context.accounts.get(&before)) {
        before.account.object_gone(&facts.object.uid, now);
        before.inventory.forget(mark);
    }
    let served = context.accounts.get(&name);
    facts.account = match &served {
        Some(served) => AccountFacts {
            stays,
            policy: policy(context, served, facts, now),
            list_failing: served.inventory.list_failing(),
            ..served.account.facts(&facts.object, now)
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
    let block = blocked.unwrap_or_else(|| {
        let (reason, message) = match is_unread {
            true => (Reason::Pending, "The operator has not read the BoltzAccounts yet.".to_owned()),
            false => (Reason::PolicyDenied, context.accounts.why_unserved(&name)),
        };
        Block { reason, message, until: None }
    });
    // Whether keys may be retained is not known yet.
    let policy = AccountPolicy { forbids_retain: is_unread && deleting, ..AccountPolicy::default() };
    AccountFacts { name, policy, calls_blocked: Some(block), is_absent: true, ..AccountFacts::default() }
}

/// What the account allows this object.
fn policy(context: &Context, served: &ServedAccount, facts: &Facts, now: Monotonic) -> AccountPolicy {
    let Some(rules) = served.rules() else { return AccountPolicy::default() };
    let (namespace, uid) = (&facts.object.namespace, &facts.object.uid);
    let refused = context.accounts.admits(&rules, served.name(), namespace).err();
    let live_keys = rules.max_per_namespace.map(|most| {
        let stored = context.secrets.live_keys(namespace, served.name());
        let requested = served.requested_beside(uid, namespace, now);
        LiveKeys { most, now: u32::try_from(stored + requested).unwrap_or(u32::MAX) }
    });
    AccountPolicy { refusal: rules.policy.refusal.clone().or(refused), live_keys, ..rules.policy.clone() }
}

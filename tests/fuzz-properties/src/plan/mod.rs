//! Decisions about objects, Secrets and lists that anybody may have written. The input's form: `input.rs`.

mod input;
mod undisturbed;

use boltz_operator::plan::{AccountFacts, Block, Facts, Monotonic, Now, Reason, Step, later, plan};
use input::Input;
use std::time::Duration;

/// When decisions are taken: at first sight, around the window's and the settling's end, and long after.
const MOMENTS: [u64; 5] = [0, 59, 61, 181, 7200];

/// Holds for every input, or panics.
pub fn check(text: &str) {
    let input = Input::read(text);
    decide(&input);
    undisturbed::check(&input);
}

/// No decision panics, wants to be woken in the past, or revokes what is not surely the object's.
fn decide(input: &Input) {
    let object = input.object();
    let (secret, other_secrets) = input.secrets(&object);
    let settings = input.settings();
    let mut memory = input.memory(&object);
    for seconds in MOMENTS {
        let after = Duration::from_secs(seconds);
        let now = Now { wall: later(input.now, after), monotonic: Monotonic(after) };
        let mut facts = Facts {
            object: object.clone(),
            secret: secret.clone(),
            other_secrets: other_secrets.clone(),
            live: true,
            preflight_passed: false,
            passes: Vec::new(),
            memory: memory.clone(),
            account: AccountFacts::default(),
        };
        facts.passes = input.passes(&facts, now);
        memory.learn(&mut facts, &settings, now);
        facts.memory = memory.clone();
        for is_blocked in [false, true] {
            facts.account.calls_blocked = is_blocked.then(|| Block {
                reason: Reason::BoltzUnavailable,
                message: "Boltz is silent.".to_owned(),
                until: Some(Monotonic(Duration::from_secs(100))),
            });
            for preflight_passed in [false, true] {
                facts.preflight_passed = preflight_passed;
                let decision = plan(&facts, &settings, now);
                if let Some(at) = decision.wake_at {
                    assert!(at > now.monotonic, "woken at {at:?}, which is not after {now:?}");
                }
                if let Step::Revoke { key_id, .. } = &decision.step {
                    let is_ours = facts.memory.minted(key_id).is_some() || facts.listed(key_id).is_some();
                    assert!(is_ours, "{key_id} is revoked on the word of an annotation");
                }
            }
        }
    }
}

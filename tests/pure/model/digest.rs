//! What tells two states of the model apart, as text.
//!
//! Left out are the numbers of versions: of a version that somebody holds it matters only whether it is still
//! the current one, because none comes back. Nor does it matter what attempts and keys are called, which process is which,
//! or what was revoked and is not spoken of any more.

use super::{
    State,
    actor::{Actor, Phase},
};
use boltz_operator::{
    plan::{Facts, ObjectFacts, OwnSecret, SecretFacts},
    protocol::{marker::AttemptId, record::value_sha256},
};
use plan_world::{Key, Lie, Secret, World, key_id, key_value};
use std::{
    collections::HashMap,
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

/// More keys than any space makes.
const MOST_KEYS: usize = 64;

/// The number of the key whose value has that hash.
static KEY_OF_HASH: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let ids = (1..=MOST_KEYS).map(key_id);
    ids.map(|id| (value_sha256(key_value(&id).as_bytes()), id)).collect()
});

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.fingerprint().hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl State {
    /// Of the least of the texts for each order of the processes: at most two.
    fn fingerprint(&self) -> u64 {
        let surroundings = self.surroundings();
        let actors: Vec<String> = self.actors.iter().map(|actor| told(actor, &self.world)).collect();
        let is_spoken_of =
            |name: &str| surroundings.contains(name) || actors.iter().any(|told| told.contains(name));
        let matters =
            |key: &&Key| !key.revoked || is_spoken_of(&key.id) || is_spoken_of(key.attempt.as_str());
        let keys: String = self.world.keys.iter().filter(matters).map(told_key).collect();
        let whole = |(actor, told): (&Actor, &String)| {
            let mut told = told.clone();
            for (started, list) in actor.process.lists() {
                let _ = write!(told, "{started:?}");
                told.extend(list.iter().filter(matters).map(told_key));
            }
            told
        };
        let mut whole: Vec<String> = self.actors.iter().zip(&actors).map(whole).collect();
        let text = |actors: &[String]| without_names(&format!("{surroundings} {} {keys} ", actors.concat()));
        let mut least = text(&whole);
        if whole.len() > 1 {
            whole.reverse();
            least = least.min(text(&whole));
        }
        let mut hasher = DefaultHasher::new();
        least.hash(&mut hasher);
        hasher.finish()
    }

    /// All but processes and keys.
    fn surroundings(&self) -> String {
        let Self {
            world,
            actors: _,
            faults,
            freezes,
            pauses,
            passes,
            users,
            starts: _,
            backup,
            orphaned,
            has_webhook,
            is_retained,
        } = self;
        let mut text = told_data(world, world);
        if let Some(backup) = backup {
            text += &told_data(backup, world);
        }
        let _ = write!(text, "{has_webhook} {is_retained} {} {} ", world.clock_error, world.counts.posts);
        let _ = write!(text, "{} ", self.writes());
        match &world.list_lies {
            Lie::None => {}
            Lie::Empty => text += "empty ",
            Lie::Old(keys) => text.extend(keys.iter().map(told_key)),
        }
        for (target, shown) in &world.workloads {
            let _ = write!(text, "{target} {shown:?} ");
        }
        let (late, overlaps, violation) = (world.late_and_time(), world.overlaps_told(), &world.violation);
        let _ = write!(
            text,
            "{faults} {freezes} {pauses} {passes} {users:?} {orphaned:?} {late} {overlaps} {violation:?}"
        );
        text
    }
}

fn told_key(key: &Key) -> String {
    // A key's value has its id in it, and why it was revoked changes nothing.
    let Key { id, object, attempt, value: _, created_at, expires_at, last_used_at, revoked, reason: _ } = key;
    format!("{id} {object} {attempt} {created_at} {expires_at:?} {last_used_at:?} {revoked} ")
}

/// The API server's data, as they were in that world.
fn told_data(seen: &World, world: &World) -> String {
    let mut text = told_object(seen.object.as_ref(), world);
    for (name, secret) in &seen.secrets {
        let current = world.secrets.get(name).map(|secret| secret.version);
        let Secret { uid: _, version, record, value, owner, owned } = secret;
        let is_current = Some(*version) == current;
        let _ = write!(text, "{name} {record:?} {value:?} {owner:?} {owned} {is_current} ");
    }
    text
}

fn told_object(object: Option<&ObjectFacts>, world: &World) -> String {
    let current = world.object.as_ref().map(|object| &object.resource_version);
    let is_current = object.map(|object| &object.resource_version) == current;
    let object = object.cloned().map(|object| ObjectFacts { resource_version: String::new(), ..object });
    format!("{object:?} {is_current} ")
}

fn told_secret(secret: &OwnSecret, world: &World) -> String {
    let stored = world.secrets.get(&secret.name);
    let is_current =
        stored.map(|stored| stored.version.to_string()).as_ref() == Some(&secret.resource_version);
    let is_same = stored.map(|stored| &stored.uid) == Some(&secret.uid);
    let OwnSecret { name, uid: _, resource_version: _, record, value_sha256, is_unread: _, labelled, owned } =
        secret;
    format!("{name} {record:?} {value_sha256:?} {labelled} {owned} {is_current} {is_same} ")
}

fn told_facts(facts: &Facts, world: &World) -> String {
    let mut text = told_object(Some(&facts.object), world);
    match &facts.secret {
        SecretFacts::Ours(own) => text += &told_secret(own, world),
        other => drop(write!(text, "{other:?}")),
    }
    text.extend(facts.other_secrets.iter().map(|own| told_secret(own, world)));
    text + &format!("{} {} ", facts.live, facts.preflight_passed)
}

/// A process, but for its lists of keys.
fn told(actor: &Actor, world: &World) -> String {
    let mut text = match &actor.phase {
        Phase::Idle { wake_at, pass_since } => format!("{wake_at:?} {pass_since:?} "),
        Phase::Observed(facts) => told_facts(facts, world),
    };
    if let Some(seen) = &actor.process.stale {
        text += &told_data(seen, world);
    }
    let (paused, naps) = (actor.paused, actor.naps);
    let (can_pass, is_due) = (actor.can_pass(world), actor.is_due(world));
    let repeats = actor.repeats();
    text + &format!("{paused} {naps} {can_pass} {is_due} {repeats} {}", actor.process.told())
}

/// The text with a number in the place of each name: names are numbered as they first appear.
fn without_names(text: &str) -> String {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut result = String::with_capacity(text.len());
    let (mut copied, mut start) = (0, 0);
    for (end, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            continue;
        }
        if let Some(name) = name_in(&text[start..end]) {
            let number = names.len();
            let number = *names.entry(name).or_insert(number);
            let _ = write!(result, "{}#{number}", &text[copied..start]);
            copied = end;
        }
        start = end + 1;
    }
    result + &text[copied..]
}

/// What an attempt, a key, or a value's hash is the name of; the model makes attempts' ids of small numbers.
fn name_in(word: &str) -> Option<&str> {
    match word.len() {
        12 if word.ends_with("00000") && word.parse::<AttemptId>().is_ok() => Some(word),
        64 => KEY_OF_HASH.get(word).map(String::as_str),
        _ => word.strip_prefix("key-")?.parse::<usize>().is_ok().then_some(word),
    }
}

//! The input of the target `plan`: lines, each a word and what it stands for. What cannot be read counts as absent, so
//! that one broken line leaves the others their meaning.

use boltz_operator::{
    api::{
        BoltzApiKeySpec, WatchedApiKey,
        annotations::{
            DELETION_POLICY_ANNOTATION, FINALIZER, LEDGER_ANNOTATION, PAUSED_ANNOTATION, ROTATE_ANNOTATION,
            ROTATE_NOW_ANNOTATION, ROTATE_OUTSIDE_WINDOW_ANNOTATION,
        },
    },
    boltz::{KeyDetails, cluster_names::ClusterNames, snapshot::Snapshot},
    controller::object_facts,
    duration::parse_duration,
    kubernetes::secret_metadata::{Ownership, SecretMetadata, Value as Stored},
    plan::{
        Facts, Intent, MintedKey, Monotonic, Now, ObjectFacts, OwnSecret, Pass, ProcessMemory, Progress,
        SecretFacts, Settings,
    },
    protocol::{
        marker::{MarkerFormat, ObjectMark},
        record::{IssueReason, Record, value_sha256},
    },
};
use jiff::Timestamp;
use plan_world::UID;
use serde_json::{Value, json};
use std::time::Duration;

/// The most lines of a kind that count: an annotation has room for more, but the time is better spent on other inputs.
const MOST: usize = 24;

/// What the lines say.
#[derive(Default)]
pub struct Input {
    /// `spec`: JSON.
    pub spec: Value,
    /// `status`: JSON.
    pub status: Value,
    /// `ledger`, `rotate`, `rotate-outside-window`, `rotate-now`, `paused`, `policy`: annotations of the object.
    pub annotations: serde_json::Map<String, Value>,
    /// `deleting`.
    pub deleting: bool,
    /// `finalizer`: the object has ours.
    pub finalizer: bool,
    /// `record`: the annotation of the Secret at the wanted name. Without one there is no such Secret.
    pub record: Option<String>,
    /// `value`: what that Secret holds.
    pub value: Option<String>,
    /// `foreign`: it belongs to somebody else.
    pub foreign: bool,
    /// `other`: the annotation of another Secret.
    pub other: Option<String>,
    /// `key`: a row of Boltz's list, JSON.
    pub keys: Vec<KeyDetails>,
    /// `calls`: how far this process got with each attempt of the ledger, a letter each.
    pub calls: String,
    /// `settle`: a duration.
    pub settle_time: Option<Duration>,
    /// `now`: what the calendar says.
    pub now: Timestamp,
    /// `ready`: the object got its key before anybody wrote all this.
    pub ready: bool,
}

impl Input {
    /// Reads the lines.
    pub fn read(text: &str) -> Self {
        let mut input = Self { spec: json!({}), now: start(), ..Self::default() };
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let mut annotate = |name: &str| drop(input.annotations.insert(name.to_owned(), rest.into()));
            match word {
                "spec" => input.spec = serde_json::from_str(rest).unwrap_or_default(),
                "status" => input.status = serde_json::from_str(rest).unwrap_or_default(),
                "ledger" => annotate(LEDGER_ANNOTATION),
                "rotate" => annotate(ROTATE_ANNOTATION),
                "rotate-outside-window" => annotate(ROTATE_OUTSIDE_WINDOW_ANNOTATION),
                "rotate-now" => annotate(ROTATE_NOW_ANNOTATION),
                "paused" => annotate(PAUSED_ANNOTATION),
                "policy" => annotate(DELETION_POLICY_ANNOTATION),
                "deleting" => input.deleting = true,
                "finalizer" => input.finalizer = true,
                "record" => input.record = Some(rest.to_owned()),
                "value" => input.value = Some(rest.to_owned()),
                "foreign" => input.foreign = true,
                "other" => input.other = Some(rest.to_owned()),
                "key" => {
                    let key = serde_json::from_str(rest).ok();
                    // Boltz's ids are unique.
                    let is_new = |key: &KeyDetails| input.keys.iter().all(|known| known.id != key.id);
                    if let Some(key) = key.filter(is_new).filter(|_| input.keys.len() < MOST) {
                        input.keys.push(key);
                    }
                }
                "calls" => input.calls = rest.to_owned(),
                "settle" => input.settle_time = parse_duration(rest).ok().filter(|time| !time.is_zero()),
                "now" => input.now = rest.parse().unwrap_or_else(|_| start()),
                "ready" => input.ready = true,
                _ => {}
            }
        }
        input
    }

    /// The object as the operator reads it from the API server's JSON.
    pub fn object(&self) -> ObjectFacts {
        let object: WatchedApiKey = serde_json::from_value(json!({
            "metadata": {
                "namespace": "team",
                "name": "key",
                "uid": UID,
                "resourceVersion": "1",
                "generation": 1,
                "annotations": self.annotations,
                "finalizers": if self.finalizer { vec![FINALIZER] } else { vec![] },
                "deletionTimestamp": self.deleting.then(start),
            },
            "spec": self.spec,
            "status": self.status,
        }))
        .expect("only metadata can be refused, and these are good");
        let mut object = object_facts(&object);
        object.ledger.entries.truncate(MOST);
        object
    }

    /// The Secrets as the operator reads them: the one at the wanted name, and the others of the object.
    pub fn secrets(&self, object: &ObjectFacts) -> (SecretFacts, Vec<OwnSecret>) {
        let metadata = |name: &str, record: &str, label: Option<&str>| SecretMetadata {
            namespace: object.namespace.clone(),
            name: name.to_owned(),
            uid: format!("uid of {name}"),
            resource_version: "1".to_owned(),
            owner_label: label.map(str::to_owned),
            record: Record::parse(Some(record)),
            owner_references: Vec::new(),
            deleting: false,
            adoptable_by: None,
            kind: None,
            immutable: false,
        };
        let label = (!self.foreign).then_some(UID);
        let wanted = self.record.as_ref().map(|record| metadata(object.secret_name(), record, label));
        let secret = match wanted.map(|wanted| (wanted.ownership(UID), wanted)) {
            None => SecretFacts::Absent,
            Some((Ownership::Foreign(whose), _)) => SecretFacts::Foreign(whose),
            Some((Ownership::Ours, wanted)) => {
                let hash = self.value.as_ref().map(|value| value_sha256(value.as_bytes()));
                SecretFacts::Ours(Box::new(wanted.as_own(UID, Stored::Read(hash))))
            }
        };
        let other = self
            .other
            .as_ref()
            .map(|record| metadata("other", record, Some(UID)).as_own(UID, Stored::Read(None)));
        (secret, other.into_iter().filter(|other| other.record.is_some()).collect())
    }

    /// The list as the operator reads it: the same rows in two passes, the newer one just begun.
    pub fn passes(&self, facts: &Facts, now: Now) -> Vec<Pass> {
        if self.keys.is_empty() {
            return Vec::new();
        }
        let names = ClusterNames::named("fuzz".parse().expect("a good name"), Vec::new(), MarkerFormat::One);
        let named: Vec<String> = facts.named_keys().into_iter().map(|key| key.id).collect();
        let view = |started| {
            let started = Now { monotonic: started, ..now };
            let named_ids = named.iter().cloned().collect();
            Snapshot::of(started, self.keys.iter().cloned(), &names, named_ids).view(
                &ObjectMark::from_uid(UID),
                named.iter().map(String::as_str),
                &[],
            )
        };
        vec![view(now.monotonic), view(now.monotonic.minus(Duration::from_secs(1)))]
    }

    /// What this process remembers of the attempts in the ledger.
    pub fn memory(&self, object: &ObjectFacts) -> ProcessMemory {
        let mut memory = ProcessMemory::default();
        let spec: BoltzApiKeySpec = object
            .spec
            .clone()
            .unwrap_or_else(|_| serde_json::from_value(json!({})).expect("every field has a default"));
        for (entry, letter) in object.ledger.entries.iter().zip(self.calls.chars()) {
            let attempt = &entry.attempt;
            let intent = Intent {
                reason: IssueReason::Initial,
                spec: spec.clone(),
                rotate: object.rotate.clone(),
                rotate_now: object.rotate_now.clone(),
            };
            let key = MintedKey {
                id: format!("key of {attempt}"),
                prefix: String::new(),
                value_sha256: value_sha256(attempt.as_str().as_bytes()),
                received_at: self.now,
                created_at: self.now,
                expires_at: None,
                livemode: true,
                organization: None,
                workspace_id: None,
            };
            memory.mark_writing(attempt.clone(), intent, Monotonic::default());
            // Each letter is a call further than the one before it.
            let calls = "wphd".find(letter).map_or(if letter == 's' { 3 } else { 0 }, |index| index + 1);
            if calls >= 1 {
                memory.mark_written(attempt);
            }
            if calls >= 2 {
                memory.mark_posting(attempt);
            }
            if calls >= 3
                && let Some(known) = memory.attempts.get_mut(attempt)
            {
                known.progress = match letter {
                    's' => Progress::Stored { key, is_reported: false },
                    _ => {
                        let calls_in_doubt = u32::from(letter == 'd');
                        Progress::InHand { key, calls_in_doubt, is_refused: false }
                    }
                };
            }
        }
        memory
    }

    /// The configuration.
    pub fn settings(&self) -> Settings {
        let settle_time = self.settle_time.unwrap_or(Duration::from_secs(120));
        Settings { settle_time, recheck: Duration::from_secs(60) }
    }
}

/// When nothing says otherwise. The world begins then, too.
pub fn start() -> Timestamp {
    Timestamp::from_second(1_795_478_400).expect("a good time")
}

//! The API server: one object and Secrets, with versions, UIDs, finalizers and garbage collection.

use crate::{World, overlaps::By};
use boltz_operator::{
    api::{BoltzApiKeySpec, BoltzApiKeyStatus, annotations::FINALIZER},
    plan::{ObjectFacts, OwnSecret},
    protocol::{
        ledger::Ledger,
        record::{Record, value_sha256},
    },
};

/// A Secret as the API server holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    pub uid: String,
    pub version: u64,
    pub record: Option<Record>,
    pub value: Option<String>,
    /// The object that it belongs to; none: it is somebody else's.
    pub owner: Option<String>,
    /// It has an ownerReference, so it goes with its object.
    pub owned: bool,
}

impl World {
    pub fn create(&mut self, uid: &str, spec: serde_json::Value) {
        let version = self.next_version();
        self.object = Some(ObjectFacts {
            namespace: "team".to_owned(),
            name: "key".to_owned(),
            uid: uid.to_owned(),
            resource_version: version.to_string(),
            generation: Some(1),
            deleting: false,
            has_finalizer: false,
            finalizers: Vec::new(),
            spec: Ok(spec_of(spec)),
            ledger: Ledger::default(),
            rotate: None,
            rotates_outside_window: false,
            rotate_now: None,
            retry: None,
            is_paused: false,
            deletion_policy: None,
            retain_is_forbidden: false,
            status: BoltzApiKeyStatus::default(),
        });
    }
    /// The API server's data as they were then; Boltz's stay.
    pub fn restore(&mut self, backup: World) {
        self.follow_deliveries(By::Users);
        self.object = backup.object;
        self.secrets = backup.secrets;
        let version = self.next_version();
        if let Some(object) = &mut self.object {
            object.resource_version = version.to_string();
        }
        for secret in self.secrets.values_mut() {
            secret.version = version;
        }
        self.follow_deliveries(By::Users);
    }

    pub fn object(&self) -> &ObjectFacts {
        self.object.as_ref().unwrap()
    }

    pub fn secret(&mut self) -> &mut Secret {
        let version = self.next_version();
        let secret = self.secrets.get_mut("key").unwrap();
        secret.version = version;
        secret
    }

    pub fn record(&self) -> &Record {
        self.secrets["key"].record.as_ref().unwrap()
    }

    /// Somebody edits the object's metadata or status.
    pub fn edit(&mut self, change: impl FnOnce(&mut ObjectFacts)) {
        self.follow_deliveries(By::Users);
        let version = self.next_version();
        let object = self.object.as_mut().unwrap();
        change(object);
        object.has_finalizer = object.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        object.resource_version = version.to_string();
        self.end_deletion();
        self.follow_deliveries(By::Users);
    }

    /// Somebody edits the object's spec. What changes nothing is no new generation, nor a new version.
    pub fn edit_spec(&mut self, spec: serde_json::Value) {
        let spec = Ok(spec_of(spec));
        if self.object().spec == spec {
            return;
        }
        self.edit(|object| {
            object.spec = spec;
            object.generation = object.generation.map(|generation| generation + 1);
        });
    }

    pub fn delete(&mut self) {
        self.edit(|object| object.deleting = true);
    }

    /// An object whose deletion nothing holds up goes, and the garbage collector takes what it owns.
    pub(crate) fn end_deletion(&mut self) {
        if self.object.as_ref().is_some_and(|object| object.deleting && object.finalizers.is_empty()) {
            let uid = self.object.take().unwrap().uid;
            self.secrets.retain(|_, secret| !(secret.owned && secret.owner.as_deref() == Some(&uid)));
        }
    }

    /// C3 takes effect.
    pub(crate) fn put_secret(&mut self, name: String, secret: Secret) {
        let lives = self.object.as_ref().filter(|object| !object.deleting).map(|object| &object.uid);
        let key = self.keys.iter().find(|key| Some(&key.value) == secret.value.as_ref());
        if lives == secret.owner.as_ref() && key.is_some_and(|key| key.revoked) {
            self.violation = Some(format!("{name} is stored with a revoked key"));
        }
        let before = self.secrets.insert(name, secret.clone()).filter(|before| before.owner != secret.owner);
        let held =
            before.and_then(|before| self.keys.iter().find(|key| Some(&key.value) == before.value.as_ref()));
        if let (Some(held), Some(owner)) = (held, secret.owner) {
            self.adopted.insert((owner, held.id.clone()));
        }
    }

    /// A write of the object that fits.
    pub(crate) fn change_object(&mut self, change: impl FnOnce(&mut ObjectFacts)) {
        self.counts.object_writes += 1;
        let version = self.next_version();
        let object = self.object.as_mut().unwrap();
        change(object);
        object.has_finalizer = object.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        object.resource_version = version.to_string();
    }
}

pub(crate) fn own_secret(name: &str, stored: &Secret, uid: &str) -> OwnSecret {
    OwnSecret {
        name: name.to_owned(),
        uid: stored.uid.clone(),
        resource_version: stored.version.to_string(),
        record: stored.record.clone().filter(|record| record.owner_uid == uid),
        value_sha256: stored.value.as_ref().map(|value| value_sha256(value.as_bytes())),
        is_unread: false,
        labelled: stored.owner.as_deref() == Some(uid),
        owned: stored.owned,
    }
}

fn spec_of(spec: serde_json::Value) -> BoltzApiKeySpec {
    serde_json::from_value(spec).unwrap()
}

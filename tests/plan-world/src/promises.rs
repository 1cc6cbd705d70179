//! What must hold.

use crate::World;

impl World {
    pub fn ready_reason(&self) -> &str {
        let conditions = &self.object().status.conditions;
        conditions.iter().find(|condition| condition.type_ == "Ready").map_or("", |ready| &ready.reason)
    }

    /// The promise, at any time: no key that the object's Secret holds was revoked by us, deletion aside.
    pub(crate) fn assert_the_delivered_key_lives(&self) {
        let Some(object) = self.object.as_ref().filter(|object| !object.deleting) else { return };
        for secret in self.secrets.values().filter(|secret| secret.owner.as_deref() == Some(&object.uid)) {
            let held = self.keys.iter().find(|key| Some(&key.value) == secret.value.as_ref());
            if let Some(reason) = held.and_then(|key| key.reason) {
                panic!("the Secret holds {}, which was revoked: {reason:?}", held.unwrap().id);
            }
        }
    }

    /// The promise, when everything is idle: the active keys are those that the Secret's record names, its value works, and status
    /// says the same.
    pub fn assert_good(&self) {
        let record = self.record();
        let named: Vec<&str> = std::iter::once(&record.key_id)
            .chain(record.previous.iter().map(|previous| &previous.key_id))
            .map(String::as_str)
            .filter(|id| self.active().contains(id))
            .collect();
        let (mut active, mut named) = (self.active(), named);
        active.sort_unstable();
        named.sort_unstable();
        assert_eq!(active, named, "active keys, and those that the record names");
        assert!(active.contains(&record.key_id.as_str()), "the current key is active");
        let held = self.keys.iter().find(|key| Some(&key.value) == self.secrets["key"].value.as_ref());
        assert_eq!(held.map(|key| &key.id), Some(&record.key_id), "the value is the current key's");
        assert_eq!(self.object().status.key_id.as_ref(), Some(&record.key_id), "status names it");
    }
}

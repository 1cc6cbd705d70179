//! How many live keys the objects of each namespace have: by the marks in Boltz's list, and by what was requested since.
//! Secrets and records do not count: tenants can edit and delete them while the key lives on.

use super::snapshot::Snapshot;
use crate::{
    plan::{Doubt, Monotonic, Now},
    protocol::marker::{AttemptId, ObjectMark},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The objects of one account, and what is known of their keys besides the passes.
#[derive(Debug, Default)]
pub(crate) struct LiveKeyCounts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The objects of each namespace.
    objects: HashMap<String, HashMap<ObjectMark, IsGone>>,
    requests: Vec<Request>,
    /// Ids of keys that were revoked, and when. A pass may have begun before.
    revoked: HashMap<String, Monotonic>,
    /// All objects of the account are known.
    is_complete: bool,
    /// When the pass began that the live keys are from.
    counted: Option<Monotonic>,
    /// The live keys that the pass shows, of the namespaces that were asked for since.
    live: HashMap<String, HashSet<String>>,
}

/// Whether an object is gone. Its keys may live: somebody may have removed its finalizer.
type IsGone = bool;

/// A key that was requested. Until a pass shows what became of it, it may be live.
#[derive(Debug)]
struct Request {
    namespace: String,
    object: ObjectMark,
    attempt: AttemptId,
    key_id: Option<String>,
    settled_at: Monotonic,
}

/// Where and for what a key is wanted.
pub(crate) struct WantedKey<'a> {
    pub namespace: &'a str,
    pub object: ObjectMark,
    pub attempt: &'a AttemptId,
    /// From then on, the request cannot take effect any more.
    pub settled_at: Monotonic,
}

impl LiveKeyCounts {
    /// The object uses the account.
    pub fn set_user(&self, namespace: &str, object: ObjectMark) {
        let mut known = self.0.lock();
        let before = match known.objects.get_mut(namespace) {
            Some(users) => users.insert(object, false),
            None => {
                known.objects.insert(namespace.to_owned(), HashMap::from([(object, false)]));
                None
            }
        };
        if before.is_none() {
            known.live.remove(namespace);
        }
    }

    /// Whether the object is known to use the account.
    pub fn has_user(&self, object: &ObjectMark) -> bool {
        self.0.lock().objects.values().any(|users| users.contains_key(object))
    }

    /// Not all objects of the account are known yet.
    pub fn lacks_objects(&self) -> bool {
        !self.0.lock().is_complete
    }

    /// All objects of the account are known.
    pub fn set_complete(&self) {
        self.0.lock().is_complete = true;
    }

    /// The object is gone, or uses another account. If keys are counted, its keys count until a pass shows none.
    pub fn remove_user(&self, object: &ObjectMark, are_counted: bool) {
        self.0.lock().objects.retain(|_, users| {
            match users.get_mut(object) {
                Some(is_gone) if are_counted => *is_gone = true,
                Some(_) => drop(users.remove(object)),
                None => {}
            }
            !users.is_empty()
        });
    }

    /// How many live keys the namespace has. What the object itself has requested without a response does not count: it is the
    /// key that it asks for again. `None`: that is not known yet.
    pub fn count(
        &self,
        namespace: &str,
        except: Option<ObjectMark>,
        passes: &[Arc<Snapshot>],
        now: Now,
    ) -> Option<usize> {
        self.0.lock().count(namespace, except, passes, now)
    }

    /// Notes that a key is requested, unless the namespace has as many live keys as `most`.
    pub fn request(&self, wanted: &WantedKey, most: Option<u32>, passes: &[Arc<Snapshot>], now: Now) -> bool {
        let mut known = self.0.lock();
        let has_room = match most {
            None => true,
            Some(most) => {
                let count = known.count(wanted.namespace, Some(wanted.object), passes, now);
                count.is_some_and(|count| count < most as usize)
            }
        };
        if has_room {
            known.requests.push(Request {
                namespace: wanted.namespace.to_owned(),
                object: wanted.object,
                attempt: wanted.attempt.clone(),
                key_id: None,
                settled_at: wanted.settled_at,
            });
        }
        has_room
    }

    /// The request had no effect: there is no key.
    pub fn end_request(&self, attempt: &AttemptId) {
        self.0.lock().requests.retain(|request| request.attempt != *attempt);
    }

    /// The request gave this key.
    pub fn set_created(&self, attempt: &AttemptId, key_id: &str) {
        let requests = &mut self.0.lock().requests;
        if let Some(request) = requests.iter_mut().find(|request| request.attempt == *attempt) {
            request.key_id = Some(key_id.to_owned());
        }
    }

    /// The key is not live any more.
    pub fn set_revoked(&self, key_id: &str, now: Monotonic) {
        let mut known = self.0.lock();
        known.requests.retain(|request| request.key_id.as_deref() != Some(key_id));
        known.revoked.insert(key_id.to_owned(), now);
        for live in known.live.values_mut() {
            live.remove(key_id);
        }
    }
}

impl Known {
    fn count(
        &mut self,
        namespace: &str,
        except: Option<ObjectMark>,
        passes: &[Arc<Snapshot>],
        now: Now,
    ) -> Option<usize> {
        if !self.is_complete {
            return None;
        }
        // What a doubtful pass lacks may live.
        let pass = passes.iter().find(|pass| pass.doubt == Doubt::None)?;
        self.take(pass, now);
        let Self { objects, requests, revoked, live, .. } = self;
        if !live.contains_key(namespace) {
            let users = objects.get(namespace).into_iter().flat_map(HashMap::keys);
            let shown = users.flat_map(|object| pass.keys_with_mark(object));
            let shown = shown.filter(|key| key.is_active_at(now.wall) && !revoked.contains_key(&key.id));
            live.insert(namespace.to_owned(), shown.map(|key| key.id.clone()).collect());
        }
        let is_shown = |request: &Request| {
            pass.keys_with_mark(&request.object).any(|key| key.attempt == request.attempt)
        };
        let requested = requests.iter().filter(|request| {
            let is_again = request.key_id.is_none() && Some(request.object) == except;
            request.namespace == namespace && !is_again && !is_shown(request)
        });
        Some(live.get(namespace).map_or(0, HashSet::len) + requested.count())
    }

    /// A newer pass: what it shows does not have to be remembered.
    fn take(&mut self, pass: &Snapshot, now: Now) {
        if self.counted == Some(pass.started) {
            return;
        }
        self.counted = Some(pass.started);
        self.live.clear();
        self.requests.retain(|request| pass.started < request.settled_at);
        self.revoked.retain(|_, at| pass.started <= *at);
        let requests = &self.requests;
        self.objects.retain(|_, users| {
            users.retain(|object, is_gone| {
                !*is_gone
                    || pass.keys_with_mark(object).any(|key| key.is_active_at(now.wall))
                    || requests.iter().any(|request| request.object == *object)
            });
            !users.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        boltz::{cluster_names::ClusterNames, types::KeyDetails},
        protocol::marker::{Marker, MarkerFormat},
    };
    use serde_json::json;
    use std::time::Duration;

    fn names() -> ClusterNames {
        ClusterNames::named("test".parse().unwrap(), Vec::new(), MarkerFormat::One)
    }

    fn now(seconds: u64) -> Now {
        let wall = "2026-11-01T00:00:00Z".parse().unwrap();
        Now { wall, monotonic: Monotonic::default().plus(Duration::from_secs(seconds)) }
    }

    fn attempt(number: u64) -> AttemptId {
        AttemptId::from_random(number)
    }

    /// A pass that began at that second: the objects, attempts and states of its keys.
    fn pass(started: u64, keys: &[(&str, u64, bool)], doubt: Doubt) -> Arc<Snapshot> {
        let rows = keys.iter().map(|(object, number, is_active)| -> KeyDetails {
            let marker: Marker = names().marker(ObjectMark::from_uid(object), attempt(*number));
            serde_json::from_value(json!({
                "id": format!("key_{number}"), "name": format!("x {marker}"), "key_prefix": "sk", "is_active": is_active,
                "mode": "live", "created_at": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        });
        let mut snapshot = Snapshot::of(now(started), rows, &names(), HashSet::new());
        snapshot.doubt = doubt;
        Arc::new(snapshot)
    }

    fn wanted<'a>(namespace: &'a str, object: &str, attempt: &'a AttemptId) -> WantedKey<'a> {
        let settled_at = now(100).monotonic;
        WantedKey { namespace, object: ObjectMark::from_uid(object), attempt, settled_at }
    }

    #[test]
    fn keys_count_until_a_pass_shows_their_end() {
        let counts = LiveKeyCounts::default();
        let [a, b, other] = ["a", "b", "other"].map(ObjectMark::from_uid);
        for (namespace, object) in [("team", a), ("team", b), ("elsewhere", other)] {
            counts.set_user(namespace, object);
        }
        let count = |passes: &[Arc<Snapshot>]| counts.count("team", None, passes, now(50));
        assert_eq!(count(&[pass(1, &[], Doubt::None)]), None, "not all objects are known");
        counts.set_complete();
        assert_eq!(count(&[]), None, "it is not known yet");
        let first =
            [pass(10, &[("a", 1, true), ("a", 2, false), ("b", 3, true), ("other", 4, true)], Doubt::None)];
        assert_eq!(count(&first), Some(2));
        // What was requested since.
        let five = attempt(5);
        assert!(!counts.request(&wanted("team", "a", &five), Some(2), &first, now(50)));
        assert!(counts.request(&wanted("team", "a", &five), Some(3), &first, now(50)));
        assert_eq!(count(&first), Some(3));
        assert_eq!(counts.count("team", Some(a), &first, now(50)), Some(2), "it asks again");
        counts.set_created(&five, "key_5");
        assert_eq!(counts.count("team", Some(a), &first, now(50)), Some(3));
        counts.set_revoked("key_5", now(60).monotonic);
        counts.set_revoked("key_3", now(60).monotonic);
        assert_eq!(count(&first), Some(1));
        // A list that lacks keys ends none.
        let doubtful = pass(70, &[], Doubt::Many);
        assert_eq!(count(&[doubtful.clone(), first[0].clone()]), Some(1));
        assert_eq!(count(&[doubtful.clone(), doubtful]), None, "that is not known any more");
        // An object that lost its finalizer is gone, and its key is not.
        counts.remove_user(&a, true);
        assert_eq!(count(&[pass(80, &[("a", 1, true)], Doubt::None)]), Some(1));
        assert_eq!(count(&[pass(90, &[("a", 1, false)], Doubt::None)]), Some(0));
        assert_eq!(
            count(&[pass(95, &[("a", 1, true)], Doubt::None)]),
            Some(0),
            "nothing leads to it any more"
        );
    }

    #[test]
    fn a_request_without_effect_does_not_count_and_one_without_a_response_does() {
        let counts = LiveKeyCounts::default();
        counts.set_complete();
        let (empty, one, two) = ([pass(10, &[], Doubt::None)], attempt(1), attempt(2));
        assert!(counts.request(&wanted("team", "a", &one), Some(1), &empty, now(20)));
        assert!(!counts.request(&wanted("team", "b", &two), Some(1), &empty, now(20)));
        counts.end_request(&one);
        assert!(counts.request(&wanted("team", "b", &two), Some(1), &empty, now(20)));
        assert_eq!(counts.count("team", None, &empty, now(20)), Some(1));
        let settled = [pass(100, &[], Doubt::None)];
        assert_eq!(counts.count("team", None, &settled, now(120)), Some(0));
    }
}

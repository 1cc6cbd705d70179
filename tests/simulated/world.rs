//! The API server, Boltz and their users; and the promises, which are checked while everything runs.

use crate::{
    api_server::{Answer, ApiServer, Call, Resource, text},
    deliveries::Deliveries,
    fault_injection::{Fault, Met, lock},
};
use boltz_emulator::{Clock, Emulator, Key, Operation, Options, Settings};
use boltz_operator::{api::annotations::RECORD_ANNOTATION, protocol::record::Record};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use parking_lot::Mutex;
use plan_world::{Milestone, Reached};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
/// More calls than any schedule needs: one that comes here spins.
const MOST_CALLS: usize = 20_000;

/// The operator's flags in a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub mints_per_minute: u32,
    pub mints_per_namespace: Option<u32>,
    pub concurrency: u16,
}

impl Default for Flags {
    fn default() -> Self {
        Self { mints_per_minute: 1200, mints_per_namespace: None, concurrency: 4 }
    }
}
/// How long everything may take to be good again: the longest wait after a failure, the longest overlap of a test, a
/// periodic pass, and what then has to settle.
const PATIENCE: Duration = Duration::from_secs((30 + 30 + 10 + 5) * 60);

type Decide = Box<dyn FnMut(&Met) -> Option<Fault> + Send>;
type Computes = Box<dyn Fn(&Met) + Send + Sync>;

pub struct World {
    pub flags: Flags,
    pub server: Mutex<ApiServer>,
    pub emulator: Emulator,
    /// How many runs of processes there were.
    pub runs: AtomicUsize,
    /// Effects that are still to come.
    pub late: AtomicUsize,
    /// The lines of the watches have changed.
    pub shifted: Notify,
    decide: Mutex<Decide>,
    /// Runs on the thread that sends a call. No lock is held: other calls would wait for it.
    pub computes: OnceLock<Computes>,
    started: Instant,
    told: Mutex<Vec<String>>,
    violation: Mutex<Option<String>>,
    /// The keys that the operator revoked; others are revoked by people.
    revoked: Mutex<BTreeSet<String>>,
    calls: AtomicUsize,
    /// Calls that went wrong.
    struck: AtomicUsize,
    deliveries: Mutex<Deliveries>,
    reached: Mutex<Reached>,
}

impl World {
    pub fn new(settings: Settings) -> Arc<Self> {
        Self::with(settings, Flags::default())
    }

    pub fn with(settings: Settings, flags: Flags) -> Arc<Self> {
        let clock = Clock::starting_at("2026-11-24T00:00:00Z".parse().unwrap());
        Arc::new(Self {
            flags,
            server: Mutex::new(ApiServer::new(clock)),
            emulator: Emulator::in_memory(Options { settings, ..Options::default() }, clock),
            runs: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            shifted: Notify::new(),
            decide: Mutex::new(Box::new(|_| None)),
            computes: OnceLock::new(),
            started: Instant::now(),
            told: Mutex::default(),
            violation: Mutex::default(),
            revoked: Mutex::default(),
            calls: AtomicUsize::new(0),
            struck: AtomicUsize::new(0),
            deliveries: Mutex::default(),
            reached: Mutex::default(),
        })
    }

    pub fn now(&self) -> Timestamp {
        lock(&self.server).now()
    }

    /// Who decides from now on what goes wrong.
    pub fn faults(&self, decide: impl FnMut(&Met) -> Option<Fault> + Send + 'static) {
        *lock(&self.decide) = Box::new(decide);
    }

    pub fn decide(&self, met: Met) -> Option<Fault> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls == MOST_CALLS {
            self.violate("it spins".to_owned());
        }
        if calls >= MOST_CALLS {
            return Some(Fault::Silent);
        }
        if let Some(computes) = self.computes.get() {
            computes(&met);
        }
        let fault = (lock(&self.decide))(&met);
        if fault.is_some() {
            self.struck.fetch_add(1, Ordering::Relaxed);
            self.reach(Milestone::Struck);
        }
        let met_fault = fault.map(|fault| format!("  [{fault:?}]")).unwrap_or_default();
        self.tell(format!("  {}: {}{met_fault}", met.process, met.what));
        fault
    }

    /// For the transcript.
    pub fn tell(&self, what: String) {
        lock(&self.told).push(format!("{:9.3} {what}", self.started.elapsed().as_secs_f64()));
    }

    pub fn transcript(&self) -> String {
        lock(&self.told).join("\n")
    }

    /// A call of the operator to the API server takes effect.
    pub fn call(self: &Arc<Self>, call: &Call) -> Answer {
        let mut server = lock(&self.server);
        let before = server.version();
        let answer = server.handle(call);
        let has_changed = server.version() > before;
        drop(server);
        if has_changed {
            self.after_change(call.sent_at);
        }
        answer
    }

    fn after_change(self: &Arc<Self>, sent_at: Option<Timestamp>) {
        let keys = self.emulator.keys();
        let reached = lock(&self.deliveries).follow(&lock(&self.server), &keys, sent_at);
        reached.into_iter().for_each(|milestone| self.reach(milestone));
        for key in self.held() {
            if lock(&self.revoked).contains(&key.id) {
                self.violate(format!("a Secret holds {}, which was revoked before", key.id));
            }
        }
        // The garbage collector takes its time.
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(SECOND / 2).await;
            lock(&world.server).collect_garbage();
        });
    }

    /// The keys that Secrets of living objects hold.
    fn held(&self) -> Vec<Key> {
        let server = lock(&self.server);
        let living: BTreeSet<&str> = server
            .objects
            .iter()
            .filter(|((resource, ..), object)| {
                *resource == Resource::ApiKeys && !object["metadata"]["deletionTimestamp"].is_string()
            })
            .map(|(_, object)| text(&object["metadata"]["uid"]))
            .collect();
        let values: BTreeSet<Vec<u8>> = server
            .objects
            .iter()
            .filter(|((resource, ..), object)| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                *resource == Resource::Secrets
                    && owners
                        .is_some_and(|owners| owners.iter().any(|owner| living.contains(text(&owner["uid"]))))
            })
            .flat_map(|(_, object)| object["data"].as_object().into_iter().flat_map(|data| data.values()))
            .map(|value| serde_json::from_value::<ByteString>(value.clone()).unwrap().0)
            .collect();
        drop(server);
        self.emulator.keys().into_iter().filter(|key| values.contains(key.plaintext.as_bytes())).collect()
    }

    /// The promise, at every moment: what a Secret of a living object holds is not revoked.
    pub fn before_revocation(&self, id: &str) {
        if self.emulator.active_keys().iter().any(|key| key.id == id) {
            let judged = lock(&self.deliveries).judge(&lock(&self.server), &self.emulator.keys(), id);
            match judged {
                Ok(milestone) => self.reach(milestone),
                Err(wrong) => self.violate(wrong),
            }
        }
        lock(&self.revoked).insert(id.to_owned());
    }

    fn reach(&self, milestone: Milestone) {
        lock(&self.reached).insert(milestone);
    }

    /// What has happened so far.
    pub fn reached(&self) -> Reached {
        *lock(&self.reached)
    }

    /// How many calls went wrong.
    pub fn struck(&self) -> usize {
        self.struck.load(Ordering::Relaxed)
    }

    /// How many keys were asked for.
    pub fn posts(&self) -> usize {
        self.emulator.count(Operation::Create)
    }

    /// What must never be, and was.
    pub fn violation(&self) -> Option<String> {
        lock(&self.violation).clone()
    }

    fn violate(&self, what: String) {
        self.tell(format!("VIOLATION: {what}"));
        lock(&self.violation).get_or_insert(what);
    }

    /// A call of a user: it always arrives, and does not count as a write of the operator.
    fn user(self: &Arc<Self>, method: Method, path: &str, body: Json) {
        let count = lock(&self.server).writes.len();
        let path = path.to_owned();
        self.call(&Call { method, path, query: BTreeMap::new(), wants_metadata: false, body, sent_at: None });
        lock(&self.server).writes.truncate(count);
    }

    pub fn create(self: &Arc<Self>, spec: &Json) {
        let object = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
            "metadata": {"name": "key"}, "spec": spec,
        });
        self.user(Method::POST, &path_of("boltzapikeys", None), object);
    }

    pub fn edit(self: &Arc<Self>, patch: Json) {
        self.user(Method::PATCH, &path_of("boltzapikeys", Some("key")), patch);
    }

    pub fn annotate(self: &Arc<Self>, name: &str, value: &str) {
        self.edit(json!({"metadata": {"annotations": {name: value}}}));
    }

    pub fn delete(self: &Arc<Self>) {
        self.user(Method::DELETE, &path_of("boltzapikeys", Some("key")), Json::Null);
    }

    pub fn delete_secret(self: &Arc<Self>) {
        self.user(Method::DELETE, &path_of("secrets", Some("key")), Json::Null);
    }

    pub fn alter_secret(self: &Arc<Self>, value: &str) {
        let data = json!({"data": {"BOLTZ_API_KEY": ByteString(value.as_bytes().to_vec())}});
        self.user(Method::PATCH, &path_of("secrets", Some("key")), data);
    }

    /// Somebody makes a Secret that has nothing to do with us.
    pub fn create_foreign_secret(self: &Arc<Self>) {
        let secret = json!({"metadata": {"name": "key"}, "data": {"password": "dGhlaXJz"}});
        self.user(Method::POST, &path_of("secrets", None), secret);
    }

    /// Somebody puts the Secret back as it was.
    pub fn restore_secret(self: &Arc<Self>, backup: &Json) {
        let annotations = &backup["metadata"]["annotations"];
        let patch = json!({"metadata": {"annotations": annotations}, "data": backup["data"]});
        self.user(Method::PATCH, &path_of("secrets", Some("key")), patch);
    }

    pub fn create_in(self: &Arc<Self>, namespace: &str, name: &str, spec: &Json) {
        let object = json!({
            "apiVersion": "boltz.bio/v1alpha1", "kind": "BoltzApiKey",
            "metadata": {"name": name}, "spec": spec,
        });
        let path = format!("/apis/boltz.bio/v1alpha1/namespaces/{namespace}/boltzapikeys");
        self.user(Method::POST, &path, object);
    }

    pub fn edit_in(self: &Arc<Self>, namespace: &str, name: &str, patch: Json) {
        let path = format!("/apis/boltz.bio/v1alpha1/namespaces/{namespace}/boltzapikeys/{name}");
        self.user(Method::PATCH, &path, patch);
    }

    pub fn delete_in(self: &Arc<Self>, namespace: &str, name: &str) {
        let path = format!("/apis/boltz.bio/v1alpha1/namespaces/{namespace}/boltzapikeys/{name}");
        self.user(Method::DELETE, &path, Json::Null);
    }

    /// The record of the Secret of that name.
    pub fn record_in(&self, namespace: &str, name: &str) -> Option<Record> {
        let place = (Resource::Secrets, namespace.to_owned(), name.to_owned());
        let secret = lock(&self.server).objects.get(&place).cloned()?;
        Record::parse(secret["metadata"]["annotations"][RECORD_ANNOTATION].as_str())
    }

    pub fn object(&self) -> Option<Json> {
        lock(&self.server).get(Resource::ApiKeys, "key").cloned()
    }

    pub fn secret(&self, name: &str) -> Option<Json> {
        lock(&self.server).get(Resource::Secrets, name).cloned()
    }

    pub fn record(&self) -> Option<Record> {
        Record::parse(self.secret("key")?["metadata"]["annotations"][RECORD_ANNOTATION].as_str())
    }

    /// In the moment before a call of that process takes effect, somebody does something, and the call may meet a fault.
    /// Once.
    pub fn just_before(
        self: &Arc<Self>,
        process: usize,
        call: &'static str,
        act: impl FnOnce(&Arc<Self>) -> Option<Fault> + Send + 'static,
    ) {
        let (world, mut act) = (Arc::clone(self), Some(act));
        self.faults(move |met| {
            let is_it = met.process == process && met.what == call;
            act.take_if(|_| is_it).and_then(|act| act(&world))
        });
    }

    /// The writes of the operator since the last look, dry runs aside.
    pub fn take_writes(&self) -> Vec<String> {
        let writes = std::mem::take(&mut lock(&self.server).writes);
        writes.into_iter().filter(|write| !write.ends_with("dry")).collect()
    }

    /// The promise, at rest: the active keys are those that the record names, the Secret holds the current one, status
    /// says the same; and without an object, there is no active key and no Secret.
    pub fn judge(&self) -> Result<(), String> {
        if let Some(violation) = lock(&self.violation).clone() {
            return Err(violation);
        }
        let active: BTreeSet<String> = self.emulator.active_keys().into_iter().map(|key| key.id).collect();
        let record = self.record();
        let Some(object) = self.object() else {
            return match (active.is_empty(), record) {
                (true, None) => Ok(()),
                (false, _) => Err(format!("without an object, {active:?} are active")),
                (true, Some(_)) => Err("the Secret stays without its object".to_owned()),
            };
        };
        if object["metadata"]["deletionTimestamp"].is_string() {
            return Err("the deletion is not over".to_owned());
        }
        let is_suspended = object["spec"]["suspend"] == json!(true);
        let Some(record) = record else {
            return match is_suspended && active.is_empty() {
                true => Ok(()),
                false => Err(format!("no record; {active:?} are active")),
            };
        };
        let mut named: BTreeSet<String> =
            record.previous.iter().map(|previous| previous.key_id.clone()).collect();
        named.insert(record.key_id.clone());
        named.retain(|id| active.contains(id));
        if active != named {
            return Err(format!("{active:?} are active, {named:?} are named"));
        }
        let held: Vec<String> = self.held().into_iter().map(|key| key.id).collect();
        if held != [record.key_id.clone()] && !is_suspended {
            return Err(format!("the Secret holds {held:?}, its record names {}", record.key_id));
        }
        if !active.contains(&record.key_id) {
            return Err("the current key is not active".to_owned());
        }
        if object["status"]["keyID"] != json!(record.key_id) {
            return Err(format!("status names {}", object["status"]["keyID"]));
        }
        if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
            return Err("status speaks of an older spec".to_owned());
        }
        Ok(())
    }

    /// Lets time pass until this holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            sleep(SECOND / 4).await;
            if started.elapsed() > PATIENCE {
                panic!("{what}: never; {:?}\n{}", self.judge(), self.transcript());
            }
        }
    }

    /// Lets time pass until all is good, and a while longer, after which it has to be good still.
    pub async fn good(&self, what: &str) {
        let started = Instant::now();
        loop {
            if self.late.load(Ordering::Relaxed) == 0 && self.judge().is_ok() {
                sleep(6 * MINUTE).await;
                match self.judge() {
                    Ok(()) => {
                        let is_gone = self.object().is_none();
                        self.reach(if is_gone { Milestone::DeletionEnded } else { Milestone::Rested });
                        if self.struck() > 0 {
                            self.reach(Milestone::Recovered);
                        }
                        return;
                    }
                    Err(error) => {
                        panic!("{what}: good, and not good any more: {error}\n{}", self.transcript());
                    }
                }
            }
            let has_ended = lock(&self.violation).is_some() || started.elapsed() > PATIENCE;
            if has_ended {
                panic!("{what}: {}\n{}", self.judge().err().unwrap_or_default(), self.transcript());
            }
            sleep(5 * SECOND).await;
        }
    }
}

fn path_of(plural: &str, name: Option<&str>) -> String {
    let group = if plural == "secrets" { "/api/v1" } else { "/apis/boltz.bio/v1alpha1" };
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("{group}/namespaces/team/{plural}{name}")
}

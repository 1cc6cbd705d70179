//! The API server in memory: versions, UIDs, preconditions, finalizers, garbage collection and a history for watches.

use boltz_emulator::Clock;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// How many objects a page of a list holds at most, so that paging is used.
const LARGEST_PAGE: usize = 2;

/// The resources that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    ApiKeys,
    Secrets,
}

/// Where an object is.
pub type Place = (Resource, String, String);

/// One write, as watches see it.
#[derive(Clone)]
pub struct Change {
    pub version: u64,
    pub resource: Resource,
    pub before: Option<Arc<Json>>,
    /// The object after it; of a deletion its last state, at the deletion's version.
    pub after: Arc<Json>,
    pub is_deletion: bool,
}

/// A request, read.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub wants_metadata: bool,
    pub body: Json,
    /// When the operator sent it; none: a user did.
    pub sent_at: Option<Timestamp>,
}

/// What the path of a call leads to.
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    is_status: bool,
}

pub type Answer = (StatusCode, Json);

/// The state.
pub struct ApiServer {
    clock: Clock,
    version: u64,
    uids: u64,
    pub objects: BTreeMap<Place, Arc<Json>>,
    pub history: Vec<Change>,
    pub changed: watch::Sender<u64>,
    /// Writes by the operator that changed something or were dry runs, in words.
    pub writes: Vec<String>,
    /// An admission webhook takes the operator's marks out of writes of that resource.
    pub stripped: Option<Resource>,
    /// It has no part in dry runs.
    pub is_dry_run_exempt: bool,
}

impl ApiServer {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            version: 100,
            uids: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            changed: watch::Sender::new(100),
            writes: Vec::new(),
            stripped: None,
            is_dry_run_exempt: false,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// The object of that name, if there is one.
    pub fn get(&self, resource: Resource, name: &str) -> Option<&Json> {
        self.objects.get(&(resource, "team".to_owned(), name.to_owned())).map(AsRef::as_ref)
    }

    /// A call of the operator.
    pub fn handle(&mut self, call: &Call) -> Answer {
        let Some(target) = read_path(&call.path) else {
            // Events and whatever else nobody looks at: taken, and not kept.
            return match call.method {
                Method::POST => (StatusCode::CREATED, call.body.clone()),
                _ => failure(StatusCode::NOT_FOUND, "NotFound", "no such resource"),
            };
        };
        let dry_run = call.query.get("dryRun").is_some_and(|value| value == "All");
        let before = self.version;
        let (status, answer) = match (&call.method, &target.name) {
            (&Method::GET, None) => return self.list(&target, call),
            (&Method::GET, Some(name)) => match self.find(&target, name) {
                Some(object) => (StatusCode::OK, Json::clone(object)),
                None => not_found(name),
            },
            (&Method::POST, None) => self.create(&target, &self.admit(&target, &call.body, dry_run), dry_run),
            (&Method::PATCH, Some(name)) => {
                self.patch(&target, name, &self.admit(&target, &call.body, dry_run), dry_run)
            }
            (&Method::DELETE, Some(name)) => self.delete(&target, name, &call.body),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no such method"),
        };
        if call.method != Method::GET && (self.version > before || dry_run && status.is_success()) {
            let kind = if target.is_status { "status" } else { "" };
            let dry = if dry_run { " dry" } else { "" };
            self.writes.push(format!("{} {:?}{kind}{dry}", call.method, target.resource));
        }
        let answer = if call.wants_metadata && status.is_success() { metadata_of(&answer) } else { answer };
        (status, answer)
    }

    /// What the admission webhook makes of a write.
    fn admit(&self, target: &Target, body: &Json, dry_run: bool) -> Json {
        let mut body = body.clone();
        let is_exempt = dry_run && self.is_dry_run_exempt;
        if self.stripped == Some(target.resource) && !target.is_status && !is_exempt {
            take_marks_off(&mut body);
        }
        body
    }

    fn find(&self, target: &Target, name: &str) -> Option<&Arc<Json>> {
        self.objects.get(&(target.resource, target.namespace.clone()?, name.to_owned()))
    }

    fn list(&self, target: &Target, call: &Call) -> Answer {
        let limit = call.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let from = call.query.get("continue").cloned().unwrap_or_default();
        let selector = call.query.get("labelSelector").map(String::as_str);
        let mut found: Vec<&Arc<Json>> = self
            .objects
            .iter()
            .filter(|((resource, namespace, _), object)| {
                *resource == target.resource
                    && target.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
                    && is_selected(object, selector)
            })
            .filter(|((_, namespace, name), _)| format!("{namespace}/{name}") > from)
            .map(|(_, object)| object)
            .collect();
        let page = limit.min(LARGEST_PAGE);
        let is_paged = limit < usize::MAX && found.len() > page;
        if is_paged {
            found.truncate(page);
        }
        let token = found.last().filter(|_| is_paged).map(|last| {
            let meta = &last["metadata"];
            format!("{}/{}", text(&meta["namespace"]), text(&meta["name"]))
        });
        let items: Vec<Json> = found
            .into_iter()
            .map(|object| if call.wants_metadata { metadata_of(object) } else { Json::clone(object) })
            .collect();
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if let Some(token) = token {
            metadata["continue"] = json!(token);
        }
        let (version, kind) = kind_of(target.resource);
        let list = if call.wants_metadata {
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList"})
        } else {
            json!({"apiVersion": version, "kind": format!("{kind}List")})
        };
        (StatusCode::OK, merged(list, &json!({"metadata": metadata, "items": items})))
    }

    fn create(&mut self, target: &Target, body: &Json, dry_run: bool) -> Answer {
        let name = text(&body["metadata"]["name"]).to_owned();
        let Some(namespace) = target.namespace.clone() else {
            return failure(StatusCode::BAD_REQUEST, "BadRequest", "no namespace");
        };
        let place = (target.resource, namespace.clone(), name.clone());
        if self.objects.contains_key(&place) {
            return failure(StatusCode::CONFLICT, "AlreadyExists", &format!("{name:?} already exists"));
        }
        let mut object = body.clone();
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["creationTimestamp"] = json!(whole_seconds(self.now()));
        if dry_run {
            return (StatusCode::CREATED, object);
        }
        self.uids += 1;
        object["metadata"]["uid"] = json!(format!("{:08x}-2222-4333-8444-555555555555", self.uids));
        object["metadata"]["generation"] = json!(1);
        let stored = self.store(place, object);
        (StatusCode::CREATED, Json::clone(&stored))
    }

    fn patch(&mut self, target: &Target, name: &str, patch: &Json, dry_run: bool) -> Answer {
        let Some(old) = self.find(target, name).map(Arc::clone) else { return not_found(name) };
        let place = (target.resource, target.namespace.clone().unwrap_or_default(), name.to_owned());
        let (guard, meta) = (&patch["metadata"], &old["metadata"]);
        if guard["uid"].is_string() && guard["uid"] != meta["uid"] {
            let message = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                guard["uid"], meta["uid"]
            );
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message);
        }
        if guard["resourceVersion"].is_string() && guard["resourceVersion"] != meta["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict", "the object has been modified");
        }
        let mut new = Json::clone(&old);
        if target.is_status {
            let status = merged(old["status"].clone(), &patch["status"]);
            new["status"] = status;
        } else {
            new = merged(new, patch);
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => {
                    new.as_object_mut().unwrap().remove("status");
                }
            }
        }
        let is_deleting = meta["deletionTimestamp"].is_string();
        let finalizers =
            |object: &Json| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if is_deleting && finalizers(&new).iter().any(|finalizer| !finalizers(&old).contains(finalizer)) {
            let message = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted";
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        }
        if target.resource == Resource::ApiKeys && new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(meta["generation"].as_i64().unwrap_or(0) + 1);
        }
        if dry_run || new == *old {
            return (StatusCode::OK, new);
        }
        if is_deleting && finalizers(&new).is_empty() {
            // The answer, and the last event, show the object as the write made it.
            return (StatusCode::OK, self.remove(&place, Some(new)));
        }
        let stored = self.store(place, new);
        (StatusCode::OK, Json::clone(&stored))
    }

    fn delete(&mut self, target: &Target, name: &str, options: &Json) -> Answer {
        let Some(old) = self.find(target, name).map(Arc::clone) else { return not_found(name) };
        let place = (target.resource, target.namespace.clone().unwrap_or_default(), name.to_owned());
        let wanted = &options["preconditions"]["uid"];
        if wanted.is_string() && *wanted != old["metadata"]["uid"] {
            return failure(StatusCode::CONFLICT, "Conflict", "Precondition failed: UID");
        }
        if old["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()) {
            if old["metadata"]["deletionTimestamp"].is_string() {
                return (StatusCode::OK, Json::clone(&old));
            }
            let mut new = Json::clone(&old);
            new["metadata"]["deletionTimestamp"] = json!(whole_seconds(self.now()));
            new["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            let stored = self.store(place, new);
            return (StatusCode::OK, Json::clone(&stored));
        }
        self.remove(&place, None);
        (StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    fn store(&mut self, place: Place, mut object: Json) -> Arc<Json> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let before = self.objects.insert(place.clone(), Arc::clone(&object));
        self.tell(place.0, before, Arc::clone(&object), false);
        object
    }

    /// `last`: its last state, if that is another one.
    fn remove(&mut self, place: &Place, last: Option<Json>) -> Json {
        let Some(before) = self.objects.remove(place) else { return Json::Null };
        self.version += 1;
        let mut last = last.unwrap_or_else(|| Json::clone(&before));
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(last);
        self.tell(place.0, Some(before), Arc::clone(&last), true);
        Json::clone(&last)
    }

    fn tell(&mut self, resource: Resource, before: Option<Arc<Json>>, after: Arc<Json>, is_deletion: bool) {
        self.history.push(Change { version: self.version, resource, before, after, is_deletion });
        self.changed.send_replace(self.version);
    }

    /// The garbage collector: Secrets whose owners are all gone go too.
    pub fn collect_garbage(&mut self) {
        let uids: Vec<&str> = self.objects.values().map(|object| text(&object["metadata"]["uid"])).collect();
        let gone: Vec<Place> = self
            .objects
            .iter()
            .filter(|(_, object)| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.is_some_and(|owners| {
                    !owners.is_empty() && owners.iter().all(|owner| !uids.contains(&text(&owner["uid"])))
                })
            })
            .map(|(place, _)| place.clone())
            .collect();
        for place in gone {
            self.remove(&place, None);
        }
    }
}

/// `None`: not one of the resources that are kept.
fn read_path(path: &str) -> Option<Target> {
    let (resource, rest) = match path.strip_prefix("/apis/boltz.bio/v1alpha1/") {
        Some(rest) => (Resource::ApiKeys, rest),
        None => (Resource::Secrets, path.strip_prefix("/api/v1/")?),
    };
    let plural = match resource {
        Resource::ApiKeys => "boltzapikeys",
        Resource::Secrets => "secrets",
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let owned = |text: &str| Some(text.to_owned());
    let (namespace, name, is_status) = match parts.as_slice() {
        [kind] if *kind == plural => (None, None, false),
        ["namespaces", namespace, kind] if *kind == plural => (owned(namespace), None, false),
        ["namespaces", namespace, kind, name] if *kind == plural => (owned(namespace), owned(name), false),
        ["namespaces", namespace, kind, name, "status"] if *kind == plural => {
            (owned(namespace), owned(name), true)
        }
        _ => return None,
    };
    Some(Target { resource, namespace, name, is_status })
}

pub fn resource_of(path: &str) -> Option<(Resource, Option<String>)> {
    read_path(path).map(|target| (target.resource, target.namespace))
}

/// The one kind of selector that the operator uses: the label is there.
pub fn is_selected(object: &Json, selector: Option<&str>) -> bool {
    selector.is_none_or(|label| object["metadata"]["labels"].get(label).is_some())
}

fn kind_of(resource: Resource) -> (&'static str, &'static str) {
    match resource {
        Resource::ApiKeys => ("boltz.bio/v1alpha1", "BoltzApiKey"),
        Resource::Secrets => ("v1", "Secret"),
    }
}

pub fn metadata_of(object: &Json) -> Json {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

pub fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes our labels, annotations and finalizers off.
fn take_marks_off(object: &mut Json) {
    let metadata = &mut object["metadata"];
    for field in ["labels", "annotations"] {
        if let Some(map) = metadata[field].as_object_mut() {
            map.retain(|name, _| !name.starts_with("boltz.bio/"));
        }
    }
    if let Some(finalizers) = metadata["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| !text(finalizer).starts_with("boltz.bio/"));
    }
}

pub fn failure(code: StatusCode, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message,
    });
    (code, status)
}

fn not_found(name: &str) -> Answer {
    failure(StatusCode::NOT_FOUND, "NotFound", &format!("{name:?} not found"))
}

/// RFC 7396.
fn merged(target: Json, patch: &Json) -> Json {
    let Json::Object(changes) = patch else { return patch.clone() };
    let mut fields: Map<String, Json> = match target {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(name);
        } else {
            let old = fields.remove(name).unwrap_or(Json::Null);
            fields.insert(name.clone(), merged(old, change));
        }
    }
    Json::Object(fields)
}

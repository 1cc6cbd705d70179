//! Boltz, as a pod of the emulator, which is also the judge: it has seen every request and knows every key.

use super::{
    cluster::{Cluster, PATIENCE},
    team,
};
use boltz_harness::{child_process::OwnedProcess, eventually};
use serde::Deserialize;
use serde_json::{Value as Json, json};

pub const ADMIN_KEY: &str = "sk_bc_admin_live_e2e";
pub const NAMESPACE: &str = "boltz-emulator";
const PORT: u16 = 8099;

pub struct Boltz {
    /// As pods reach it.
    pub base_url: String,
    /// As we reach it.
    control: String,
    http: reqwest::Client,
    _forward: OwnedProcess,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Key {
    pub id: String,
    pub name: String,
    pub is_active: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    pub operation: String,
    pub status: Option<u16>,
}

impl Boltz {
    pub async fn deploy(cluster: &Cluster) -> Self {
        let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "emulator", "namespace": NAMESPACE},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "emulator",
                    "image": cluster.images.emulator,
                    "args": [format!("--listen=:{PORT}"), format!("--admin-key={ADMIN_KEY}")],
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                }]},
            },
        ]});
        // A pod needs its namespace's ServiceAccount, which a controller makes.
        eventually(PATIENCE, "the emulator's pod is taken", async || {
            cluster.try_apply(&manifests.to_string())
        })
        .await
        .unwrap();
        cluster.kubectl(&format!("-n {NAMESPACE} wait --for=condition=Ready pod/emulator --timeout=120s"));
        let address =
            cluster.kubectl(&format!("-n {NAMESPACE} get pod emulator -o jsonpath={{.status.podIP}}"));
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let (forward, control) =
            cluster.forward("emulator", &format!("-n {NAMESPACE} port-forward pod/emulator :{PORT}")).await;
        boltz_harness::install_tls_provider();
        let base_url = format!("http://{host}:{PORT}");
        Self {
            base_url,
            control,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _forward: forward,
        }
    }

    async fn get(&self, path: &str) -> Json {
        let answer = self.http.get(format!("{}/_emulator/{path}", self.control)).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Json) {
        let answer = self.http.post(format!("{}/_emulator/{path}", self.control)).json(body).send().await;
        answer.unwrap().error_for_status().unwrap();
    }

    /// Every key that was ever created, oldest first.
    pub async fn keys(&self) -> Vec<Key> {
        serde_json::from_value(self.get("state").await["keys"].take()).unwrap()
    }

    /// The ids of the keys of that namespace that authenticate now. A name at Boltz begins with it, if it is short.
    pub async fn active_in(&self, namespace: &str) -> Vec<String> {
        let begins = format!("{namespace}/");
        let keys = self.keys().await.into_iter();
        keys.filter(|key| key.is_active && key.name.starts_with(&begins)).map(|key| key.id).collect()
    }

    /// Of the team of the story.
    pub async fn active(&self) -> Vec<String> {
        self.active_in(team::NAMESPACE).await
    }

    pub async fn requests(&self, operation: &str) -> Vec<Request> {
        let requests: Vec<Request> = serde_json::from_value(self.get("requests").await).unwrap();
        requests.into_iter().filter(|request| request.operation == operation).collect()
    }

    /// How many keys were asked for so far.
    pub async fn creates(&self) -> usize {
        self.requests("create").await.len()
    }

    /// The next key is made, and the answer waits for [`Boltz::release`].
    pub async fn hold_next_create(&self) {
        self.post("faults", &json!({"operation": "create", "effect": "before", "outcome": "hold"})).await;
    }

    pub async fn until_held(&self) {
        eventually(PATIENCE, "a request is held", async || match self.get("faults").await["held"].as_u64() {
            Some(0) | None => Err("none"),
            Some(_) => Ok(()),
        })
        .await
        .unwrap();
    }

    pub async fn release(&self) {
        self.post("release", &Json::Null).await;
    }

    /// Waits until of the team's keys exactly these authenticate.
    pub async fn until_active(&self, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let what = format!("exactly {expected:?} are active");
        // An overlap may have to end first.
        eventually(3 * PATIENCE, &what, async || {
            let mut active = self.active().await;
            active.sort_unstable();
            if active == expected { Ok(()) } else { Err(format!("{active:?}")) }
        })
        .await
        .unwrap();
    }
}

//! In real time: whatever reconciliations compute, the lease is renewed, and probes and metrics answer.

use crate::{
    fault_injection::{Met, ProcessRun},
    process::context,
    world::{SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::{
    cli::Config,
    runtime::{Operator, Threads},
};
use clap::Parser;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value as Json, json};
use std::{
    convert::Infallible,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// Threads that wait here do nothing else.
#[derive(Default)]
struct Barrier {
    /// How many wait, and whether they may go on.
    state: Mutex<(usize, bool)>,
    released: Condvar,
}

impl Barrier {
    fn block(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        drop(self.released.wait_while(state, |(_, is_released)| !*is_released).unwrap());
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap().0
    }
}

/// Releases them also when the test fails.
impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().1 = true;
        self.0.released.notify_all();
    }
}

struct Released<'a>(&'a Barrier);

/// A Lease that nobody else wants; counts how often it is written.
fn lease_client(writes: &Arc<AtomicUsize>) -> kube::Client {
    let writes = Arc::clone(writes);
    let service = tower::service_fn(move |request: Request<Body>| {
        let writes = Arc::clone(&writes);
        async move {
            let is_write = request.method() == Method::POST;
            writes.fetch_add(usize::from(is_write), Ordering::Relaxed);
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}});
            let missing = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"});
            let (code, body) = if is_write { (201, lease) } else { (404, missing) };
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

#[test]
fn lease_probes_and_metrics_are_prompt_while_reconciliations_compute() {
    let threads = Threads::start().unwrap();
    let barrier = Arc::new(Barrier::default());
    let writes = Arc::new(AtomicUsize::new(0));
    // Everything below waits for conditions; only what never comes takes so long.
    let patience = 60 * SECOND;
    threads.work.block_on(async {
        let world = World::new(Settings::default());
        let computing = Arc::clone(&barrier);
        let computes = move |met: &Met| {
            if met.what.ends_with("secrets dry") {
                computing.block();
            }
        };
        assert!(world.computes.set(Box::new(computes)).is_ok());
        world.create(&json!({}));
        let run = ProcessRun { world, process: 0, crash: Arc::default(), line: Arc::default() };
        let prompt = threads.prompt.handle();
        let bind = prompt.spawn(TcpListener::bind(("127.0.0.1", 0)));
        let listener = bind.await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let arguments = ["boltz-operator", "--admin-key-file", "/dev/null", "--cluster-name", "simulated"];
        let for_lease = Arc::clone(&writes);
        let operator = Operator {
            context: context(run),
            config: Config::try_parse_from(arguments).unwrap(),
            accounts: None,
            identity: "simulated".to_owned(),
            listener,
            lease_client: prompt.spawn(async move { lease_client(&for_lease) }).await.unwrap(),
        };
        let operator = operator.run(prompt, std::future::pending());
        let judge = async {
            let started = Instant::now();
            until(patience, "the object is being reconciled", || barrier.waiting() > 0).await;
            let _released = Released(&barrier);
            // And so are others, on every thread that is left.
            let workers = threads.work.metrics().num_workers();
            let all_compute = || {
                // A thread that sleeps need not see a task that waits behind one that computes.
                let computing = Arc::clone(&barrier);
                threads.work.spawn(async move { computing.block() });
                barrier.waiting() >= workers
            };
            until(patience, "every thread computes", all_compute).await;
            let written = writes.load(Ordering::Relaxed);
            let mut slowest = Duration::ZERO;
            // Two renewals: 8 s.
            while writes.load(Ordering::Relaxed) < written + 2 {
                assert!(started.elapsed() < patience, "the lease is not renewed");
                for path in ["healthz", "readyz", "metrics", "debug"] {
                    let (took, body) = answers(&format!("http://{address}/{path}")).await;
                    slowest = slowest.max(took);
                    if path == "debug" {
                        let seen: Json = serde_json::from_str(&body).unwrap();
                        assert!(
                            seen["isLeader"] == true && seen["inFlight"][0]["step"] == "Preflight",
                            "{body}"
                        );
                    }
                }
            }
            println!("the slowest of all answers took {slowest:?}");
        };
        // Reading from a thread that waits nowhere.
        tokio::select! {
            () = operator => panic!("the operator has ended"),
            () = judge => {}
        }
    });
    threads.work.shutdown_background();
    threads.prompt.shutdown_background();
}

async fn until(patience: Duration, what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < patience, "{what}: never");
        // The timer may be driven by a thread that computes.
        std::thread::sleep(SECOND / 100);
        tokio::task::yield_now().await;
    }
}

/// How long the answer takes, and its body. It is asked for by a thread of its own.
async fn answers(url: &str) -> (Duration, String) {
    boltz_harness::install_tls_provider();
    let url = url.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().timeout(10 * SECOND).build().unwrap();
            let started = Instant::now();
            let answer = client.get(&url).send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
            let body = answer.text().await.unwrap();
            (started.elapsed(), body)
        })
    })
    .join()
    .unwrap()
}

//! Leader election in virtual time, against a Lease in memory that keeps resourceVersions.

use boltz_operator::{
    kubernetes::lease::{self, LeaseOptions},
    observability::metrics::Metrics,
};
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value as Json, json};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

/// How the way to the API server is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    Good,
    /// Requests arrive nowhere, and nobody says so.
    Dead,
    /// Requests take effect, and the answers are lost.
    Deaf,
    /// Every answer is a 500.
    Failing,
}

/// The one Lease, as the API server keeps it.
#[derive(Clone, Default)]
struct ApiServer {
    lease: Arc<Mutex<Option<Json>>>,
}

impl ApiServer {
    fn handle(&self, method: &Method, body: &Json) -> (StatusCode, Json) {
        let mut lease = self.lease.lock().unwrap();
        let failure = |code: StatusCode, reason: &str| {
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason});
            (code, status)
        };
        let version = |lease: &Json| lease["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        let write = |number: u64| {
            let mut written = body.clone();
            written["metadata"]["resourceVersion"] = json!(number.to_string());
            written
        };
        match (method, lease.as_ref()) {
            (&Method::GET, Some(known)) => (StatusCode::OK, known.clone()),
            (&Method::POST, None) => {
                *lease = Some(write(1));
                (StatusCode::CREATED, lease.clone().unwrap())
            }
            (&Method::PUT, Some(known)) if version(known) == version(body) => {
                let next = version(known).unwrap().parse::<u64>().unwrap() + 1;
                *lease = Some(write(next));
                (StatusCode::OK, lease.clone().unwrap())
            }
            (&Method::GET | &Method::PUT, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
            _ => failure(StatusCode::CONFLICT, "Conflict"),
        }
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        lease.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }
}

/// A process that wants to lead.
struct Candidate {
    line: watch::Sender<Line>,
    requests: watch::Receiver<u32>,
    leading: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Candidate {
    fn start(server: &ApiServer, identity: &str) -> Self {
        let (line, way) = watch::channel(Line::Good);
        let (count, requests) = watch::channel(0);
        let server = server.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            count.send_modify(|count| *count += 1);
            let (server, way) = (server.clone(), way.clone());
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Json::Null);
                let line = *way.borrow();
                let (status, answer) = match line {
                    Line::Good => server.handle(&method, &body),
                    Line::Failing => (StatusCode::INTERNAL_SERVER_ERROR, json!({"message": "no"})),
                    Line::Deaf => {
                        server.handle(&method, &body);
                        std::future::pending().await
                    }
                    Line::Dead => std::future::pending().await,
                };
                let response =
                    Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        let client = kube::Client::new(service, "default");
        let (leads, leading) = watch::channel(false);
        let stop = CancellationToken::new();
        let options = LeaseOptions {
            name: "boltz-operator".to_owned(),
            namespace: "default".to_owned(),
            identity: identity.to_owned(),
        };
        let task = tokio::spawn(lease::hold(client, options, leads, stop.clone(), Arc::new(Metrics::new())));
        Self { line, requests, leading, stop, task }
    }

    fn leads(&self) -> bool {
        *self.leading.borrow()
    }

    /// How long it takes until it leads, or leads no more.
    async fn until(&mut self, wanted: bool) -> Duration {
        let started = Instant::now();
        timeout(60 * SECOND, self.leading.wait_for(|leads| *leads == wanted))
            .await
            .expect("it never comes")
            .unwrap();
        started.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_goes_on_leading() {
    let server = ApiServer::default();
    let mut first = Candidate::start(&server, "first");
    assert!(first.until(true).await < SECOND, "a free lease is taken at once");
    let second = Candidate::start(&server, "second");
    for _ in 0..600 {
        sleep(SECOND).await;
        assert!(first.leads() && !second.leads());
    }
    assert_eq!(server.holder().as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn two_never_lead_at_once_whatever_happens_to_the_leaders_line() {
    for line in [Line::Dead, Line::Deaf, Line::Failing] {
        // At every moment of the renewal's round.
        for moment in 0..20 {
            let server = ApiServer::default();
            let mut first = Candidate::start(&server, "first");
            first.until(true).await;
            let mut second = Candidate::start(&server, "second");
            sleep(10 * SECOND + moment * SECOND / 5).await;
            first.line.send_replace(line);
            let lost = Instant::now();
            let mut gap = Duration::ZERO;
            while !second.leads() {
                sleep(SECOND / 20).await;
                assert!(!(first.leads() && second.leads()), "{line:?}, {moment}: both lead");
                if !first.leads() {
                    gap += SECOND / 20;
                }
                assert!(lost.elapsed() < 45 * SECOND, "{line:?}, {moment}: nobody takes over");
            }
            assert!(gap >= SECOND, "{line:?}, {moment}: the first stops well before the second starts");
            first.line.send_replace(Line::Good);
            sleep(30 * SECOND).await;
            assert!(!first.leads() && second.leads(), "who comes back does not take it away");
            second.until(true).await;
        }
    }
}

/// Suspended, that is: all its timers are due at once when it wakes.
#[tokio::test(start_paused = true)]
async fn who_slept_past_its_lease_knows_it_before_it_has_asked() {
    let server = ApiServer::default();
    let mut first = Candidate::start(&server, "first");
    first.until(true).await;
    for line in [Line::Dead, Line::Failing] {
        first.line.send_replace(line);
        tokio::time::advance(60 * SECOND).await;
        assert!(first.until(false).await < SECOND / 10, "{line:?}");
        first.line.send_replace(Line::Good);
        first.until(true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_interruption_changes_nothing() {
    let server = ApiServer::default();
    let mut first = Candidate::start(&server, "first");
    first.until(true).await;
    let second = Candidate::start(&server, "second");
    for _ in 0..20 {
        first.line.send_replace(Line::Failing);
        sleep(5 * SECOND).await;
        first.line.send_replace(Line::Good);
        sleep(5 * SECOND).await;
        assert!(first.leads() && !second.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_look() {
    let server = ApiServer::default();
    let mut first = Candidate::start(&server, "first");
    first.until(true).await;
    let mut second = Candidate::start(&server, "second");
    sleep(10 * SECOND).await;
    first.stop.cancel();
    first.task.await.unwrap();
    assert!(!*first.leading.borrow());
    assert_eq!(server.holder(), None);
    assert!(second.until(true).await <= 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_nobody_answers_does_not_hold_up_the_end() {
    let server = ApiServer::default();
    let mut first = Candidate::start(&server, "first");
    first.until(true).await;
    first.line.send_replace(Line::Dead);
    first.stop.cancel();
    timeout(7 * SECOND, first.task).await.expect("it ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_is_not_hammered() {
    let server = ApiServer::default();
    let mut first = Candidate::start(&server, "first");
    first.until(true).await;
    first.line.send_replace(Line::Failing);
    first.until(false).await;
    let before = *first.requests.borrow();
    sleep(60 * SECOND).await;
    let requests = *first.requests.borrow() - before;
    assert!((14..=16).contains(&requests), "{requests} requests in a minute");
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_race_stands_by() {
    let server = ApiServer::default();
    let mut candidates: Vec<Candidate> =
        (0..5).map(|number| Candidate::start(&server, &format!("candidate-{number}"))).collect();
    for _ in 0..100 {
        sleep(SECOND).await;
        assert!(candidates.iter().filter(|candidate| candidate.leads()).count() <= 1);
    }
    let leader = candidates.iter().position(Candidate::leads).expect("one leads");
    candidates.remove(leader).task.abort();
    sleep(25 * SECOND).await;
    assert_eq!(
        candidates.iter().filter(|candidate| candidate.leads()).count(),
        1,
        "a killed leader is replaced"
    );
}

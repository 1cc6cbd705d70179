//! Faults of watches, between the API server's stream of events and its client.

use axum::body::{Body, Bytes};
use futures::{Stream, StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// What goes wrong with watches until they are healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// Connections stay open, and no event arrives.
    Freeze,
    /// Every event arrives that much later.
    Delay(Duration),
    /// Connections are cut, new ones in the middle of their first event.
    Cut,
    /// Every other event is lost. When it is healed, the client is told to read the list again: nothing else could
    /// help it.
    Drop,
    /// Every event arrives twice.
    Duplicate,
    /// As if by an API server that lags behind: the client is told to read the list again, gets the last answer from
    /// before the fault, and no event after it.
    Replay,
    /// Connections are cut, and what they had reached is compacted: a watch from there, or from before, is refused with
    /// the status 410, forever.
    GoneStatus,
    /// Connections end with an ERROR event of 410, new ones in place of their first event.
    GoneEvent,
    /// The echo of an own write arrives that much later, and what follows it on its watch after it.
    LateEcho(Duration),
}

type Lines = mpsc::UnboundedReceiver<(Instant, Vec<u8>)>;
type Output = mpsc::UnboundedSender<Result<Bytes, io::Error>>;

/// What the proxy knows of lists, watches and own writes.
#[derive(Default)]
pub(crate) struct Watches {
    /// The fault, and the resources whose watches it concerns.
    fault: watch::Sender<Option<(WatchFault, &'static [&'static str])>>,
    /// Own writes without an answer: their effect may have been seen already.
    in_flight: watch::Sender<usize>,
    met: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    own_versions: HashSet<String>,
    lists: HashMap<String, Vec<u8>>,
    compacted: HashMap<String, u64>,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    pub(crate) fn set(&self, fault: Option<(WatchFault, &'static [&'static str])>) {
        self.fault.send_replace(fault);
    }

    /// How often a fault has shown.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }

    fn meets(&self) {
        self.met.fetch_add(1, Ordering::Relaxed);
    }

    fn fault_of(&self, resource: &str) -> Option<WatchFault> {
        let armed = *self.fault.borrow();
        armed.filter(|(_, resources)| resources.contains(&resource)).map(|(fault, _)| fault)
    }

    /// A write is sent. It is in flight until what this answers is dropped, also when its client gives up.
    pub(crate) fn write_begins(&self) -> InFlight<'_> {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(self)
    }

    /// The answer to a write, from which the version is taken that the echo will have.
    pub(crate) fn write_answered(&self, answer: &[u8]) {
        if let Some(version) = version_of(answer, "/metadata/resourceVersion") {
            self.lock().own_versions.insert(version);
        }
    }

    /// The answer to a list: this one, or an older one.
    pub(crate) fn list(&self, resource: &str, key: String, answer: Vec<u8>) -> Vec<u8> {
        let mut known = self.lock();
        if self.fault_of(resource) == Some(WatchFault::Replay) {
            let Some(older) = known.lists.get(&key).cloned() else { return answer };
            if older != answer {
                self.meets();
            }
            return older;
        }
        known.lists.insert(key, answer.clone());
        answer
    }

    /// Whether a watch from that version is refused with 410.
    pub(crate) fn is_gone(&self, resource: &str, path: &str, version: u64) -> bool {
        let mut known = self.lock();
        if self.fault_of(resource) == Some(WatchFault::GoneStatus) {
            known.compacted.entry(path.to_owned()).or_insert(version);
        }
        let is_gone = known.compacted.get(path).is_some_and(|compacted| version <= *compacted);
        if is_gone {
            self.meets();
        }
        is_gone
    }
}

pub(crate) struct InFlight<'a>(&'a Watches);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

fn version_of(json: &[u8], pointer: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(json).ok()?;
    Some(json.pointer(pointer)?.as_str()?.to_owned())
}

/// The body of a Status with the code 410.
pub(crate) fn gone() -> serde_json::Value {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version: a fault",
    })
}

/// The events as the client gets them.
pub(crate) fn faulty_body(
    watches: std::sync::Arc<Watches>,
    resource: String,
    events: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
) -> Body {
    let (to_client, body) = mpsc::unbounded_channel();
    let (arrived, lines) = mpsc::unbounded_channel();
    tokio::spawn(read_lines(events, arrived));
    tokio::spawn(async move {
        let faults = watches.fault.subscribe();
        let pump = Pump { watches: &watches, resource, faults, lines, output: to_client, count: 0 };
        pump.run().await;
    });
    Body::from_stream(stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) }))
}

/// Cuts the stream into events, each with the time at which it came, until the reader is dropped.
async fn read_lines(
    events: impl Stream<Item = Result<Bytes, axum::Error>>,
    arrived: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
) {
    tokio::pin!(events);
    let mut rest = Vec::new();
    loop {
        let chunk = tokio::select! {
            chunk = events.next() => chunk,
            () = arrived.closed() => return,
        };
        let Some(Ok(chunk)) = chunk else { return };
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.drain(..=end).collect();
            if arrived.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    }
}

struct Pump<'a> {
    watches: &'a Watches,
    resource: String,
    faults: watch::Receiver<Option<(WatchFault, &'static [&'static str])>>,
    lines: Lines,
    output: Output,
    count: usize,
}

struct End;

impl Pump<'_> {
    async fn run(mut self) {
        let mut fault = self.fault();
        loop {
            let line = tokio::select! {
                () = self.output.closed() => return,
                _ = self.faults.changed() => None,
                line = self.lines.recv() => match line {
                    Some(line) => Some(line),
                    None => return,
                },
            };
            let done = match line {
                None => self.turn(&mut fault),
                Some((arrived, line)) => self.pass(&mut fault, arrived, line).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn fault(&mut self) -> Option<WatchFault> {
        // What has been looked at is no change any more.
        drop(self.faults.borrow_and_update());
        self.watches.fault_of(&self.resource)
    }

    /// A fault begins or ends.
    fn turn(&mut self, fault: &mut Option<WatchFault>) -> Result<(), End> {
        let before = std::mem::replace(fault, self.fault());
        match (before, *fault) {
            (before, now) if before == now => Ok(()),
            (_, Some(WatchFault::Cut | WatchFault::GoneStatus)) => self.cut(),
            (_, Some(WatchFault::GoneEvent | WatchFault::Replay)) | (Some(WatchFault::Drop), None) => {
                self.send_gone()
            }
            _ => Ok(()),
        }
    }

    async fn pass(
        &mut self,
        fault: &mut Option<WatchFault>,
        arrived: Instant,
        line: Vec<u8>,
    ) -> Result<(), End> {
        self.count += 1;
        let mut is_counted = false;
        loop {
            let until = match *fault {
                None | Some(WatchFault::GoneStatus) => return self.send(line),
                // The older list is what counts.
                Some(WatchFault::Replay) => None,
                Some(WatchFault::Drop) if self.count.is_multiple_of(2) => return self.send(line),
                Some(WatchFault::LateEcho(_)) if !self.is_echo(&line).await => return self.send(line),
                Some(_) if !std::mem::replace(&mut is_counted, true) => {
                    self.watches.meets();
                    continue;
                }
                Some(WatchFault::Freeze) => None,
                Some(WatchFault::Delay(by) | WatchFault::LateEcho(by)) => Some(arrived + by),
                Some(WatchFault::Cut) => {
                    self.send(line[..line.len() / 2].to_vec())?;
                    return self.cut();
                }
                Some(WatchFault::Drop) => return Ok(()),
                Some(WatchFault::Duplicate) => {
                    self.send(line.clone())?;
                    return self.send(line);
                }
                Some(WatchFault::GoneEvent) => return self.send_gone(),
            };
            let time = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.output.closed() => return Err(End),
                _ = self.faults.changed() => self.turn(fault)?,
                () = time => return self.send(line),
            }
        }
    }

    /// Whether it shows an own write. A write whose answer is under way is waited for: it may be that one.
    async fn is_echo(&self, line: &[u8]) -> bool {
        // The sender lives as long as this borrow of it.
        let _ = self.watches.in_flight.subscribe().wait_for(|count| *count == 0).await;
        version_of(line, "/object/metadata/resourceVersion")
            .is_some_and(|version| self.watches.lock().own_versions.contains(&version))
    }

    fn send(&self, line: Vec<u8>) -> Result<(), End> {
        self.output.send(Ok(line.into())).map_err(|_| End)
    }

    fn send_gone(&self) -> Result<(), End> {
        let event = serde_json::json!({"type": "ERROR", "object": gone()});
        self.send(format!("{event}\n").into_bytes())?;
        Err(End)
    }

    fn cut(&self) -> Result<(), End> {
        let _ = self.output.send(Err(io::ErrorKind::ConnectionReset.into()));
        Err(End)
    }
}

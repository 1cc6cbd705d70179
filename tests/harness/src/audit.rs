//! The API server's audit log: who called what.

use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// One finished request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `create`, `update`, `patch`, `delete`, `get`, `list`, `watch`.
    pub verb: String,
    /// With the query: `dryRun`, `watch` and `resourceVersion` are in it.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The certificate's or token's, unless the request did not authenticate.
    #[serde(default)]
    pub user: AuditUser,
    /// For what, if it was for a resource.
    #[serde(default)]
    pub object_ref: AuditObject,
    /// Missing for a request that was not answered.
    #[serde(default)]
    pub response_status: AuditStatus,
    /// By the clock of the API server.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: jiff::Timestamp,
    /// By the clock of the API server. A watch is answered when it ends.
    #[serde(rename = "stageTimestamp")]
    pub answered: jiff::Timestamp,
    stage: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AuditUser {
    /// The name; empty if the request did not authenticate.
    #[serde(default)]
    pub username: String,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditObject {
    /// In the plural, as RBAC rules name it.
    pub resource: String,
    pub namespace: String,
    /// Its name; empty on creation.
    pub name: String,
    /// For example `status`.
    pub subresource: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AuditStatus {
    #[serde(default)]
    pub code: u16,
}

impl AuditEvent {
    /// Whether it was only a dry run.
    pub fn is_dry_run(&self) -> bool {
        self.request_uri.contains("dryRun=")
    }

    /// Whether it could change something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
            && !self.is_dry_run()
    }
}

/// The finished requests of a log, which is read on from where it was left.
#[derive(Debug, Default)]
pub(crate) struct AuditLog {
    /// How many bytes of it have been read.
    read: u64,
    events: Vec<AuditEvent>,
}

impl AuditLog {
    /// Reads what has been added. The last line may be half written: that request is not yet answered.
    pub(crate) fn read_on(&mut self, file: &Path) {
        let Ok(added) = self.added(file) else { return };
        let whole = added.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let events = added[..whole].split(|byte| *byte == b'\n');
        let events = events.filter_map(|line| serde_json::from_slice::<AuditEvent>(line).ok());
        self.events.extend(events.filter(|event| event.stage == "ResponseComplete"));
    }

    fn added(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut added = Vec::new();
        file.read_to_end(&mut added)?;
        Ok(added)
    }

    pub(crate) fn events(&self) -> &[AuditEvent] {
        &self.events
    }
}

/// Everything but what nobody asks about.
pub const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: None
    users: [system:apiserver]
  - level: None
    nonResourceURLs: ['/*']
  - level: Metadata
";

//! What the inventory does at the moment.

use crate::plan::Monotonic;

/// For `/debug`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// `None`: this process has not led yet.
    pub activity: Option<Activity>,
    /// When the activity began.
    pub since: Monotonic,
    /// How many passes failed since the last complete one.
    pub failures: u32,
    /// Why the last of them failed.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Activity {
    /// It may not call Boltz now.
    WaitingForPermission,
    /// A pass is in progress: it reads the list page by page.
    Reading,
    /// It waits for the next interval, or for a request.
    Idle,
}

//! What goes wrong with a call, and what takes effect late.

use crate::{Milestone, Secret, World, overlaps::By};
use boltz_operator::{plan::BoltzErrorKind, protocol::marker::AttemptId};
use std::time::Duration;

/// Something that takes effect after its sender has given up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Late {
    Post { object: String, attempt: AttemptId, days: Option<u32> },
    WriteSecret { name: String, expected: Option<u64>, secret: Box<Secret>, sent_at: Duration },
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The process ends before the call is sent.
    CrashBefore,
    /// The call takes effect, and the process ends before the answer.
    CrashAfter,
    /// The call takes no effect, and nobody says so.
    Cut,
    /// The same, and the caller waits that long for an answer.
    Silent(Duration),
    /// The call takes effect, and the answer is lost.
    Lost,
    /// The call takes effect that much later, and the answer is lost.
    Late(Duration),
    /// The call is refused.
    Refused,
    /// The caller lacks the permission.
    Forbidden,
    /// The API server says that the version is another, or that the name is taken.
    Conflict,
    /// The answer is a 404.
    NotFound,
    /// The call is answered as done, and something undid it.
    Undone,
    /// Boltz answers so.
    Boltz(BoltzErrorKind),
}

impl Fault {
    /// Whether the call takes effect, if not late.
    pub fn has_effect(self) -> bool {
        matches!(self, Self::Lost | Self::CrashAfter)
    }
}

#[derive(Debug, PartialEq)]
pub struct Crashed;

impl World {
    /// Lets time pass; what was late takes effect on its way.
    pub fn advance_to(&mut self, elapsed: Duration) {
        self.follow_deliveries(By::Users);
        while let Some(index) = self.next_late().filter(|index| self.late[*index].0 <= elapsed) {
            let (at, late) = self.late.remove(index);
            self.elapsed = self.elapsed.max(at);
            self.reached.insert(Milestone::Landed);
            match late {
                Late::Post { object, attempt, days } => drop(self.make_key(&object, &attempt, days)),
                Late::WriteSecret { name, expected, secret, sent_at } => {
                    // The guard holds for late writes too, and so does the garbage collector.
                    if self.secrets.get(&name).map(|known| known.version) == expected {
                        self.put_secret(name, *secret);
                        let uid = self.object.as_ref().map(|object| object.uid.clone());
                        self.secrets.retain(|_, secret| secret.owner == uid || !secret.owned);
                        self.follow_deliveries(By::Operator(sent_at));
                    }
                }
            }
        }
        self.elapsed = self.elapsed.max(elapsed);
    }

    pub(crate) fn next_late(&self) -> Option<usize> {
        (0..self.late.len()).min_by_key(|index| self.late[*index].0)
    }

    /// When the next late effect comes.
    pub fn next_late_at(&self) -> Option<Duration> {
        self.next_late().map(|index| self.late[index].0)
    }

    /// What is still under way, and the time, in words that tell two moments apart.
    pub fn late_and_time(&self) -> String {
        let late = self.late.iter().map(|(at, late)| match late {
            Late::Post { object, attempt, .. } => format!("{at:?} {object} {attempt} "),
            Late::WriteSecret { name, expected, secret, sent_at: _ } => {
                let fits = self.secrets.get(name).map(|known| known.version) == *expected;
                format!("{at:?} {name} {fits} {:?} ", secret.record)
            }
        });
        format!("{:?} {}", self.elapsed, late.collect::<String>())
    }
}

//! Tasks: a panic of one is a panic of the process.

use tokio::task::{JoinError, JoinSet};

/// Waits for all tasks.
pub(super) async fn all_end(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        pass_panic_on(ended);
    }
}

/// A panic of the task is a panic here.
pub(super) fn pass_panic_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

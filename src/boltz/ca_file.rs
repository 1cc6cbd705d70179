//! The file of `--boltz-ca-file`: it is read again when it changes.

use super::client::BoltzClient;
use std::{path::PathBuf, time::Duration};

/// How often the file is read. Kubernetes updates a mounted file by replacing a symlink, so the content is compared.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Has the client trust what the file says. What cannot be read, or holds no certificate, changes nothing. Does not end.
pub async fn follow(file: PathBuf, mut known: Vec<u8>, client: BoltzClient) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let read = match tokio::fs::read(&file).await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(file = %file.display(), %error, "failed to read the root certificates");
                continue;
            }
        };
        if read == known {
            continue;
        }
        match client.replace_roots(&read) {
            Ok(()) => tracing::info!(file = %file.display(), "loaded new root certificates for Boltz"),
            Err(error) => {
                tracing::error!(file = %file.display(), "{error}; the root certificates before stay in use");
            }
        }
        known = read;
    }
}

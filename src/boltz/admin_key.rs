//! The source of the admin key: a mounted file that is reloaded when it changes, or the environment.

use secrecy::{ExposeSecret, SecretString};
use std::{path::PathBuf, time::Duration};
use tokio::sync::watch;

/// How often the file is read. Kubernetes updates a mounted Secret by replacing a symlink, so the content is compared.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The source of the admin key.
#[derive(Clone, Debug)]
pub enum AdminKeySource {
    /// A mounted file.
    File(PathBuf),
    /// The environment variable `BOLTZ_API_KEY`, as it was at start.
    Environment,
}

impl AdminKeySource {
    /// The current key, if there is one.
    pub async fn read(&self) -> Option<SecretString> {
        let text = match self {
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => text,
                Err(error) => {
                    tracing::debug!(file = %path.display(), %error, "failed to read the admin key file");
                    return None;
                }
            },
            Self::Environment => std::env::var("BOLTZ_API_KEY").ok()?,
        };
        // Overwritten when it is dropped.
        let text = SecretString::from(text);
        let key = text.expose_secret().trim();
        if http::HeaderValue::from_str(key).is_err() {
            tracing::error!(
                "the admin key contains characters that are not allowed in an HTTP header; check the admin key file"
            );
            return None;
        }
        (!key.is_empty()).then(|| SecretString::from(key))
    }

    /// Publishes each change of the file. Does not end.
    pub(crate) async fn publish(self, key: watch::Sender<Option<SecretString>>) {
        let Self::File(path) = &self else { return std::future::pending().await };
        let missing = || {
            tracing::error!(file = %path.display(), "the admin key file is missing or empty");
        };
        if key.borrow().is_none() {
            missing();
        }
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let read = self.read().await;
            let changed = key.send_if_modified(|known| {
                let differs = !is_same(known.as_ref(), read.as_ref());
                if differs {
                    known.clone_from(&read);
                }
                differs
            });
            match (changed, read.is_some()) {
                (true, true) => tracing::info!("the admin key file has a new key"),
                (true, false) => missing(),
                (false, _) => {}
            }
        }
    }
}

/// Compares without a copy.
pub(super) fn is_same(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(ExposeSecret::expose_secret) == other.map(ExposeSecret::expose_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        // Kubernetes updates a mounted Secret by replacing a symlink.
        let link = |name: &str, content: &str| {
            std::fs::write(folder.path().join(name), content).unwrap();
            let new = folder.path().join("new");
            std::os::unix::fs::symlink(folder.path().join(name), &new).unwrap();
            std::fs::rename(new, &file).unwrap();
        };
        let source = AdminKeySource::File(file.clone());
        assert!(source.read().await.is_none(), "a missing file is no key");
        let (sender, mut receiver) = watch::channel(None);
        tokio::spawn(source.publish(sender));
        let key = |key: &Option<SecretString>| key.as_ref().map(|key| key.expose_secret().to_owned());
        for (name, content, expected) in [
            ("one", "first\n", Some("first")),
            ("two", "second", Some("second")),
            ("three", " \n", None),
            ("four", "third", Some("third")),
            ("five", "two\nlines", None),
        ] {
            link(name, content);
            receiver.changed().await.unwrap();
            assert_eq!(key(&receiver.borrow_and_update()).as_deref(), expected);
        }
    }
}

//! What makes the operator believe a record that it wrote itself: a code that only who has the admin key can make.

use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

/// The proof that the object with this UID adopted the key with this id, in hexadecimal. Users can read and copy it, but for
/// no other object and no other key.
pub(super) fn adoption_proof(admin_key: &SecretString, object_uid: &str, key_id: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, admin_key.expose_secret().as_bytes());
    let message = serde_json::json!(["boltz.bio/adopted", object_uid, key_id]).to_string();
    crate::protocol::digits::hexadecimal(hmac::sign(&key, message.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_proof_is_for_one_object_one_key_and_one_admin_key() {
        let proof = |admin_key: &str, uid: &str, id: &str| adoption_proof(&admin_key.into(), uid, id);
        let first = proof("admin", "uid", "key");
        assert_eq!(first, proof("admin", "uid", "key"));
        assert_eq!(first.len(), 64);
        let all = [
            first,
            proof("other", "uid", "key"),
            proof("admin", "other", "key"),
            proof("admin", "uid", "other"),
            proof("admin", "uidkey", ""),
            proof("admin", "", "uidkey"),
        ];
        assert_eq!(HashSet::from(all).len(), 6);
    }
}

//! Removes secrets and control characters from text of others before it is repeated in a status, an event or a log line.

/// How keys of Boltz begin, in either case. See `docs/boltz-api.md`.
const KEY_PREFIXES: [&str; 2] = ["sk_", "sk-"];
/// The same in base64, whose case counts.
const ENCODED_KEY_PREFIXES: [&str; 2] = ["c2tf", "c2st"];
pub(crate) const REDACTED: &str = "[redacted]";
/// What is shorter is a word of its own, and no key.
const MIN_SECRET_LENGTH: usize = 8;

/// The body without these secrets, whatever field repeats them.
pub(crate) fn without(body: Vec<u8>, secrets: &[&str]) -> Vec<u8> {
    let mut body = match String::from_utf8(body) {
        Ok(text) => text,
        // Not JSON.
        Err(_) => return Vec::new(),
    };
    for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET_LENGTH) {
        if body.contains(secret) {
            body = body.replace(secret, REDACTED);
        }
    }
    body.into_bytes()
}

/// The text without these secrets, without words that look like a key, and without control characters.
pub(crate) fn scrub(text: &str, secrets: &[&str]) -> String {
    let mut text: String = text.chars().filter(|character| !character.is_control()).collect();
    for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET_LENGTH) {
        text = text.replace(secret, REDACTED);
    }
    let mut scrubbed = String::new();
    let mut word = String::new();
    for character in text.chars() {
        if is_of_key(character) {
            word.push(character);
        } else {
            push_word(&mut scrubbed, &mut word);
            scrubbed.push(character);
        }
    }
    push_word(&mut scrubbed, &mut word);
    scrubbed
}

fn is_of_key(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '+' | '/' | '=')
}

fn push_word(text: &mut String, word: &mut String) {
    text.push_str(if looks_like_a_key(word) { REDACTED } else { word });
    word.clear();
}

/// The prefix may stand anywhere in the word: after `key=`, for example.
fn looks_like_a_key(word: &str) -> bool {
    let lower_case = word.to_ascii_lowercase();
    // Each place: the first may follow a letter, as in `task_`.
    let has = |text: &str, prefix: &str| {
        text.match_indices(prefix).any(|(at, _)| word.len() - at > 8 && !follows_a_letter(word, at))
    };
    KEY_PREFIXES.iter().any(|prefix| has(&lower_case, prefix))
        || ENCODED_KEY_PREFIXES.iter().any(|prefix| has(word, prefix))
}

fn follows_a_letter(word: &str, at: usize) -> bool {
    word[..at].bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_stay() {
        let admin = "admin-key-of-an-unusual-shape";
        for text in [
            "the key sk_bc_admin_live_0123456789abcdef is not allowed",
            "x-api-key=sk_bc_ws_live_abc123",
            "\"SK_BC_WS_TEST_ABC\"",
            "denied: c2tfYmNfd3NfbGl2ZV9hYmM=",
            "(admin-key-of-an-unusual-shape)",
            "task_sk_bc_ws_live_abc123",
            "admin-key-of-\u{7}an-unusual-shape",
        ] {
            let scrubbed = scrub(text, &[admin, ""]);
            assert!(scrubbed.contains(REDACTED), "{scrubbed}");
            for part in ["bc_", "BC_", "unusual", "YmNf"] {
                assert!(!scrubbed.contains(part), "{text}: {scrubbed}");
            }
        }
    }

    #[test]
    fn words_stay() {
        for text in [
            "",
            "workspace ws_0123456789 does not exist",
            "request 550e8400-e29b-41d4-a716-446655440000 failed",
            "a task_that_runs-and_runs",
            "key_0123456789abcdefghij is already revoked",
            "key_c2sTCuWCsogILSm7yVTE is already revoked",
            "https://api.example/compute/v1/admin/api-keys/key_0123456789abcdefghij/revoke",
        ] {
            assert_eq!(scrub(text, &["secret"]), text);
        }
        assert_eq!(scrub("Try\nagain\u{1b}[31m", &[]), "Tryagain[31m");
    }
}

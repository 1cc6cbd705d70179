//! How numbers are written in texts that are stored.

/// 64 bits in hexadecimal digits.
pub(super) const HEXADECIMAL_LENGTH: usize = 16;
/// 64 bits in base 32.
pub(super) const BASE32_LENGTH: usize = 13;
/// Crockford's, in lower case.
pub(super) const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// 64 bits of exactly so many digits: the text is the only one for them.
pub(super) fn from_hexadecimal(text: &str) -> Option<u64> {
    let is_complete = text.len() == HEXADECIMAL_LENGTH && is_hexadecimal(text);
    is_complete.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The lowest bits, five in each character, the highest first.
pub(super) fn base32(bits: u64, length: usize) -> String {
    let digit = |index: usize| char::from(BASE32[(bits >> (5 * index)) as usize & 31]);
    (0..length).rev().map(digit).collect()
}

/// 64 bits. 13 characters have room for one bit more: a text with that bit is refused.
pub(super) fn from_base32(text: &str) -> Option<u64> {
    let digit = |byte: u8| BASE32.iter().position(|known| *known == byte);
    let add = |bits: u64, byte: u8| bits.checked_mul(32)?.checked_add(digit(byte)? as u64);
    (text.len() == BASE32_LENGTH).then(|| text.bytes().try_fold(0, add)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_text() {
        let patterns = (0..64).flat_map(|bit| [1 << bit, u64::MAX << bit, u64::MAX >> bit]);
        for bits in patterns.chain([0, 0x0123_4567_89ab_cdef]) {
            let text = base32(bits, BASE32_LENGTH);
            assert_eq!((text.len(), from_base32(&text)), (BASE32_LENGTH, Some(bits)), "{text}");
            assert_eq!(from_hexadecimal(&hexadecimal(&bits.to_be_bytes())), Some(bits));
        }
        assert_eq!(base32(u64::MAX, BASE32_LENGTH), "fzzzzzzzzzzzz");
        // 65 bits, letters of no alphabet, and the wrong length.
        for text in [
            "g000000000000",
            "zzzzzzzzzzzzz",
            "000000000000u",
            "00000000000A0",
            "000000000000",
            "00000000000000",
        ] {
            assert_eq!(from_base32(text), None, "{text}");
        }
        for text in ["", "+123456789abcdef", "0123456789abcdeF", "0123456789abcde", "0123456789abcdef0"] {
            assert_eq!(from_hexadecimal(text), None, "{text}");
        }
    }
}

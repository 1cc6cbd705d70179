//! Values that are read seldom, kept small: an operator holds an object and a Secret for each key, and looks at one of them
//! now and then.

use serde::{Serialize, de::DeserializeOwned};
use std::{marker::PhantomData, sync::OnceLock};

/// The maximum length of a dictionary: others can write large values, and the first one is the dictionary.
const MAX_DICTIONARY_LENGTH: usize = 4096;

/// A value as compressed JSON.
pub(crate) struct AtRest<T> {
    compressed: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

/// What values of one type have in common: the text of the first one.
#[derive(Debug)]
pub(crate) struct Dictionary(OnceLock<Box<[u8]>>);

impl Dictionary {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn text(&self, first: &[u8]) -> &[u8] {
        self.0.get_or_init(|| first[..first.len().min(MAX_DICTIONARY_LENGTH)].into())
    }
}

impl<T: Serialize + DeserializeOwned> AtRest<T> {
    /// Stores the value.
    pub(crate) fn new(value: &T, dictionary: &Dictionary) -> Self {
        // Types that serialize to JSON; an empty text is no value when it is read.
        let text = serde_json::to_vec(value).unwrap_or_default();
        let compressed = lz4_flex::block::compress_prepend_size_with_dict(&text, dictionary.text(&text));
        Self { compressed: compressed.into_boxed_slice(), of: PhantomData }
    }

    /// The value. `None` only if its type does not read what it writes.
    pub(crate) fn open(&self, dictionary: &Dictionary) -> Option<T> {
        let text =
            lz4_flex::block::decompress_size_prepended_with_dict(&self.compressed, dictionary.text(&[]))
                .ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl<T> Clone for AtRest<T> {
    fn clone(&self) -> Self {
        Self { compressed: self.compressed.clone(), of: PhantomData }
    }
}

impl<T> std::fmt::Debug for AtRest<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} bytes", self.compressed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_and_what_repeats_costs_little() {
        let dictionary = Dictionary::new();
        let value = |number: usize| vec![format!("The Secret contains a valid key. {number}"); 20];
        let first = AtRest::new(&value(1), &dictionary);
        let second = AtRest::new(&value(2), &dictionary);
        assert_eq!((first.open(&dictionary), second.open(&dictionary)), (Some(value(1)), Some(value(2))));
        assert!(second.compressed.len() < 60, "{second:?}");
    }

    #[test]
    fn a_dictionary_is_short() {
        let dictionary = Dictionary::new();
        for length in [1_000_000, 10] {
            let value = "x".repeat(length);
            assert_eq!(AtRest::new(&value, &dictionary).open(&dictionary), Some(value));
        }
        assert_eq!(dictionary.text(&[]).len(), MAX_DICTIONARY_LENGTH);
    }
}

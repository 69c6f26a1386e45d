//! One item of a mirror: its id and its text in one allocation.

use std::str;

use bytes::Bytes;

use super::Version;

/// An item as a mirror holds it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The id, and right behind it the text.
    both: Box<[u8]>,
    id_length: u32,
    /// What it adds to the version.
    pub(super) digest: Version,
}

impl Item {
    /// Copies an id and a text; what it adds to the version is still to be told.
    ///
    /// # Panics
    ///
    /// Panics when the id is 4 GiB long.
    pub(super) fn new(id: &str, text: &[u8]) -> Self {
        let id_length = u32::try_from(id.len()).expect("Redis takes no id of 4 GiB");
        Self { both: [id.as_bytes(), text].concat().into(), id_length, digest: Version::EMPTY }
    }

    pub(super) fn id(&self) -> &str {
        str::from_utf8(&self.both[..self.id_length as usize]).expect("an id is text")
    }

    /// Tells whether this is its id, without a look at whether that is text.
    pub(super) fn is(&self, id: &str) -> bool {
        self.both[..self.id_length as usize] == *id.as_bytes()
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.both[self.id_length as usize..]
    }

    /// How many bytes id and text are.
    pub(super) fn len(&self) -> usize {
        self.both.len()
    }

    /// Takes another text.
    pub(super) fn rewrite(&mut self, text: &Bytes) {
        self.both = [self.id().as_bytes(), text].concat().into();
    }
}

//! What a feed's content is called: 24 hexadecimal digits, the same on every gateway.
//!
//! A version is a sum over items, so that one item more or less is one addition,
//! whatever the size of the feed.

use std::{fmt, str::FromStr};

use sha1::{Digest, Sha1};

/// The version of some content, or of one item: three words, each a sum modulo 2³².
///
/// Each item adds the first three 32-bit words of the SHA-1 of `PREV NUL id NUL item`,
/// where PREV is the id before it in a sorted feed, and empty for the first and in a
/// plain feed. It covers bytes, not JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version([u32; 3]);

/// A text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {0:?} is not 24 hexadecimal digits")]
pub struct BadVersion(pub String);

impl Version {
    /// The version of no items.
    pub const EMPTY: Self = Self([0; 3]);

    /// Returns the version of content that is one item alone.
    ///
    /// ```
    /// # use gateway::mirror::Version;
    /// let version = Version::of_one("1", br#"{"title":"new"}"#);
    /// assert_eq!(version.to_string(), "2e5b3143f5ae7845b1dad4a8");
    /// ```
    pub fn of_one(id: &str, item: &[u8]) -> Self {
        Self::of_item("", id, item)
    }

    /// Returns what the item `id` adds behind `previous`, which is empty for the first
    /// item and in a plain feed.
    pub fn of_item(previous: &str, id: &str, item: &[u8]) -> Self {
        let digest = Sha1::new()
            .chain_update(previous)
            .chain_update([0])
            .chain_update(id)
            .chain_update([0])
            .chain_update(item)
            .finalize();
        let mut words = digest.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        Self(std::array::from_fn(|_| words.next().expect("a SHA-1 has five words")))
    }

    /// Counts one item in.
    pub fn add(&mut self, item: Self) {
        for (sum, word) in self.0.iter_mut().zip(item.0) {
            *sum = sum.wrapping_add(word);
        }
    }

    /// Counts one item out.
    pub fn remove(&mut self, item: Self) {
        for (sum, word) in self.0.iter_mut().zip(item.0) {
            *sum = sum.wrapping_sub(word);
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.0;
        write!(out, "{first:08x}{second:08x}{third:08x}")
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let is_hex = text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(bad());
        }
        let word = |at| u32::from_str_radix(&text[at..at + 8], 16).map_err(|_| bad());
        Ok(Self([word(0)?, word(8)?, word(16)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: (&str, &[u8]) = ("1", br#"{"title":"new"}"#);
    const TWO: (&str, &[u8]) = ("2", b"\xff\x00raw");
    const THREE: (&str, &[u8]) = ("é", b"");

    /// The expected texts were computed by Python's hashlib.
    #[track_caller]
    fn check(items: &[(&str, &[u8])], plain: &str, sorted: &str) {
        let (mut unordered, mut ordered) = (Version::EMPTY, Version::EMPTY);
        let mut previous = "";
        for (id, item) in items {
            unordered.add(Version::of_one(id, item));
            ordered.add(Version::of_item(previous, id, item));
            previous = id;
        }
        assert_eq!(unordered.to_string(), plain);
        assert_eq!(ordered.to_string(), sorted);
    }

    #[test]
    fn versions_are_those_that_an_independent_program_computes() {
        check(&[], "000000000000000000000000", "000000000000000000000000");
        check(&[ONE], "2e5b3143f5ae7845b1dad4a8", "2e5b3143f5ae7845b1dad4a8");
        check(&[TWO], "ca49eedd377d11ef366bfc1f", "ca49eedd377d11ef366bfc1f");
        check(&[THREE], "04da2636cff0e1c39b2eb55d", "04da2636cff0e1c39b2eb55d");
        check(&[ONE, TWO], "f8a520202d2b8a34e846d0c7", "ce69cb60ed5ea0aca26899ef");
        check(&[ONE, TWO, THREE], "fd7f4656fd1c6bf783758624", "287c8dfbc6a4ffc91d0efc01");
        check(&[THREE, TWO, ONE], "fd7f4656fd1c6bf783758624", "40e8ab6d506e4bb452b72733");
        check(&[ONE, ONE, ONE], "8b1193c9e10b68cf15907df8", "87ce5f0b4a5396ed764fa422");
    }

    #[test]
    fn what_is_counted_in_can_be_counted_out() {
        let (one, two) = (Version::of_one(ONE.0, ONE.1), Version::of_one(TWO.0, TWO.1));
        let mut version = Version::EMPTY;
        version.add(two);
        version.add(one);
        version.remove(two);
        assert_eq!(version, one);
        version.remove(one);
        assert_eq!(version, Version::EMPTY);
    }

    #[test]
    fn a_version_is_read_as_it_is_written() {
        let version = Version::of_one(THREE.0, THREE.1);
        assert_eq!(version.to_string().parse(), Ok(version));
        for text in
            ["", "0", "+4da2636cff0e1c39b2eb55d", "04da2636cff0e1c39b2eb55d0", "éééééééééééé"]
        {
            assert_eq!(text.parse::<Version>(), Err(BadVersion(text.to_owned())));
        }
    }
}

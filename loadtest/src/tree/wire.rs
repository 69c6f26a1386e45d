//! The shapes in which state and events come. Pure.

use std::{borrow::Cow, collections::BTreeMap, fmt, str};

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::value::RawValue;

/// `v`: what a feed held, in 24 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 24]);

impl Version {
    /// Returns the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

impl str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match text.as_bytes().try_into() {
            Ok(digits) if text.as_bytes().iter().all(is_digit) => Ok(Self(digits)),
            _ => Err(format!("`{text}` is no version")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A string that is borrowed where it has no escapes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The argument of `initial`.
#[derive(Debug, Deserialize)]
pub(super) struct Root<'a> {
    pub(super) attrs: RootAttrs,
    #[serde(borrow, default)]
    pub(super) models: RootModels<'a>,
    #[serde(borrow, default)]
    pub(super) collections: RootCollections<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootAttrs {
    pub(super) id: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RootModels<'a> {
    #[serde(borrow)]
    pub(super) user: Option<Model<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RootCollections<'a> {
    #[serde(borrow)]
    pub(super) teams: Option<Collection<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    pub(super) v: Option<Version>,
    #[serde(borrow)]
    pub(super) attrs: &'a RawValue,
    #[serde(borrow, default)]
    pub(super) collections: BTreeMap<Text<'a>, Collection<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Collection<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    pub(super) v: Option<Version>,
    #[serde(borrow)]
    pub(super) models: Vec<Model<'a>>,
    #[serde(default)]
    pub(super) unavailable: bool,
}

/// The argument of `publish`, `change`, `retract` and `position`; each has some of these.
#[derive(Debug, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    pub(super) feed: Text<'a>,
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    pub(super) item: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) position: Option<Text<'a>>,
    pub(super) v: Option<Version>,
}

/// An item may be `null`, which is not the same as none.
fn even_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// The argument of `reset`.
#[derive(Debug, Deserialize)]
pub(super) struct Reset<'a> {
    #[serde(borrow)]
    pub(super) feed: Text<'a>,
    #[serde(borrow)]
    pub(super) parent: Option<Parent<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) collection: Option<Collection<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parent<'a> {
    #[serde(borrow)]
    pub(super) feed: Text<'a>,
    #[serde(borrow)]
    pub(super) id: Text<'a>,
}

/// A place in a collection, as an event names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position<'a> {
    Begin,
    End,
    Before(&'a str),
    Behind(&'a str),
}

impl<'a> Position<'a> {
    pub(super) fn read(text: &'a str) -> Option<Self> {
        Some(match text {
            "begin:" => Self::Begin,
            ":end" => Self::End,
            _ => match text.strip_prefix(':') {
                Some(id) => Self::Before(id),
                None => Self::Behind(text.strip_suffix(':')?),
            },
        })
    }
}

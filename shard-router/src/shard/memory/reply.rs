//! What a command answered, and what Redis makes of it for Lua and back.

use bytes::Bytes;

use crate::shard::Value;

/// The answer of one command or script.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    Bytes(Bytes),
    Status(Bytes),
    Error(String),
    Array(Vec<Self>),
}

impl Reply {
    /// Makes a value of an answer; an error anywhere at the top is the error.
    pub(super) fn into_value(self) -> Result<Value, String> {
        Ok(match self {
            Self::Nil => Value::Nil,
            Self::Int(int) => Value::Int(int),
            Self::Bytes(bytes) | Self::Status(bytes) => Value::Bytes(bytes),
            Self::Error(error) => return Err(error),
            Self::Array(replies) => {
                let values: Result<_, _> = replies.into_iter().map(Self::into_value).collect();
                Value::Array(values?)
            }
        })
    }

    pub(super) const fn ok() -> Self {
        Self::Status(Bytes::from_static(b"OK"))
    }
}

impl From<i64> for Reply {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<usize> for Reply {
    fn from(count: usize) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Reply {
    fn from(yes: bool) -> Self {
        Self::Int(i64::from(yes))
    }
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Option<Bytes>> for Reply {
    fn from(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::Nil, Self::Bytes)
    }
}

impl FromIterator<Bytes> for Reply {
    fn from_iter<I: IntoIterator<Item = Bytes>>(all: I) -> Self {
        Self::Array(all.into_iter().map(Self::Bytes).collect())
    }
}

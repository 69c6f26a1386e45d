//! What clients are told, as JSON text: models, collections, events.
//!
//! Pure: mirrors in, text out. An item that is JSON stays the text that it is.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    sync::Arc,
};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::mirror::{Change, Mirror, Version};

/// Returns an item as JSON: its own text, or a string where it is none (broken UTF-8 replaced).
#[must_use]
pub fn item_json(item: &[u8]) -> Cow<'_, str> {
    match serde_json::from_slice::<&RawValue>(item) {
        Ok(raw) => Cow::Borrowed(raw.get()),
        Err(_) => Cow::Owned(string(&String::from_utf8_lossy(item))),
    }
}

/// Returns a model's attributes: the item's text with `"id"` added where it has none.
///
/// An item that is not an object becomes `{id, value}`.
#[must_use]
pub fn attrs_json(id: &str, item: &[u8]) -> String {
    let mut out = String::new();
    write_attrs(&mut out, id, item);
    out
}

fn write_attrs(out: &mut String, id: &str, item: &[u8]) {
    let object = std::str::from_utf8(item).ok().map(|text| text.trim_matches(SPACE));
    match object.and_then(|text| Some((text, has_id(text)?))) {
        Some((text, true)) => out.push_str(text),
        Some((text, false)) => {
            let inner = text[1..].trim_start_matches(SPACE);
            out.push_str(r#"{"id":"#);
            write_string(out, id);
            out.push_str(if inner.starts_with('}') { "" } else { "," });
            out.push_str(inner);
        }
        None => {
            out.push_str(r#"{"id":"#);
            write_string(out, id);
            out.push_str(r#","value":"#);
            out.push_str(&item_json(item));
            out.push('}');
        }
    }
}

/// What JSON takes for space.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Tells whether an object has a key `id`, whatever its value; `None` where it is none.
fn has_id(json: &str) -> Option<bool> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = bool;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut found = false;
            while let Some(is_id) = map.next_key_seed(IsId)? {
                found |= is_id;
                map.next_value::<IgnoredAny>()?;
            }
            Ok(found)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let found = reader.deserialize_map(Keys).ok()?;
    reader.end().ok().map(|()| found)
}

/// Tells whether a key is `id`.
struct IsId;

impl<'de> DeserializeSeed<'de> for IsId {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        // As bytes, for escapes of half a surrogate pair are JSON too.
        key.deserialize_bytes(self)
    }
}

impl Visitor<'_> for IsId {
    type Value = bool;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<bool, E> {
        Ok(key == b"id")
    }
}

/// Writes a model: `{id, attrs, collections}`, with `v` where the model stands for a lone item.
///
/// `collections` writes what hangs below it, as members of an object.
pub fn write_model(
    out: &mut String,
    id: &str,
    v: Option<Version>,
    item: &[u8],
    collections: impl FnOnce(&mut String),
) {
    out.push_str(r#"{"id":"#);
    write_string(out, id);
    if let Some(v) = v {
        write!(out, r#","v":"{v}""#).expect("a String takes everything");
    }
    out.push_str(r#","attrs":"#);
    write_attrs(out, id, item);
    out.push_str(r#","collections":{"#);
    collections(out);
    out.push_str("}}");
}

/// Writes the key of a member of an object, which is its first or not.
pub fn write_key(out: &mut String, key: &str, is_first: bool) {
    if !is_first {
        out.push(',');
    }
    write_string(out, key);
    out.push(':');
}

/// Writes an `initial` of its user's id and model and the models of the teams.
pub fn write_initial(
    out: &mut String,
    user: &str,
    own: Option<&str>,
    teams_feed: &str,
    teams: &[Arc<str>],
) {
    out.push_str(r#"{"attrs":{"id":"#);
    write_string(out, user);
    out.push_str(r#"},"models":{"#);
    if let Some(own) = own {
        out.extend([r#""user":"#, own]);
    }
    out.push_str(r#"},"collections":{"teams":{"id":"#);
    write_string(out, teams_feed);
    out.push_str(r#","models":["#);
    for (at, team) in teams.iter().enumerate() {
        out.extend([if at > 0 { "," } else { "" }, team]);
    }
    out.push_str("]}}}");
}

/// Returns a collection without anything below its items, as [`write_collection`] writes it.
#[must_use]
pub fn collection_json(feed: &str, mirror: &Mirror, v: Option<Version>) -> String {
    let mut out = String::new();
    write_collection(&mut out, feed, mirror, v, |_, _| ());
    out
}

/// Writes a collection: `{id, v, models}`, with its feed's name as `id`; `v` is null where no
/// version holds.
///
/// `nested` writes what hangs below the item of an id, as members of an object.
pub fn write_collection(
    out: &mut String,
    feed: &str,
    mirror: &Mirror,
    v: Option<Version>,
    mut nested: impl FnMut(&mut String, &str),
) {
    out.push_str(r#"{"id":"#);
    write_string(out, feed);
    out.push_str(r#","v":"#);
    match v {
        Some(v) => write!(out, r#""{v}""#).expect("a String takes everything"),
        None => out.push_str("null"),
    }
    out.push_str(r#","models":["#);
    for (at, (id, item)) in mirror.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_model(out, id, None, item, |out| nested(out, id));
    }
    out.push_str("]}");
}

/// Returns the collection of a feed that cannot be read now.
#[must_use]
pub fn unavailable_json(feed: &str) -> String {
    format!(r#"{{"id":{},"v":null,"models":[],"unavailable":true}}"#, string(feed))
}

fn version_json(v: Option<Version>) -> String {
    v.map_or_else(|| "null".to_owned(), |v| format!(r#""{v}""#))
}

/// Returns the name and the argument of the event that tells one change of a feed, and what
/// the feed is then, where that is a version. `v` is its last member.
#[must_use]
pub fn event_json(feed: &str, change: &Change, v: Option<Version>) -> (&'static str, String) {
    let (name, id, item, position) = match change {
        Change::Publish { id, item, position } => ("publish", id, Some(item), position.as_ref()),
        Change::Change { id, item } => ("change", id, Some(item), None),
        Change::Retract { id } => ("retract", id, None, None),
        Change::Position { id, position } => ("position", id, None, Some(position)),
    };
    let mut out = format!(r#"{{"feed":{},"id":{}"#, string(feed), string(id));
    if let Some(item) = item {
        out.push_str(r#","item":"#);
        out.push_str(&item_json(item));
    }
    if let Some(position) = position {
        out.push_str(r#","position":"#);
        out.push_str(&string(&position.to_string()));
    }
    out.push_str(&format!(r#","v":{}}}"#, version_json(v)));
    (name, out)
}

/// Returns the argument of an event about one lone item, such as a team's attributes.
#[must_use]
pub fn item_event_json(feed: &str, id: &str, item: &[u8], v: Version) -> String {
    format!(
        r#"{{"feed":{},"id":{},"item":{},"v":"{v}"}}"#,
        string(feed),
        string(id),
        item_json(item)
    )
}

/// Returns the argument of a `retract` of a team: what is left is no version.
#[must_use]
pub fn gone_json(feed: &str, id: &str) -> String {
    format!(r#"{{"feed":{},"id":{},"v":null}}"#, string(feed), string(id))
}

/// Where a collection hangs: the feed and the id of the model above it, and its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hung<'a> {
    /// The feed of the model above.
    pub parent: &'a str,
    /// The id of the model above.
    pub id: &'a str,
    /// The key under which the collection hangs.
    pub name: &'a str,
}

/// Returns the argument of a `reset`; outside the tree `hung` is `None`, and `None` for the
/// collection says that it is gone.
#[must_use]
pub fn reset_json(feed: &str, hung: Option<Hung<'_>>, collection: Option<&str>) -> String {
    let (parent, name) = match hung {
        Some(Hung { parent, id, name }) => {
            (format!(r#"{{"feed":{},"id":{}}}"#, string(parent), string(id)), string(name))
        }
        None => ("null".to_owned(), "null".to_owned()),
    };
    let collection = collection.unwrap_or("null");
    format!(
        r#"{{"feed":{},"parent":{parent},"name":{name},"collection":{collection}}}"#,
        string(feed)
    )
}

/// Writes a text as a JSON string.
fn write_string(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.extend(["\"", text, "\""]);
    } else {
        out.push_str(&string(text));
    }
}

/// Returns a text as a JSON string.
#[must_use]
pub fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_attrs(item: &str, expected: &str) {
        assert_eq!(attrs_json("7", item.as_bytes()), expected);
    }

    #[test]
    fn attrs_are_the_items_own_text_with_an_id() {
        check_attrs(r#"{"title" : "x"}"#, r#"{"id":"7","title" : "x"}"#);
        check_attrs(r#"  { "n":1.0e2 }  "#, r#"{"id":"7","n":1.0e2 }"#);
        check_attrs("{}", r#"{"id":"7"}"#);
        check_attrs("{ }", r#"{"id":"7"}"#);
        check_attrs(r#"{"a":{"id":1}}"#, r#"{"id":"7","a":{"id":1}}"#);
        check_attrs(r#"{"id":"other"}"#, r#"{"id":"other"}"#);
        check_attrs(r#"{"a":1,"i\u0064":null}"#, r#"{"a":1,"i\u0064":null}"#);
        check_attrs(r#"{"\ud800":"\udfff"}"#, r#"{"id":"7","\ud800":"\udfff"}"#);
        check_attrs("[1,2]", r#"{"id":"7","value":[1,2]}"#);
        check_attrs("hello", r#"{"id":"7","value":"hello"}"#);
        check_attrs("", r#"{"id":"7","value":""}"#);
        check_attrs("{} {}", r#"{"id":"7","value":"{} {}"}"#);
        check_attrs("{broken", r#"{"id":"7","value":"{broken"}"#);
    }

    #[test]
    fn an_item_that_is_not_json_is_a_string() {
        assert_eq!(item_json(b"\xff\"x"), "\"\u{fffd}\\\"x\"");
        assert_eq!(item_json(b" 12345678901234567890123 "), "12345678901234567890123");
    }
}

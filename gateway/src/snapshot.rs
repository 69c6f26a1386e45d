//! What clients are told, as JSON text: models, collections, events.
//!
//! Pure: mirrors in, text out. An item that is JSON stays the text that it is.

use std::borrow::Cow;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
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
    let json = item_json(item);
    let Some(inner) = json.strip_prefix('{') else {
        return format!(r#"{{"id":{},"value":{json}}}"#, string(id));
    };
    if has_id(&json) {
        return json.into_owned();
    }
    let inner = inner.trim_start();
    let comma = if inner.starts_with('}') { "" } else { "," };
    format!(r#"{{"id":{}{comma}{inner}"#, string(id))
}

/// Tells whether an object has a key `id`, whatever its value.
fn has_id(json: &str) -> bool {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = bool;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut found = false;
            while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                found |= key == "id";
                map.next_value::<IgnoredAny>()?;
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Keys).unwrap_or(false)
}

/// Writes a model: `{id, attrs, collections}`, with `v` where the model stands for a lone item.
pub fn write_model<'a>(
    out: &mut String,
    id: &str,
    v: Option<Version>,
    item: &[u8],
    collections: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    out.push_str(r#"{"id":"#);
    out.push_str(&string(id));
    if let Some(v) = v {
        out.push_str(&format!(r#","v":"{v}""#));
    }
    out.push_str(r#","attrs":"#);
    out.push_str(&attrs_json(id, item));
    out.push_str(r#","collections":{"#);
    for (at, (name, collection)) in collections.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&string(name));
        out.push(':');
        out.push_str(collection);
    }
    out.push_str("}}");
}

/// Returns a collection: `{id, v, models}`, with its feed's name as `id`; `v` is null where no
/// version holds.
///
/// `nested` says what hangs below each item.
#[must_use]
pub fn collection_json<'a, C>(
    feed: &str,
    mirror: &Mirror,
    v: Option<Version>,
    mut nested: impl FnMut(&str) -> C,
) -> String
where
    C: IntoIterator<Item = (&'a str, &'a str)>,
{
    let mut out = format!(r#"{{"id":{},"v":{},"models":["#, string(feed), version_json(v));
    for (at, (id, item)) in mirror.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_model(&mut out, id, None, item, nested(id));
    }
    out.push_str("]}");
    out
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
        check_attrs("[1,2]", r#"{"id":"7","value":[1,2]}"#);
        check_attrs("hello", r#"{"id":"7","value":"hello"}"#);
        check_attrs("", r#"{"id":"7","value":""}"#);
        check_attrs("{broken", r#"{"id":"7","value":"{broken"}"#);
    }

    #[test]
    fn an_item_that_is_not_json_is_a_string() {
        assert_eq!(item_json(b"\xff\"x"), "\"\u{fffd}\\\"x\"");
        assert_eq!(item_json(b" 12345678901234567890123 "), "12345678901234567890123");
    }
}

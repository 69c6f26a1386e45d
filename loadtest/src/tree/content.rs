//! What a model holds, in a form in which the ways it can come are alike. Pure.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An item as a client can know it: the raw text of each attribute, in order.
///
/// A model of an `initial` has had its id added to the item's text, an event's item has not, and
/// clients of 1.x and 2.x get other characters than ASCII escaped. So an attribute `id` that says
/// no more than the model's own id is left out, and such characters are always escaped; else the
/// text is what came, with numbers as they were written. An item that is no object is its `value`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content(Box<str>);

impl Content {
    /// Reads what hangs at `attrs` or comes as `item`.
    ///
    /// # Panics
    ///
    /// Panics if the text is no JSON, which [`RawValue`] rules out.
    #[must_use]
    pub fn of_json(id: &str, json: &RawValue) -> Self {
        let json = json.get().trim();
        if !json.starts_with('{') {
            return Self(format!(r#""value":{}"#, ascii(json)).into());
        }
        let reader = Attributes { id, out: String::with_capacity(json.len()) };
        let text = serde_json::Deserializer::from_str(json).deserialize_map(reader);
        Self(text.expect("a raw value is JSON").into())
    }

    /// Reads an item as it is in Redis; bytes that are no JSON are a string to clients.
    #[must_use]
    pub fn of_item(id: &str, item: &[u8]) -> Self {
        match serde_json::from_slice::<&RawValue>(item) {
            Ok(json) => Self::of_json(id, json),
            Err(_) => {
                let text = serde_json::value::to_raw_value(&String::from_utf8_lossy(item));
                Self::of_json(id, &text.expect("a string is always JSON"))
            }
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{{{}}}", self.0)
    }
}

struct Attributes<'a> {
    id: &'a str,
    out: String,
}

impl<'de> Visitor<'de> for Attributes<'_> {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<String, A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if is_string(key, "id") && is_string(value, self.id) {
                continue;
            }
            if !self.out.is_empty() {
                self.out.push(',');
            }
            self.out.push_str(&ascii(key.get()));
            self.out.push(':');
            self.out.push_str(&ascii(value.get()));
        }
        Ok(self.out)
    }
}

fn is_string(json: &RawValue, text: &str) -> bool {
    serde_json::from_str::<Cow<'_, str>>(json.get()).is_ok_and(|string| string == text)
}

/// Escapes what is not ASCII, as a gateway does for 1.x and 2.x; every other escape stays.
fn ascii(json: &str) -> Cow<'_, str> {
    if json.bytes().all(|byte| byte < 0x7f && byte != b'\\') {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut chars = json.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                out.push('\\');
                let kind = chars.next();
                out.extend(kind);
                if kind == Some('u') {
                    out.extend(chars.by_ref().take(4).map(|digit| digit.to_ascii_lowercase()));
                }
            }
            ' '..='~' | '\t' | '\n' | '\r' => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(id: &str, text: &str) -> Content {
        Content::of_json(id, serde_json::from_str(text).unwrap())
    }

    #[track_caller]
    fn check_same(item: &str, attrs: &[&str]) {
        let expected = Content::of_item("7", item.as_bytes());
        for attrs in attrs {
            assert_eq!(json("7", attrs), expected, "{attrs}");
        }
    }

    #[track_caller]
    fn check_other(item: &str, attrs: &str) {
        assert_ne!(json("7", attrs), Content::of_item("7", item.as_bytes()));
    }

    #[test]
    fn an_item_is_known_in_each_of_its_forms() {
        check_same(r#"{"a":1}"#, &[r#"{"id":"7","a":1}"#, r#"{"a":1}"#, r#"{"a":1,"id":"7"}"#]);
        check_same(" { \"a\" : 1 } ", &[r#"{"id":"7","a" : 1 }"#]);
        check_same("{}", &[r#"{"id":"7"}"#, "{}"]);
        check_same(r#"{"id":"other"}"#, &[r#"{"id":"other"}"#]);
        check_same(r#"{"id":7}"#, &[r#"{"id":7}"#]);
        check_same("[1,2]", &[r#"{"id":"7","value":[1,2]}"#, "[1,2]"]);
        check_same("hello", &[r#"{"id":"7","value":"hello"}"#, r#""hello""#]);
        check_same(r#"{"ü":"é\n😀"}"#, &[r#"{"id":"7","\u00fc":"\u00e9\n\ud83d\ude00"}"#]);
        check_same(r#"{"a":"\\u00E9 \"é"}"#, &[r#"{"a":"\\u00E9 \"\u00E9"}"#]);
        check_same("{\"a\":\"\u{7f}\"}", &[r#"{"a":"\u007f"}"#]);
        assert_eq!(Content::of_item("7", b"\xff"), json("7", "\"\u{fffd}\""));
    }

    #[test]
    fn whatever_differs_is_told_apart() {
        check_other(r#"{"a":1.0}"#, r#"{"a":1}"#);
        check_other(r#"{"a":12345678901234567890123}"#, r#"{"a":12345678901234567890124}"#);
        check_other(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#);
        check_other(r#"{"id":"other"}"#, "{}");
        check_other(r#"{"a":"\\u00e9"}"#, r#"{"a":"\u00e9"}"#);
        check_other("{broken", "{}");
    }
}

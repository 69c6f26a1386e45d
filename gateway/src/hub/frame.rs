//! One message, encoded once per wire format however many clients get it.

use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;

use crate::metrics;

/// How text goes over a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// UTF-8 as it is: socket.io 3.x and 4.x.
    Utf8,
    /// Everything above U+007E as `\uXXXX`, which all older clients read right on every transport.
    Ascii,
}

impl Format {
    /// Returns the name used as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Ascii => "ascii",
        }
    }
}

/// A message for clients: a name and one JSON argument, shared by all who get it.
#[derive(Debug, Clone)]
pub struct Frame(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: Box<str>,
    utf8: Box<RawValue>,
    ascii: OnceLock<Box<RawValue>>,
    shared: bool,
}

impl Frame {
    /// Makes an event of its name and its argument, which must be JSON text.
    ///
    /// # Panics
    ///
    /// Panics when `json` is not JSON: frames are made of what the gateway encoded itself.
    #[must_use]
    pub fn event(name: &str, json: String) -> Self {
        Self::new(name, json, false)
    }

    /// Makes a snapshot (`initial`, `reset`): shared bytes that count in no client's mailbox.
    ///
    /// # Panics
    ///
    /// Panics when `json` is not JSON, as [`Frame::event`] does.
    #[must_use]
    pub fn snapshot(name: &str, json: String) -> Self {
        Self::new(name, json, true)
    }

    fn new(name: &str, json: String, shared: bool) -> Self {
        metrics::frame_encoded(Format::Utf8);
        let utf8 = RawValue::from_string(json).expect("a frame is made of valid JSON");
        Self(Arc::new(Inner { name: name.into(), utf8, ascii: OnceLock::new(), shared }))
    }

    /// Returns the event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the argument as a wire format wants it; encoded at the first call.
    #[must_use]
    pub fn json(&self, format: Format) -> &RawValue {
        match format {
            Format::Utf8 => &self.0.utf8,
            Format::Ascii => self.0.ascii.get_or_init(|| {
                metrics::frame_encoded(Format::Ascii);
                let text = ascii(self.0.utf8.get());
                RawValue::from_string(text).expect("escaping keeps JSON valid")
            }),
        }
    }

    /// Returns how many bytes this frame counts in a mailbox.
    #[must_use]
    pub fn weight(&self) -> usize {
        if self.0.shared { 0 } else { self.0.utf8.get().len() + self.0.name.len() + FRAME_OVERHEAD }
    }
}

/// What one queued frame costs beyond its text, in bytes.
pub const FRAME_OVERHEAD: usize = 64;

/// Escapes everything above U+007E, surrogate pairs as two escapes. Outside of strings JSON has no such text.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if char <= '\u{7e}' {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            use std::fmt::Write;
            write!(out, "\\u{unit:04x}").expect("a String takes everything");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ascii_frame_says_the_same_without_any_byte_above_7e() {
        let frame = Frame::event("change", r#"{"title":"é 日本 🚀 \n\u007f"}"#.to_owned());
        let text = frame.json(Format::Ascii).get();
        assert!(text.is_ascii());
        assert!(text.contains("\\ud83d\\ude80"));
        let (left, right): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(text).unwrap(),
            serde_json::from_str(frame.json(Format::Utf8).get()).unwrap(),
        );
        assert_eq!(left, right);
    }
}

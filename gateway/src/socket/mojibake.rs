//! Undoes what socket.io-client 1.x does to text: it is UTF-8 encoded twice.

/// Decodes text once more where it was encoded twice.
///
/// 1.x and 2.x name the same protocol version, so the text itself decides: it has characters
/// above U+007F, none above U+00FF, and read as bytes they are UTF-8. A 2.x client that really
/// means such text (`Ã©`, and nothing outside Latin-1) is misread; nobody can tell them apart.
#[must_use]
pub fn undo(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let bytes: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(char).ok()).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Option<&str>) {
        assert_eq!(undo(input).as_deref(), expected);
    }

    #[test]
    fn only_text_that_was_encoded_twice_is_decoded() {
        check("plain", None);
        check("é", None);
        check("日本", None);
        check("Ã©", Some("é"));
        check("\u{f0}\u{9f}\u{9a}\u{80}", Some("🚀"));
        check("Ã© and 日", None);
    }
}

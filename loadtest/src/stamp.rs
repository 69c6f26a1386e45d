//! What is written into an item so that it is known again on arrival. Pure.

/// Stands before a stamp; a server that writes the item's JSON anew keeps it.
const KEY: &str = r#""loadtest":""#;

/// When something was published, and as which of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which run it belongs to.
    pub run: u64,
    /// Which one it is, from 0.
    pub number: usize,
    /// Nanoseconds since the run began, by the monotonic clock.
    pub nanos: u64,
}

impl Stamp {
    /// Returns an item that carries the stamp, and padding.
    #[must_use]
    pub fn item(self, payload: usize) -> String {
        let Self { run, number, nanos } = self;
        format!(r#"{{{KEY}{run}.{number}.{nanos}","pad":"{}"}}"#, "x".repeat(payload))
    }

    /// Finds a stamp in an event.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let rest = &text[text.find(KEY)? + KEY.len()..];
        let mut parts = rest.split_once('"')?.0.splitn(3, '.');
        Some(Self {
            run: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            nanos: parts.next()?.parse().ok()?,
        })
    }
}

/// Finds all stamps in a text, as in a state that holds many items.
pub fn find_all(text: &str) -> impl Iterator<Item = Stamp> {
    text.match_indices(KEY).filter_map(|(at, _)| Stamp::find(&text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_what_carries_it() {
        let stamp = Stamp { run: 9, number: 3, nanos: 1_234_567 };
        let item = stamp.item(5);
        assert_eq!(item, r#"{"loadtest":"9.3.1234567","pad":"xxxxx"}"#);
        let event = format!(r#"["change",{{"feed":"x","id":"1","item":{item},"v":null}}]"#);
        assert_eq!(Stamp::find(&event), Some(stamp));
        assert_eq!(Stamp::find(r#"["change",{"item":{"loadtest":"x"}}]"#), None);
        assert_eq!(Stamp::find(r#"["change",{"item":{"loadtest":"1.2.-3"}}]"#), None);
        assert_eq!(Stamp::find(""), None);
        let other = Stamp { number: 4, ..stamp };
        let state = format!(r#"[{},{{"loadtest":"x"}},{}]"#, item, other.item(0));
        assert_eq!(find_all(&state).collect::<Vec<_>>(), [stamp, other]);
    }
}

//! A gateway's copy of one feed, which turns notices and reads into events.
//!
//! A notice is believed only where it fits exactly; where it does not, the mirror
//! stays as it is and says why, and its keeper reads the feed again. Every event
//! tells a change of the mirror and nothing else, so that a client that applies
//! events literally holds what the mirror holds.

use std::{
    collections::{HashMap, vec_deque},
    sync::Arc,
};

use bytes::Bytes;
use shard_router::feed::{Content, Kind, Position};

pub use self::{
    event::{Applied, Change, Doubt, Event, Repair},
    history::{EVENT_OVERHEAD, HISTORY_BYTES, HISTORY_EVENTS},
    notice::{BadNotice, Notice, Verb},
    version::{BadVersion, Version},
};
use self::{
    history::History,
    item::Item,
    order::{Order, Place},
};

mod diff;
mod event;
#[cfg(test)]
mod histories;
mod history;
mod item;
pub mod keeper;
#[cfg(test)]
mod literal;
mod notice;
mod order;
mod version;

/// What an item takes besides the bytes of its id and its text: its place in the order,
/// its entry by id, and the headers of two allocations.
pub const ITEM_OVERHEAD: usize = 192;

/// So many items are looked through: most feeds have few, and a map of them is as large as they are.
const FEW: usize = 16;

/// One feed's content, its order and its version.
#[derive(Debug, Clone)]
pub struct Mirror {
    kind: Kind,
    /// Where each item stands; there once they are too many to look through.
    #[expect(clippy::box_collection, reason = "hardly any needs one, and it is 48 bytes")]
    places: Option<Box<HashMap<Box<str>, Place>>>,
    order: Order<Item>,
    version: Version,
    /// What led to the version, once something has.
    history: Option<Box<History>>,
    text_bytes: usize,
    /// An unknown item of a sorted feed that was published; its place comes with the next notice.
    held: Option<Box<(Arc<str>, Bytes)>>,
}

impl Mirror {
    /// Makes a mirror of what was read; ids and items are copied out of the read's buffer.
    pub fn new(content: &Content) -> Self {
        let mut mirror = Self {
            kind: content.kind,
            places: None,
            order: Order::with_capacity(content.entries.len()),
            version: Version::EMPTY,
            history: None,
            text_bytes: 0,
            held: None,
        };
        for (id, item) in &content.entries {
            mirror.insert(mirror.order.last(), id, item);
        }
        mirror
    }

    /// What kind of feed it was read as.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it holds no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how much memory it takes: ids, items and [`ITEM_OVERHEAD`] for each, and its
    /// recent events.
    pub fn bytes(&self) -> usize {
        self.text_bytes + self.len() * ITEM_OVERHEAD + self.history_bytes()
    }

    /// What its recent events take of [`Mirror::bytes`].
    pub fn history_bytes(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.bytes())
    }

    /// Returns the events that lead from a version to what it holds now; `None` where it
    /// does not remember this version.
    pub fn since(&self, v: Version) -> Option<vec_deque::Iter<'_, Event>> {
        match &self.history {
            Some(history) => history.since(v),
            None => (v == self.version).then(Default::default),
        }
    }

    /// Remembers no version but the present one.
    pub fn forget_history(&mut self) {
        self.history = None;
    }

    /// About how much memory a mirror of this content takes.
    pub fn bytes_of(content: &Content) -> usize {
        content.entries.iter().map(|(id, item)| id.len() + item.len() + ITEM_OVERHEAD).sum()
    }

    /// The version of what it holds.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The item with this id.
    pub fn get(&self, id: &str) -> Option<&[u8]> {
        self.find(id).map(|place| self.order.get(place).text())
    }

    /// Walks ids and items from the first to the last; in a plain feed the order means nothing.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.order.places().map(|place| {
            let item = self.order.get(place);
            (item.id(), item.text())
        })
    }

    /// The id just before this one; `None` for the first and for one that is not held.
    pub fn before(&self, id: &str) -> Option<&str> {
        let previous = self.order.previous(self.find(id)?)?;
        Some(self.order.get(previous).id())
    }

    /// Follows one notice, if it fits exactly.
    pub fn apply(&mut self, notice: &Notice) -> Applied {
        let followed = match self.kind {
            Kind::Unknown => Err(Doubt::UnknownKind),
            Kind::Plain => self.follow_plain(notice),
            Kind::Sorted => self.follow_sorted(notice),
        };
        if self.order.is_sparse() {
            self.pack();
        }
        followed.unwrap_or_else(Applied::Doubt)
    }

    /// Whether the first half of an insert waits for the second.
    pub fn has_held(&self) -> bool {
        self.held.is_some()
    }

    /// Forgets the first half of an insert, as at a mark, which never parts the halves.
    pub fn drop_held(&mut self) {
        self.held = None;
    }

    fn follow_plain(&mut self, notice: &Notice) -> Result<Applied, Doubt> {
        match notice {
            Notice::Publish { id, item } | Notice::Edit { id, item } => match self.find(id) {
                Some(place) => Ok(self.rewrite_where_other(place, item)),
                None => {
                    let previous = self.order.last();
                    Ok(Applied::Event(self.publish(previous, id.as_str().into(), owned(item))))
                }
            },
            Notice::Retract { id } => Ok(self.retract_where_known(id)),
            Notice::Position { id, .. } => Err(Doubt::PlaceInPlain(id.clone())),
        }
    }

    fn follow_sorted(&mut self, notice: &Notice) -> Result<Applied, Doubt> {
        if let Some(held) = self.held.take() {
            let (held, text) = *held;
            return match notice {
                Notice::Position { id, position } if **id == *held => {
                    let previous = self.place_for(id, position)?;
                    self.check_tellable(previous)?;
                    Ok(Applied::Event(self.publish(previous, held, text)))
                }
                _ => Err(Doubt::NoPlace(held.to_string())),
            };
        }
        match notice {
            Notice::Publish { id, item } => match self.find(id) {
                Some(place) => Ok(self.rewrite_where_other(place, item)),
                None => {
                    self.held = Some(Box::new((Arc::from(id.as_str()), owned(item))));
                    Ok(Applied::Held)
                }
            },
            Notice::Edit { id, item } => match self.find(id) {
                Some(place) => Ok(self.rewrite_where_other(place, item)),
                None => Err(Doubt::UnknownItem(id.clone())),
            },
            Notice::Retract { id } => Ok(self.retract_where_known(id)),
            Notice::Position { id, position } => {
                let place = self.find(id).ok_or_else(|| Doubt::UnknownItem(id.clone()))?;
                let previous = self.place_for(id, position)?;
                let stays = previous == self.order.previous(place) || previous == Some(place);
                if stays {
                    return Ok(Applied::Nothing);
                }
                self.check_tellable(previous)?;
                Ok(Applied::Event(self.shift(place, previous)))
            }
        }
    }

    fn rewrite_where_other(&mut self, place: Place, item: &Bytes) -> Applied {
        if self.order.get(place).text() == item {
            return Applied::Nothing;
        }
        Applied::Event(self.rewrite(place, owned(item)))
    }

    fn retract_where_known(&mut self, id: &str) -> Applied {
        match self.find(id) {
            Some(place) => Applied::Event(self.retract(place)),
            None => Applied::Nothing,
        }
    }

    /// The place that the item is to be right behind; its own where it stands there already.
    fn place_for(&self, id: &str, position: &Position) -> Result<Option<Place>, Doubt> {
        let neighbour = |neighbour: &str| match self.find(neighbour) {
            _ if neighbour == id => Err(Doubt::NextToItself(id.to_owned())),
            Some(place) => Ok(place),
            None => Err(Doubt::UnknownNeighbour(neighbour.to_owned())),
        };
        match position {
            Position::Begin => Ok(None),
            Position::End => Ok(self.order.last()),
            Position::Before(next) => Ok(self.order.previous(neighbour(next)?)),
            Position::After(previous) => Ok(Some(neighbour(previous)?)),
        }
    }

    /// Refuses a place that a client could only misread: behind `begin`, `ID:` is the
    /// place before all others, and behind `:ID` or an empty id it is another one too.
    fn check_tellable(&self, previous: Option<Place>) -> Result<(), Doubt> {
        let Some(previous) = previous else { return Ok(()) };
        let id = self.order.get(previous).id();
        if id.is_empty() || id == "begin" || id.starts_with(':') {
            return Err(Doubt::Untellable(id.to_owned()));
        }
        Ok(())
    }

    fn find(&self, id: &str) -> Option<Place> {
        match &self.places {
            Some(places) => places.get(id).copied(),
            None => self.order.places().find(|place| self.order.get(*place).is(id)),
        }
    }

    fn publish(&mut self, previous: Option<Place>, id: Arc<str>, text: Bytes) -> Event {
        let before = self.version;
        let place = self.insert(previous, &id, &text);
        let position = (self.kind == Kind::Sorted).then(|| self.position(place));
        self.event(before, Change::Publish { id, item: text, position })
    }

    fn rewrite(&mut self, place: Place, text: Bytes) -> Event {
        let before = self.version;
        let item = self.order.get_mut(place);
        let id = Arc::from(item.id());
        self.text_bytes = self.text_bytes - item.text().len() + text.len();
        item.rewrite(&text);
        self.digest(place);
        self.event(before, Change::Change { id, item: text })
    }

    fn retract(&mut self, place: Place) -> Event {
        let before = self.version;
        let next = self.order.next(place);
        let item = self.order.remove(place);
        self.version.remove(item.digest);
        self.text_bytes -= item.len();
        let id: Arc<str> = item.id().into();
        if let Some(places) = &mut self.places {
            places.remove(&*id);
        }
        self.digest_behind(next);
        self.event(before, Change::Retract { id })
    }

    fn shift(&mut self, place: Place, previous: Option<Place>) -> Event {
        let before = self.version;
        let left = self.order.next(place);
        self.order.shift(place, previous);
        self.digest_behind(left);
        self.digest(place);
        self.digest_behind(self.order.next(place));
        let id = self.order.get(place).id().into();
        let position = self.position(place);
        self.event(before, Change::Position { id, position })
    }

    fn insert(&mut self, previous: Option<Place>, id: &str, text: &[u8]) -> Place {
        self.text_bytes += id.len() + text.len();
        let place = self.order.insert(previous, Item::new(id, text));
        if let Some(places) = &mut self.places {
            places.insert(id.into(), place);
        } else if self.len() > FEW {
            self.index();
        }
        self.digest(place);
        self.digest_behind(self.order.next(place));
        place
    }

    /// Counts an item anew after it, or in a sorted feed the one before it, has changed.
    fn digest(&mut self, place: Place) {
        let previous = match (self.kind, self.order.previous(place)) {
            (Kind::Sorted, Some(previous)) => self.order.get(previous).id(),
            (Kind::Sorted | Kind::Plain | Kind::Unknown, _) => "",
        };
        let item = self.order.get(place);
        let digest = Version::of_item(previous, item.id(), item.text());
        self.version.remove(item.digest);
        self.version.add(digest);
        self.order.get_mut(place).digest = digest;
    }

    /// Counts the item at `next` anew, where what stands before it is part of that.
    fn digest_behind(&mut self, next: Option<Place>) {
        if let (Kind::Sorted, Some(next)) = (self.kind, next) {
            self.digest(next);
        }
    }

    fn position(&self, place: Place) -> Position {
        match self.order.previous(place) {
            Some(previous) => Position::After(self.order.get(previous).id().to_owned()),
            None => Position::Begin,
        }
    }

    fn event(&mut self, before: Version, change: Change) -> Event {
        let event = Event { change, v: self.version };
        self.history.get_or_insert_with(|| Box::new(History::new(before))).record(&event);
        event
    }

    fn pack(&mut self) {
        self.order.pack();
        self.places = None;
        if self.len() > FEW {
            self.index();
        }
    }

    fn index(&mut self) {
        let places = self.order.places().map(|place| (self.order.get(place).id().into(), place));
        self.places = Some(Box::new(places.collect()));
    }
}

/// Copies out of a buffer that holds much else.
fn owned(item: &Bytes) -> Bytes {
    Bytes::copy_from_slice(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(kind: Kind, items: &[(&str, &'static str)]) -> Mirror {
        let entries =
            items.iter().map(|(id, item)| (String::from(*id), Bytes::from_static(item.as_bytes())));
        Mirror::new(&Content { kind, entries: entries.collect(), bad_ids: 0 })
    }

    /// Reads `publish 1=a`, `edit 1=a`, `retract 1`, or `position 1 :2`.
    fn notice(text: &'static str) -> Notice {
        let (verb, rest) = text.split_once(' ').expect("a notice has a verb");
        let (verb, payload) = match verb {
            "publish" => (Verb::Publish, rest.replacen('=', "\0", 1)),
            "edit" => (Verb::Edit, rest.replacen('=', "\0", 1)),
            "retract" => (Verb::Retract, rest.to_owned()),
            _ => (Verb::Position, rest.replacen(' ', "\0", 1)),
        };
        Notice::parse(verb, &Bytes::from(payload)).expect("a notice of a test is well made")
    }

    /// Follows notices and writes each outcome down, then the content.
    #[track_caller]
    fn check(mut mirror: Mirror, notices: &[&'static str], expected: &[&str], content: &str) {
        let outcomes: Vec<String> =
            notices.iter().map(|text| outcome(mirror.apply(&notice(text)))).collect();
        assert_eq!(outcomes, expected);
        let held: Vec<String> = mirror
            .iter()
            .map(|(id, item)| format!("{id}={}", String::from_utf8_lossy(item)))
            .collect();
        assert_eq!(held.join(" "), content);
    }

    fn outcome(applied: Applied) -> String {
        let text = |item: &Bytes| String::from_utf8_lossy(item).into_owned();
        match applied {
            Applied::Nothing => "nothing".to_owned(),
            Applied::Held => "held".to_owned(),
            Applied::Doubt(doubt) => format!("doubt: {doubt}"),
            Applied::Event(Event { change, .. }) => match change {
                Change::Publish { id, item, position: None } => {
                    format!("publish {id}={}", text(&item))
                }
                Change::Publish { id, item, position: Some(position) } => {
                    format!("publish {id}={} {position}", text(&item))
                }
                Change::Change { id, item } => format!("change {id}={}", text(&item)),
                Change::Retract { id } => format!("retract {id}"),
                Change::Position { id, position } => format!("position {id} {position}"),
            },
        }
    }

    #[test]
    fn a_plain_feed_tells_what_differs() {
        check(
            mirror(Kind::Plain, &[("1", "a")]),
            &["publish 1=a", "edit 1=b", "publish 2=c", "edit 3=d", "retract 1", "retract 1"],
            &["nothing", "change 1=b", "publish 2=c", "publish 3=d", "retract 1", "nothing"],
            "2=c 3=d",
        );
        check(
            mirror(Kind::Plain, &[("1", "a")]),
            &["position 1 begin:"],
            &["doubt: item `1` of a plain feed was given a place"],
            "1=a",
        );
    }

    #[test]
    fn a_sorted_insert_is_one_event() {
        check(
            mirror(Kind::Sorted, &[("1", "a"), ("2", "b")]),
            &["publish 3=c", "position 3 :2", "publish 4=d", "position 4 begin:"],
            &["held", "publish 3=c 1:", "held", "publish 4=d begin:"],
            "4=d 1=a 3=c 2=b",
        );
    }

    #[test]
    fn a_place_is_told_as_the_item_before() {
        check(
            mirror(Kind::Sorted, &[("1", "a"), ("2", "b"), ("3", "c")]),
            &["position 1 :end", "position 3 begin:", "position 2 1:", "position 2 :3"],
            &["position 1 3:", "position 3 begin:", "position 2 1:", "position 2 begin:"],
            "2=b 3=c 1=a",
        );
    }

    #[test]
    fn a_place_that_an_item_has_already_is_nothing() {
        let places = ["position 1 begin:", "position 1 :2", "position 2 1:", "position 2 :3"];
        check(
            mirror(Kind::Sorted, &[("1", "a"), ("2", "b"), ("3", "c")]),
            &[places[0], places[1], places[2], places[3], "position 3 :end", "position 3 2:"],
            &["nothing"; 6],
            "1=a 2=b 3=c",
        );
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        check(
            mirror(Kind::Sorted, &[("1", "a"), ("2", "b")]),
            &["edit 3=c", "position 3 begin:", "position 1 :3", "position 1 :1", "retract 3"],
            &[
                "doubt: item `3` is not known",
                "doubt: item `3` is not known",
                "doubt: neighbour `3` is not known",
                "doubt: item `1` was put next to itself",
                "nothing",
            ],
            "1=a 2=b",
        );
        check(
            mirror(Kind::Unknown, &[]),
            &["publish 1=a", "retract 1"],
            &["doubt: feed's kind is not known yet"; 2],
            "",
        );
    }

    #[test]
    fn an_insert_without_its_place_is_doubted_and_forgotten() {
        let lost = "doubt: item `3` was published without its place right behind it";
        check(
            mirror(Kind::Sorted, &[("1", "a")]),
            &[
                "publish 3=c",
                "retract 1",
                "publish 3=c",
                "position 1 :end",
                "publish 3=c",
                "publish 3=c",
            ],
            &["held", lost, "held", lost, "held", lost],
            "1=a",
        );
        check(
            mirror(Kind::Sorted, &[("1", "a")]),
            &["publish 3=c", "position 3 :3", "position 3 begin:"],
            &["held", "doubt: item `3` was put next to itself", "doubt: item `3` is not known"],
            "1=a",
        );
        let mut mirror = mirror(Kind::Sorted, &[]);
        mirror.apply(&notice("publish 3=c"));
        assert!(mirror.has_held());
        mirror.drop_held();
        assert!(!mirror.has_held());
    }

    #[test]
    fn a_place_that_clients_would_misread_is_not_told() {
        check(
            mirror(Kind::Sorted, &[("1", "a"), ("begin", "b"), ("2", "c")]),
            &["position 2 begin:", "position 2 :end", "position begin :end"],
            &["position 2 begin:", "doubt: place behind item `begin` cannot be told", "nothing"],
            "2=c 1=a begin=b",
        );
    }

    #[test]
    fn a_mirror_keeps_no_buffer_alive_and_knows_its_size() {
        let buffer = Bytes::from(vec![b'x'; 1000]);
        let entries = vec![("1".to_owned(), buffer.slice(..3))];
        let mut mirror = Mirror::new(&Content { kind: Kind::Plain, entries, bad_ids: 0 });
        mirror.apply(&Notice::Publish { id: "22".to_owned(), item: buffer.slice(..5) });
        assert!(buffer.is_unique());
        let events = EVENT_OVERHEAD + 2 + 5;
        assert_eq!(mirror.bytes(), 1 + 3 + 2 + 5 + 2 * ITEM_OVERHEAD + events);
        mirror.apply(&Notice::Edit { id: "22".to_owned(), item: Bytes::new() });
        mirror.apply(&Notice::Retract { id: "1".to_owned() });
        mirror.forget_history();
        assert_eq!(mirror.bytes(), 2 + ITEM_OVERHEAD);
        assert_eq!((mirror.get("22"), mirror.get("1")), (Some(b"".as_slice()), None));
        assert_eq!(mirror.before("22"), None);
    }
}

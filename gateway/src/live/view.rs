//! One team's or one user's part of the tree, shared by all clients who see it.
//!
//! A *place* is a feed that hangs somewhere in a view. A view grows and shrinks with the
//! items of its feeds and remembers for each place what its room has been told of it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::sorted::{Numbers, Sorted};
use crate::{
    hub::{
        Room,
        frame::{FRAME_OVERHEAD, Frame, WeakFrame},
    },
    identity::{TeamId, UserId},
    mirror::{
        Version,
        keeper::{Keeper, MISSING, item_version},
    },
    snapshot::{self, Hung},
    tree::{Branch, Collection, TEAM, Tree, USER, Vars},
};

/// A feed that was not read within this is shown as unavailable.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Whose view it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Team(TeamId),
    User(UserId),
}

impl Owner {
    /// Returns the room in which everybody hears this view.
    pub(super) fn room(&self) -> Room {
        match self {
            Self::Team(team) => Room::Team(team.clone()),
            Self::User(user) => Room::User(user.clone()),
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Team(team) => team.as_str(),
            Self::User(user) => user.as_str(),
        }
    }

    fn branch<'tree>(&self, tree: &'tree Tree) -> Option<&'tree Branch> {
        match self {
            Self::Team(_) => tree.team.as_ref(),
            Self::User(_) => tree.user.as_ref(),
        }
    }

    fn variable(&self) -> &'static str {
        match self {
            Self::Team(_) => TEAM,
            Self::User(_) => USER,
        }
    }
}

fn new_revision() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The number of a place within its view.
pub(super) type PlaceId = u32;

/// What the view wants done because it grew or shrank.
#[derive(Debug)]
pub(super) enum Need {
    /// A feed hangs here now.
    Hang(Arc<str>, PlaceId),
    /// A feed hangs here no longer.
    Drop(Arc<str>, PlaceId),
}

#[derive(Debug)]
pub(super) struct View {
    pub(super) owner: Owner,
    tree: Arc<Tree>,
    /// The feed to which the model at the top answers, and whether its item is known by now.
    pub(super) attrs: Arc<str>,
    pub(super) shared: bool,
    pub(super) attrs_known: bool,
    /// Versions of attributes that some here hold while nobody knows the right one.
    #[expect(clippy::box_collection, reason = "hardly any needs one, and it is 48 bytes")]
    attrs_held: Option<Box<HashSet<Option<Version>>>>,
    top: Box<[PlaceId]>,
    /// By numbers that only grow, so that what is above comes before what is below it.
    places: Sorted<Box<Place>>,
    next: PlaceId,
    /// Places whose next step is a `reset` to the room.
    open: Numbers,
    unfilled: Numbers,
    pub(super) clients: usize,
    /// When it is looked at again because the patience with a feed ends.
    pub(super) alarm: Option<Instant>,
    /// Another whenever what it shows is another.
    revision: u64,
    /// What is encoded of the whole of it, if anything is.
    whole: Option<Box<Whole>>,
    /// How many bytes were encoded and are not counted by the shelf yet.
    encoded: usize,
}

#[derive(Debug, Default)]
struct Whole {
    model: Option<Arc<str>>,
    /// The `initial` of this user, and the revisions of the views that it was made of.
    initial: Option<(Vec<u64>, WeakFrame)>,
}

/// What was encoded of places and is worth keeping.
type Made = Vec<(PlaceId, Arc<str>)>;

/// What is shorter than this is encoded again as quickly as it is found, and kept it takes much
/// more memory.
const WORTH_KEEPING: usize = 1 << 10;

/// What a model is given room for at first, so that few must grow while they are written.
const MODEL: usize = 8 << 10;

#[derive(Debug)]
struct Place {
    feed: Arc<str>,
    /// Which it is of the collections that the tree has here.
    index: u32,
    shown: Shown,
    /// The place and the item above; `None` right below the model at the top.
    parent: Option<(PlaceId, Arc<str>)>,
    children: BTreeMap<Arc<str>, Box<[PlaceId]>>,
    since: Instant,
    encoded: Option<Box<Encoded>>,
}

/// What is encoded of a place.
#[derive(Debug, Default)]
struct Encoded {
    collection: Option<Arc<str>>,
    /// The `reset` that brings it, one for all who get it until something of it changes.
    reset: Option<Frame>,
}

/// What the room has been told of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Nothing; its events would mean nothing.
    Not,
    /// That it cannot be read now.
    Unavailable,
    /// Its content; from here on its events.
    Whole,
}

impl View {
    /// Makes a view of what the tree hangs under its owner.
    pub(super) fn new(owner: Owner, tree: Arc<Tree>, now: Instant, needs: &mut Vec<Need>) -> Self {
        let branch = owner.branch(&tree);
        let shared = branch.and_then(|branch| branch.attrs.as_ref());
        let attrs = match (&shared, &owner) {
            (Some(attrs), _) => Arc::clone(attrs),
            (None, Owner::Team(_)) => DEFAULTS[0].clone(),
            (None, Owner::User(_)) => DEFAULTS[1].clone(),
        };
        let shared = shared.is_some();
        let count = branch.map_or(0, |branch| branch.collections.len());
        let mut view = Self {
            owner,
            tree,
            attrs,
            shared,
            attrs_known: !shared,
            attrs_held: None,
            top: Box::default(),
            places: Sorted::new(),
            next: 0,
            open: Numbers::new(),
            unfilled: Numbers::new(),
            clients: 0,
            alarm: None,
            revision: new_revision(),
            whole: None,
            encoded: 0,
        };
        let vars = view.vars_at_top();
        view.top = (0..count).map(|index| view.hang(index, &vars, None, now, needs)).collect();
        for place in &view.top {
            view.open.insert(*place, ());
        }
        view
    }

    /// Returns the collection of the tree that hangs at a place.
    fn collection(&self, place: PlaceId) -> &Collection {
        let Place { parent, index, .. } = self.place(place);
        match parent {
            Some((above, _)) => &self.collection(*above).collections[*index as usize],
            None => &self.branch().collections[*index as usize],
        }
    }

    fn place(&self, place: PlaceId) -> &Place {
        self.places.get(place).expect("the place is there")
    }

    fn branch(&self) -> &Branch {
        self.owner.branch(&self.tree).expect("a place was made from its branch")
    }

    fn vars_at_top(&self) -> Vars {
        let vars = Vars::default().with(self.owner.variable(), self.owner.id());
        vars.expect("an id is never empty")
    }

    /// Returns what stands for placeholders below an item of a place; they are not kept for
    /// each place, as only one that grows needs them. `None` where nothing can hang.
    fn vars_below(&self, place: PlaceId, id: &str) -> Option<Vars> {
        let vars = match &self.place(place).parent {
            Some((above, id)) => self.vars_below(*above, id)?,
            None => self.vars_at_top(),
        };
        match &self.collection(place).item {
            Some(name) => vars.with(name, id),
            None => Some(vars),
        }
    }

    fn hang(
        &mut self,
        index: usize,
        vars: &Vars,
        parent: Option<(PlaceId, Arc<str>)>,
        now: Instant,
        needs: &mut Vec<Need>,
    ) -> PlaceId {
        let siblings = match &parent {
            Some((above, _)) => &self.collection(*above).collections,
            None => &self.branch().collections,
        };
        let feed: Arc<str> = siblings[index].feed.fill(vars).into();
        let id = self.next;
        self.next += 1;
        needs.push(Need::Hang(feed.clone(), id));
        self.unfilled.insert(id, ());
        self.stale_model();
        let place = Place {
            feed,
            index: u32::try_from(index).expect("a tree is written by hand"),
            shown: Shown::Not,
            parent,
            children: BTreeMap::new(),
            since: now,
            encoded: None,
        };
        self.places.insert(id, Box::new(place));
        id
    }

    /// Tells whether everything in it is known.
    pub(super) fn is_ready(&self) -> bool {
        self.unfilled.is_empty() && self.attrs_known
    }

    /// Tells whether the room hears the events of a place.
    pub(super) fn hears(&self, place: PlaceId) -> bool {
        self.places.get(place).is_some_and(|place| place.shown == Shown::Whole)
    }

    /// Forgets what was encoded of a place and above it.
    pub(super) fn stale(&mut self, place: PlaceId) {
        self.stale_model();
        let mut next = Some(place);
        while let Some(place) = next.and_then(|id| self.places.get_mut(id)) {
            place.encoded = None;
            next = place.parent.as_ref().map(|(parent, _)| *parent);
        }
    }

    /// Forgets what was encoded of the model at the top.
    pub(super) fn stale_model(&mut self) {
        if let Some(whole) = &mut self.whole {
            whole.model = None;
            self.whole.take_if(|whole| whole.initial.is_none());
        }
        self.revision = new_revision();
    }

    /// Returns a number that no other view, and no other state of this one, ever has.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the `initial` of this user, if it was made of views as they are now and is still
    /// on its way to somebody.
    pub(super) fn initial(&self, revisions: &[u64]) -> Option<Frame> {
        let initial = self.whole.as_ref()?.initial.as_ref();
        let initial = initial.filter(|(made_of, _)| made_of == revisions);
        initial.and_then(|(_, frame)| frame.upgrade())
    }

    /// Remembers the `initial` of this user, which is quickly made again: only those to whom it
    /// goes keep it.
    pub(super) fn remember_initial(&mut self, revisions: Vec<u64>, frame: &Frame) {
        self.encoded += FRAME_OVERHEAD;
        self.whole.get_or_insert_default().initial = Some((revisions, frame.downgrade()));
    }

    /// Returns how many bytes were encoded since the last time.
    pub(super) fn take_encoded(&mut self) -> usize {
        std::mem::take(&mut self.encoded)
    }

    /// Forgets what was encoded; it is made again when it is needed.
    pub(super) fn forget_encoded(&mut self) {
        self.whole = None;
        self.places.values_mut().for_each(|place| place.encoded = None);
    }

    /// Tells when a place that waits for its feed is to be shown without it, if there is one.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let open = self.open.numbers().filter_map(|place| Some((self.places.get(place)?, place)));
        let waits = open.filter(|(found, place)| {
            found.shown != Shown::Unavailable || !self.unfilled.contains(*place)
        });
        waits.map(|(found, _)| found.since + PATIENCE).min()
    }

    /// Takes in that a place's feed is filled: hangs what its items have below them.
    pub(super) fn filled(
        &mut self,
        place: PlaceId,
        keeper: &Keeper,
        now: Instant,
        needs: &mut Vec<Need>,
    ) {
        if self.unfilled.remove(place).is_some() {
            self.places.get_mut(place).expect("an unfilled place is there").since = now;
            self.stale(place);
            self.regrow(place, keeper, now, needs);
        }
    }

    /// Takes in that a place's content is not at hand any more; its room holds it all the same.
    pub(super) fn unfill(&mut self, place: PlaceId) {
        self.unfilled.insert(place, ());
        self.stale(place);
    }

    /// Tells whether the content of any of its feeds is not there.
    pub(super) fn lacks_content(&self) -> bool {
        !self.unfilled.is_empty()
    }

    /// Lists the feeds whose content is not there.
    pub(super) fn unfilled_feeds(&self) -> Vec<Arc<str>> {
        self.unfilled.numbers().map(|place| self.feed(place).clone()).collect()
    }

    /// Brings what hangs below a place in line with its items; new children wait for `place`'s own reset.
    fn regrow(&mut self, place: PlaceId, keeper: &Keeper, now: Instant, needs: &mut Vec<Need>) {
        let Some(found) = self.places.get(place) else { return };
        let Place { feed, children, .. } = &**found;
        if self.collection(place).collections.is_empty() {
            return;
        }
        let Some(mirror) = keeper.mirror(feed) else { return };
        let gone: Vec<Arc<str>> =
            children.keys().filter(|id| mirror.get(id).is_none()).cloned().collect();
        let come: Vec<String> = mirror
            .iter()
            .map(|(id, _)| id)
            .filter(|id| !children.contains_key(*id))
            .map(str::to_owned)
            .collect();
        for id in gone {
            self.retracted(place, &id, needs);
        }
        for id in come {
            self.nest(place, &id, now, needs);
        }
    }

    /// Hangs the nested collections of one item, and returns them.
    fn nest(
        &mut self,
        place: PlaceId,
        id: &str,
        now: Instant,
        needs: &mut Vec<Need>,
    ) -> Vec<PlaceId> {
        let Some(vars) = self.vars_below(place, id) else { return Vec::new() };
        let (id, count) = (Arc::<str>::from(id), self.collection(place).collections.len());
        let nested: Vec<PlaceId> = (0..count)
            .map(|index| self.hang(index, &vars, Some((place, id.clone())), now, needs))
            .collect();
        if let Some(above) = self.places.get_mut(place) {
            above.children.insert(id, nested.as_slice().into());
        }
        nested
    }

    /// Takes in that an item was published at a place, after the room was told.
    pub(super) fn published(
        &mut self,
        place: PlaceId,
        id: &str,
        now: Instant,
        needs: &mut Vec<Need>,
    ) {
        if self.collection(place).collections.is_empty() {
            return;
        }
        self.retracted(place, id, needs);
        let nested = self.nest(place, id, now, needs);
        // Below a place that is not shown yet they come with its own reset.
        if self.hears(place) {
            nested.into_iter().for_each(|place| self.open.insert(place, ()));
        }
    }

    /// Takes in that an item is gone: what hung below it goes with it.
    pub(super) fn retracted(&mut self, place: PlaceId, id: &str, needs: &mut Vec<Need>) {
        let Some(above) = self.places.get_mut(place) else { return };
        for child in above.children.remove(id).into_iter().flatten() {
            self.cut(child, needs);
        }
    }

    fn cut(&mut self, place: PlaceId, needs: &mut Vec<Need>) {
        let Some(cut) = self.places.remove(place) else { return };
        self.unfilled.remove(place);
        self.open.remove(place);
        needs.push(Need::Drop(cut.feed, place));
        for child in cut.children.into_values().flatten() {
            self.cut(child, needs);
        }
    }

    /// Takes in that a place's feed is to be sent anew.
    pub(super) fn reset(
        &mut self,
        place: PlaceId,
        keeper: &Keeper,
        now: Instant,
        needs: &mut Vec<Need>,
    ) {
        self.stale(place);
        if keeper.mirror(self.feed(place)).is_some() {
            self.unfilled.remove(place);
        }
        if self.hears(place) {
            self.hide(place, now);
            self.open.insert(place, ());
        }
        self.regrow(place, keeper, now, needs);
    }

    fn hide(&mut self, place: PlaceId, now: Instant) {
        let Some(hidden) = self.places.get_mut(place) else { return };
        (hidden.shown, hidden.since) = (Shown::Not, now);
        let below: Vec<PlaceId> = hidden.children.values().flatten().copied().collect();
        for child in below {
            self.open.remove(child);
            self.hide(child, now);
        }
    }

    /// Lets go of everything, when the last client has left.
    pub(super) fn close(self, needs: &mut Vec<Need>) {
        let places = self.places.into_iter();
        needs.extend(places.map(|(id, place)| Need::Drop(place.feed, id)));
    }

    /// Returns the resets that are due, and counts them as sent.
    pub(super) fn announce(&mut self, keeper: &Keeper, now: Instant, encode: bool) -> Vec<Frame> {
        let mut resets = Vec::new();
        for place in self.open.take().numbers() {
            let Some(found) = self.places.get(place) else { continue };
            // It may have come with the reset of a place above it.
            if found.shown == Shown::Whole || self.open.contains(place) {
                continue;
            }
            let unfilled = self.unfilled.contains(place);
            let patient = now < found.since + PATIENCE;
            let told_unavailable = found.shown == Shown::Unavailable && unfilled;
            if !self.is_whole(place) && (patient || told_unavailable) {
                self.open.insert(place, ());
                continue;
            }
            self.show(place);
            if encode {
                resets.push(self.reset_frame(place, keeper));
            }
        }
        resets
    }

    /// Tells whether a place and all below it are filled.
    fn is_whole(&self, place: PlaceId) -> bool {
        !self.unfilled.contains(place)
            && self.place(place).children.values().flatten().all(|child| self.is_whole(*child))
    }

    /// Counts a place and all below it as told; what cannot be read yet is told again later.
    fn show(&mut self, place: PlaceId) {
        let unfilled = self.unfilled.contains(place);
        let Some(shown) = self.places.get_mut(place) else { return };
        shown.shown = if unfilled { Shown::Unavailable } else { Shown::Whole };
        let below: Vec<PlaceId> = shown.children.values().flatten().copied().collect();
        if unfilled {
            self.open.insert(place, ());
        }
        for child in below {
            self.show(child);
        }
    }

    /// Tells whether a reset may be due now or soon.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn above(&self, place: PlaceId) -> (Arc<str>, Arc<str>) {
        match &self.place(place).parent {
            Some((parent, id)) => (self.feed(*parent).clone(), id.clone()),
            None => (self.attrs.clone(), self.owner.id().into()),
        }
    }

    /// Writes the collections that hang beside each other at places, as members of an object.
    fn write_all(&self, places: &[PlaceId], keeper: &Keeper, out: &mut String, made: &mut Made) {
        for (at, place) in places.iter().enumerate() {
            snapshot::write_key(out, &self.collection(*place).name, at == 0);
            self.write(*place, keeper, out, made);
        }
    }

    /// Writes the collection at a place, from what is encoded already where it can.
    fn write(&self, place: PlaceId, keeper: &Keeper, out: &mut String, made: &mut Made) {
        let Place { feed, children, encoded, .. } = self.place(place);
        if let Some(collection) = encoded.as_ref().and_then(|encoded| encoded.collection.as_ref()) {
            return out.push_str(collection);
        }
        let begin = out.len();
        match keeper.mirror(feed).filter(|_| !self.unfilled.contains(place)) {
            Some(mirror) => {
                snapshot::write_collection(out, feed, mirror, keeper.version(feed), |out, id| {
                    let nested = children.get(id).map(AsRef::as_ref).unwrap_or_default();
                    self.write_all(nested, keeper, out, made);
                });
            }
            None => out.push_str(&snapshot::unavailable_json(feed)),
        }
        if out.len() - begin >= WORTH_KEEPING {
            made.push((place, out[begin..].into()));
        }
    }

    /// Keeps what was encoded of places.
    fn keep(&mut self, made: Made) {
        for (place, encoded) in made {
            self.encoded += encoded.len();
            let place = self.places.get_mut(place).expect("is there");
            place.encoded.get_or_insert_default().collection = Some(encoded);
        }
    }

    /// Notes what somebody holds who is told of the model at the top while its attributes are
    /// not known.
    pub(super) fn attrs_are_held(&mut self, v: Option<Version>) {
        if !self.attrs_known {
            self.attrs_held.get_or_insert_default().insert(v);
        }
    }

    /// Takes in that the attributes are known; tells whether somebody here holds others.
    pub(super) fn attrs_filled(&mut self, v: Version) -> bool {
        self.attrs_known = true;
        self.stale_model();
        self.attrs_held.take().is_some_and(|held| held.iter().any(|held| *held != Some(v)))
    }

    /// Returns the item of the model at the top and its version.
    pub(super) fn attrs_item<'keeper>(
        &self,
        keeper: &'keeper Keeper,
    ) -> (&'keeper [u8], crate::mirror::Version) {
        let item = keeper.item(&self.attrs, self.owner.id()).flatten();
        (item.map_or(MISSING, |item| item), item_version(self.owner.id(), item))
    }

    /// Returns the model at the top with everything below it, as JSON.
    pub(super) fn model(&mut self, keeper: &Keeper) -> Arc<str> {
        if let Some(model) = self.whole.as_ref().and_then(|whole| whole.model.as_ref()) {
            return model.clone();
        }
        let (item, v) = self.attrs_item(keeper);
        let (mut out, mut made) = (String::with_capacity(MODEL), Made::new());
        snapshot::write_model(&mut out, self.owner.id(), Some(v), item, |out| {
            self.write_all(&self.top, keeper, out, &mut made);
        });
        self.keep(made);
        let model: Arc<str> = out.into();
        self.encoded += model.len();
        self.whole.get_or_insert_default().model = Some(model.clone());
        model
    }

    /// Returns the collections at the top as `reset`s, for a client that comes to this view while it lives.
    pub(super) fn resets(&mut self, keeper: &Keeper) -> Vec<Frame> {
        self.top.clone().into_iter().map(|place| self.reset_frame(place, keeper)).collect()
    }

    /// Returns the `reset` that brings the collection at a place.
    pub(super) fn reset_frame(&mut self, place: PlaceId, keeper: &Keeper) -> Frame {
        let encoded = self.place(place).encoded.as_ref();
        if let Some(frame) = encoded.and_then(|encoded| encoded.reset.as_ref()) {
            return frame.clone();
        }
        let (mut collection, mut made) = (String::new(), Made::new());
        self.write(place, keeper, &mut collection, &mut made);
        self.keep(made);
        let (parent, id) = self.above(place);
        let hung = Hung { parent: &parent, id: &id, name: &self.collection(place).name };
        let json = snapshot::reset_json(self.feed(place), Some(hung), Some(&collection));
        let frame = Frame::snapshot("reset", json);
        self.encoded += frame.snapshot_bytes();
        let place = self.places.get_mut(place).expect("is there");
        place.encoded.get_or_insert_default().reset = Some(frame.clone());
        frame
    }

    /// Lists the places right below the model at the top.
    pub(super) fn top(&self) -> &[PlaceId] {
        &self.top
    }

    /// Returns the feed that hangs at a place.
    pub(super) fn feed(&self, place: PlaceId) -> &Arc<str> {
        &self.place(place).feed
    }

    /// Lists what hangs below the items of a place.
    pub(super) fn nested(&self, place: PlaceId) -> impl Iterator<Item = (&str, &[PlaceId])> {
        self.place(place).children.iter().map(|(id, nested)| (&**id, &**nested))
    }

    /// Counts the view as told to somebody, so that what could not be read is told again.
    ///
    /// Who comes to an empty room has been told everything that anybody there was; others
    /// may still wait for what is shown to the newcomer already.
    pub(super) fn told_as_it_is(&mut self, room_is_empty: bool) {
        if room_is_empty {
            self.open.take();
            self.top.clone().into_iter().for_each(|place| self.show(place));
        } else {
            let unfilled: Vec<PlaceId> = self.unfilled.numbers().collect();
            unfilled.into_iter().for_each(|place| self.show(place));
        }
    }
}

/// The feed to which teams answer where no other is configured.
pub(super) const TEAMS: &str = "teams";

/// Where no other is configured for teams and users, one for all their views.
static DEFAULTS: LazyLock<[Arc<str>; 2]> = LazyLock::new(|| [TEAMS.into(), USER.into()]);

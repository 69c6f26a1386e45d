//! What a client that returns lacks of what it may see, and nothing else.
//!
//! The client says which version of each feed it holds. A feed that is in that version is
//! not spoken of; one whose mirror remembers the version is told by the events since; any
//! other is sent anew. The answers, the client's entry among the listeners and the ack are
//! one step of the live task, so that no event of the feeds comes between them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use shard_router::feed::names;
use tokio::sync::oneshot;

use super::{
    client::owners,
    state::{State, event_frame, lone_change},
    view::{Owner, PlaceId, TEAMS, View},
    waiting::What,
};
use crate::{
    hub::{ClientId, Room, frame::Frame},
    identity::{Identity, TeamId},
    metrics::{self, Resumed},
    mirror::{Event, Version, keeper::Keeper},
    outbox::Outbox,
    protocol::Claims,
    snapshot,
    tree::{Root, Tree, USER},
};

/// A `resume` that waits for what it is to be answered with.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) claims: Claims,
    /// Which call is answered with how many feeds came without and with a `reset`.
    pub(super) call: Option<u64>,
    /// Which feeds the client hears by their names from now on.
    pub(super) reply: oneshot::Sender<Vec<Arc<str>>>,
}

/// One step of the answer, in the order in which the client takes them.
#[derive(Debug)]
enum Step {
    /// The events that the client missed of a feed, with their names.
    Events(Vec<(&'static str, Frame)>),
    /// The collection at a place anew.
    Reset(Owner, PlaceId),
}

/// Missed events may take this part of what may wait for a client: with more it would be closed
/// as slow, come back with the same versions, and be closed again. A `reset` takes none of it.
const REPLAYED: usize = 2;

/// What is said of one feed.
enum Answer<'keeper> {
    Nothing,
    Events(Vec<&'keeper Event>),
    Anew,
}

impl State {
    /// Takes a `resume` in; it is answered when everything that it is about is known.
    ///
    /// `most` is how many feeds more the client may hear by their names.
    pub(super) fn resume(&mut self, id: ClientId, mut asked: Asked, most: usize) {
        let Some(client) = self.clients.get(&id) else { return };
        let identity = client.identity.clone();
        if names_another(&self.tree, &asked.claims, &identity) {
            asked.claims = Claims::default();
        }
        let is_wanted = |name: &str| {
            names::check_feed(name).is_ok()
                && self.allow.may(&identity, name)
                && self.tree.place(name).is_none_or(|place| !place.root.is_of(&identity))
        };
        let named = asked.claims.0.keys().filter(|name| asked.claims.feed(name).is_some());
        let wanted: Vec<Arc<str>> = named
            .filter(|name| is_wanted(name))
            .map(|name| Arc::from(name.as_str()))
            .take(most)
            .collect();
        for feed in &wanted {
            self.want_by_name(id, feed);
        }
        // What is too large to be mirrored may have been dropped again since the client came.
        owners(&identity).for_each(|owner| self.fetch(&owner, Instant::now()));
        self.wait(id, What::Resume(asked));
    }

    /// Answers a `resume`, lets the client hear its rooms and acks, in one step.
    pub(super) fn tell_resume(&mut self, id: ClientId, asked: Asked, since: Instant) {
        let Asked { claims, call, reply } = asked;
        let client = &self.clients[&id];
        let (identity, outbox) = (client.identity.clone(), client.outbox.clone());
        let subscribed = client.subscribed.clone();
        let tally = match claims.is_empty() {
            true => None,
            false => self.tell_lacking(&identity, &outbox, &claims, &subscribed),
        };
        match tally {
            None => {
                self.tell_initial(id, since);
                metrics::resumed(Resumed::Initial);
            }
            Some((_, reset)) => {
                self.enter(id, &identity);
                metrics::resumed(if reset == 0 { Resumed::Resumed } else { Resumed::Reset });
            }
        }
        // An `initial` brings none of them, so who claimed them hears them with a `reset`.
        for feed in subscribed.iter().filter(|_| !claims.is_empty()) {
            if tally.is_none() {
                let json = snapshot::reset_json(feed, None, Some(&self.collection(feed)));
                offer(&outbox, "reset", &Frame::snapshot("reset", json));
            }
            self.hear_by_name(id, feed);
        }
        let (resumed, reset) = tally.unwrap_or_default();
        if let Some(call) = call {
            let json = format!(r#"{{"code":200,"resumed":{resumed},"reset":{reset}}}"#);
            metrics::call(200);
            // A client that is gone wants no answer.
            let _ = outbox.ack(call, Frame::event("ack", json));
        }
        // Whoever asked may be gone.
        let _ = reply.send(subscribed);
    }

    /// Tells a client what it lacks, parents first; returns how many feeds were answered
    /// without and with a `reset`, or nothing if so many models are others that only an
    /// `initial` has room for them.
    fn tell_lacking(
        &mut self,
        identity: &Identity,
        outbox: &Outbox,
        claims: &Claims,
        subscribed: &[Arc<str>],
    ) -> Option<(usize, usize)> {
        let tree = self.tree.clone();
        let teams = lone_items(claims, teams_name(&tree), TEAMS);
        let is_new = |team: &&TeamId| !teams.contains_key(team.as_str());
        let new_teams: HashSet<TeamId> = identity.teams.iter().filter(is_new).cloned().collect();
        let users = lone_items(claims, user_name(&tree), USER);
        let models = self.models_since(identity, &teams, &users);
        let taken = models.iter().map(|(_, frame)| frame.weight()).sum();
        let room = (outbox.bound() / REPLAYED).checked_sub(taken)?;
        let mut plan = Plan::new(&self.keeper, &self.views, claims, &new_teams, room);
        plan.make(identity);
        let Plan { steps, kept, anew, seen, mut room, .. } = plan;

        // What is gone goes first, so that nothing of a lost team follows its `retract`.
        let lone = [teams_name(&tree), TEAMS, user_name(&tree), USER];
        let is_lone = |name: &str| claims.items(name).is_some() && lone.contains(&name);
        let is_seen =
            |name: &str| seen.contains(name) || subscribed.iter().any(|own| **own == *name);
        let stays = |name: &str| is_seen(name) || self.may_hang(identity, name);
        let gone = claims.0.keys().filter(|name| !is_lone(name) && !stays(name));
        let gone: Vec<_> = gone.map(|name| snapshot::reset_json(name, None, None)).collect();
        let mut resumed = kept.iter().filter(|feed| claims.feed(feed).is_some()).count();
        let mut reset = anew.len() + gone.len();
        for json in gone {
            offer(outbox, "reset", &Frame::snapshot("reset", json));
        }
        tell(outbox, &models);
        for step in steps {
            match step {
                Step::Events(frames) => tell(outbox, &frames),
                Step::Reset(owner, place) => {
                    let view = self.views.get_mut(&owner).expect("a client's views are there");
                    offer(outbox, "reset", &view.reset_frame(place, &self.keeper));
                    self.shelf.put(&owner, &mut self.views, Instant::now());
                }
            }
        }
        for feed in subscribed {
            let replayed = match answer(&self.keeper, claims, feed) {
                Answer::Nothing => Some(Vec::new()),
                Answer::Events(events) => replay(&self.keeper, feed, &events, &mut room),
                Answer::Anew => None,
            };
            match replayed {
                Some(frames) => {
                    tell(outbox, &frames);
                    resumed += 1;
                }
                None => {
                    let json = snapshot::reset_json(feed, None, Some(&self.collection(feed)));
                    offer(outbox, "reset", &Frame::snapshot("reset", json));
                    reset += 1;
                }
            }
        }
        Some((resumed, reset))
    }

    /// Tells whether a feed may hang below one that cannot be read now: it counts as
    /// unchanged too, and comes or goes with the `reset` of that one.
    fn may_hang(&self, identity: &Identity, feed: &str) -> bool {
        let Some(place) = self.tree.place(feed).filter(|place| place.root.is_of(identity)) else {
            return false;
        };
        let is_its = |owner: &Owner| match (&place.root, owner) {
            (Root::Team(team), Owner::Team(own)) => team == own,
            (Root::EveryTeam, Owner::Team(_)) => true,
            (Root::User(_) | Root::EveryUser, Owner::User(_)) => true,
            _ => false,
        };
        owners(identity).filter(is_its).any(|owner| self.views[&owner].lacks_content())
    }

    /// Says which teams are gone, which are new, and who has other attributes.
    fn models_since(
        &mut self,
        identity: &Identity,
        teams: &HashMap<&str, Option<Version>>,
        user: &HashMap<&str, Option<Version>>,
    ) -> Vec<(&'static str, Frame)> {
        let mut told = Vec::new();
        let tree = self.tree.clone();
        let one_feed = teams_name(&tree) == user_name(&tree);
        for id in teams.keys().filter(|id| !identity.is_in(id)) {
            let is_me = one_feed && **id == *identity.user.as_str();
            if !is_me {
                let json = snapshot::gone_json(teams_name(&tree), id);
                told.push(("retract", Frame::event("retract", json)));
            }
        }
        for owner in owners(identity) {
            self.told(&owner);
            let view = self.views.get_mut(&owner).expect("a client's views are there");
            let held = match &owner {
                Owner::Team(_) => teams.get(owner.id()),
                Owner::User(_) if tree.user.is_none() => continue,
                Owner::User(_) => user.get(owner.id()),
            };
            let (item, v) = view.attrs_item(&self.keeper);
            match (&owner, held) {
                (Owner::Team(_), None) => {
                    view.attrs_are_held(Some(v));
                    let json = snapshot::item_event_json(&view.attrs, owner.id(), item, v);
                    told.push(("publish", Frame::event("publish", json)));
                }
                // What cannot be read now counts as unchanged, and is told once it can.
                _ if !view.attrs_known => view.attrs_are_held(held.copied().flatten()),
                (_, Some(Some(held))) if *held == v => {}
                _ => told.push(("change", lone_change(&view.attrs, owner.id(), item, v))),
            }
        }
        told
    }

    /// Lets a client hear the rooms of its views.
    pub(super) fn enter(&mut self, id: ClientId, identity: &Identity) {
        let client = self.clients.get_mut(&id).expect("the caller looked");
        client.joined = true;
        client.teams = identity.teams.clone();
        let outbox = client.outbox.clone();
        for owner in owners(identity) {
            self.hub.join(owner.room(), id, outbox.clone());
        }
        self.waiting.happened(&super::waiting::Until::Joined(id));
    }

    /// Lets a client hear a feed by its name, as soon as it can be read.
    pub(super) fn hear_by_name(&mut self, id: ClientId, feed: &Arc<str>) {
        let room = Room::Feed(feed.clone());
        if self.keeper.mirror(feed).is_none() {
            let untold = self.untold.entry(feed.clone()).or_default();
            if !untold.contains(&id) {
                untold.push(id);
            }
        } else if !self.hub.contains(&room, id) {
            self.hub.join(room, id, self.clients[&id].outbox.clone());
        }
    }
}

/// Which feeds of a client's views are told how.
struct Plan<'a> {
    keeper: &'a Keeper,
    views: &'a HashMap<Owner, Box<View>>,
    claims: &'a Claims,
    new_teams: &'a HashSet<TeamId>,
    /// Feeds that are sent anew wherever they hang: part of one `reset` at least.
    forced: HashSet<Arc<str>>,
    steps: Vec<Step>,
    /// Feeds answered without a `reset`.
    kept: HashSet<Arc<str>>,
    /// Feeds answered with a `reset` of their own.
    anew: HashSet<Arc<str>>,
    /// Every feed of the views.
    seen: HashSet<Arc<str>>,
    /// Feeds that are part of a `reset`, their own or one above.
    covered: HashSet<Arc<str>>,
    /// How many bytes of events may be told, and how many are left of them.
    whole_room: usize,
    room: usize,
}

impl<'a> Plan<'a> {
    fn new(
        keeper: &'a Keeper,
        views: &'a HashMap<Owner, Box<View>>,
        claims: &'a Claims,
        new_teams: &'a HashSet<TeamId>,
        room: usize,
    ) -> Self {
        Self {
            keeper,
            views,
            claims,
            new_teams,
            forced: HashSet::new(),
            steps: Vec::new(),
            kept: HashSet::new(),
            anew: HashSet::new(),
            seen: HashSet::new(),
            covered: HashSet::new(),
            whole_room: room,
            room,
        }
    }

    /// Goes through the views of an identity.
    ///
    /// A feed may hang in several places. Events since a version would spoil a place that
    /// was sent anew, so a feed that is part of any `reset` is sent anew at each place.
    fn make(&mut self, identity: &Identity) {
        loop {
            for owner in owners(identity) {
                let is_new = matches!(&owner, Owner::Team(team) if self.new_teams.contains(team));
                let view = &self.views[&owner];
                for place in view.top() {
                    match is_new {
                        true => self.reset(&owner, view, *place),
                        false => self.walk(&owner, view, *place),
                    }
                }
            }
            let spoilt: Vec<_> = self.covered.intersection(&self.kept).cloned().collect();
            if spoilt.is_empty() {
                return;
            }
            let forced = self.forced.drain().chain(spoilt).collect();
            let room = self.whole_room;
            *self = Self::new(self.keeper, self.views, self.claims, self.new_teams, room);
            self.forced = forced;
        }
    }

    fn walk(&mut self, owner: &Owner, view: &View, place: PlaceId) {
        let feed = view.feed(place);
        let answer = match self.forced.contains(feed) {
            true => Answer::Anew,
            false => answer(self.keeper, self.claims, feed),
        };
        let mut published = HashSet::new();
        match answer {
            Answer::Anew => return self.reset(owner, view, place),
            Answer::Nothing => drop(self.kept.insert(feed.clone())),
            Answer::Events(events) => {
                if !self.kept.contains(feed) {
                    let replayed = replay(self.keeper, feed, &events, &mut self.room);
                    let Some(frames) = replayed else {
                        self.forced.insert(feed.clone());
                        return self.reset(owner, view, place);
                    };
                    self.kept.insert(feed.clone());
                    self.steps.push(Step::Events(frames));
                }
                let ids = events.iter().filter_map(|event| event.published());
                published = ids.map(str::to_owned).collect();
            }
        }
        self.seen.insert(feed.clone());
        for (id, nested) in view.nested(place) {
            for child in nested {
                // The client dropped what it held below an item when that was published.
                match published.contains(id) {
                    true => self.reset(owner, view, *child),
                    false => self.walk(owner, view, *child),
                }
            }
        }
    }

    fn reset(&mut self, owner: &Owner, view: &View, place: PlaceId) {
        self.steps.push(Step::Reset(owner.clone(), place));
        self.anew.insert(view.feed(place).clone());
        self.cover(view, place);
    }

    fn cover(&mut self, view: &View, place: PlaceId) {
        self.covered.insert(view.feed(place).clone());
        self.seen.insert(view.feed(place).clone());
        for child in view.nested(place).flat_map(|(_, nested)| nested) {
            self.cover(view, *child);
        }
    }
}

/// Returns what a client that holds this is told of a feed.
fn answer<'keeper>(keeper: &'keeper Keeper, claims: &Claims, feed: &str) -> Answer<'keeper> {
    // What cannot be read now counts as unchanged, and follows once it can.
    let Some(mirror) = keeper.mirror(feed) else { return Answer::Nothing };
    let since = claims.feed(feed).flatten().and_then(|v| mirror.since(v));
    match since {
        None => Answer::Anew,
        Some(events) if events.len() == 0 => Answer::Nothing,
        Some(events) => Answer::Events(events.collect()),
    }
}

/// Returns the events since a version as they are told, if there is room for them.
fn replay(
    keeper: &Keeper,
    feed: &Arc<str>,
    events: &[&Event],
    room: &mut usize,
) -> Option<Vec<(&'static str, Frame)>> {
    let mut left = *room;
    let mut frames = Vec::with_capacity(events.len());
    for event in events {
        let v = Some(event.v).filter(|_| !keeper.is_passed(feed));
        let (name, frame) = event_frame(feed, &event.change, v);
        left = left.checked_sub(frame.weight())?;
        frames.push((name, frame));
    }
    *room = left;
    Some(frames)
}

fn tell(outbox: &Outbox, frames: &[(&'static str, Frame)]) {
    frames.iter().for_each(|(name, frame)| offer(outbox, name, frame));
}

fn offer(outbox: &Outbox, name: &'static str, frame: &Frame) {
    metrics::events_delivered(name, u64::from(outbox.offer(frame).is_ok()));
}

/// Tells whether a client holds what another user was shown.
fn names_another(tree: &Tree, claims: &Claims, identity: &Identity) -> bool {
    let held = lone_items(claims, user_name(tree), USER);
    !held.is_empty() && !held.contains_key(identity.user.as_str())
}

/// Returns the lone items that are claimed under the name of their feed, or the common one.
fn lone_items<'a>(
    claims: &'a Claims,
    name: &str,
    common: &str,
) -> HashMap<&'a str, Option<Version>> {
    let named = [name, common].into_iter().filter_map(|name| claims.items(name));
    named.flatten().map(|(id, v)| (id.as_str(), *v)).collect()
}

fn teams_name(tree: &Tree) -> &str {
    tree.team.as_ref().and_then(|branch| branch.attrs.as_deref()).unwrap_or(TEAMS)
}

fn user_name(tree: &Tree) -> &str {
    tree.user.as_ref().and_then(|branch| branch.attrs.as_deref()).unwrap_or(USER)
}

//! A client's copy of what it may see, kept by applying events literally. Pure.
//!
//! It believes whatever it is told, so that what it shows in the end is the server's doing. A feed
//! that hangs in several places is one collection, held as long as a place or a subscription is.

mod content;
#[cfg(test)]
mod tests;
mod wire;

use std::{collections::HashMap, sync::Arc};

use indexmap::{IndexMap, IndexSet};
use serde_json::value::RawValue;

use self::wire::{Event, Parent, Position, Reset, Root};
pub use self::{content::Content, wire::Version};

/// What a client holds.
#[derive(Debug, Default)]
pub struct Tree {
    /// The feed to which the user's own model answers.
    user_feed: Box<str>,
    root: Option<Box<str>>,
    user: Option<Model>,
    teams_feed: Arc<str>,
    teams: Models,
    feeds: HashMap<Arc<str>, Collection>,
}

/// Models by their ids, in the order in which they are shown.
pub type Models = IndexMap<Box<str>, Model>;

/// What is shown of one item.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// The item.
    pub content: Content,
    /// The version of a lone item, a team's or the user's; `None` elsewhere, and where forgotten.
    pub v: Option<Version>,
    /// The names of the collections below it, and their feeds.
    pub collections: Vec<(Box<str>, Arc<str>)>,
}

/// What is held of one feed.
#[derive(Debug, Default)]
pub struct Collection {
    /// The version of what is held; `None` where it is forgotten.
    pub v: Option<Version>,
    /// Whether it came as one that cannot be read now.
    pub unavailable: bool,
    /// Whether it is held because it was subscribed by name.
    pub subscribed: bool,
    /// Where it hangs in the tree.
    pub places: Vec<Place>,
    /// Its items.
    pub models: Models,
}

/// Where a collection hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The feed of the model above.
    pub feed: Arc<str>,
    /// The id of the model above.
    pub id: Box<str>,
    /// The name of the collection there.
    pub name: Box<str>,
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Something is shown that was not, or elsewhere, or no longer.
    Changed,
    /// Nothing: all of it was so already. A `publish` without a position says nothing of order,
    /// and what hangs below its item comes anew and is not looked at.
    Same,
    /// Nothing: the feed is not held, or the model under which something should hang.
    NoFeed,
    /// Nothing: the feed is held and the item is not, or not the neighbour.
    NoItem,
}

impl Effect {
    /// Tells whether the event concerned something that is held and left it as it was.
    #[must_use]
    pub const fn is_repeat(self) -> bool {
        matches!(self, Self::Same | Self::NoItem)
    }
}

/// Why something that came could not be applied at all; the tree is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It has not the shape that it must have.
    #[error("not what a server may send")]
    Shape(#[from] serde_json::Error),
    /// No such event changes a tree.
    #[error("`{0}` is no event about the state")]
    Event(String),
    /// An event that brings an item has none, or one that moves says not where to.
    #[error("`{0}` lacks something")]
    Lacking(String),
    /// A place that is none of the four forms.
    #[error("`{0}` is no position")]
    Position(String),
}

impl Tree {
    /// Makes an empty tree; the user's own model will answer to this feed.
    #[must_use]
    pub fn new(user_feed: &str) -> Self {
        Self { user_feed: user_feed.into(), ..Self::default() }
    }

    /// Tells whether an event is one that changes a tree.
    #[must_use]
    pub fn knows(event: &str) -> bool {
        matches!(event, "initial" | "publish" | "change" | "retract" | "position" | "reset")
    }

    /// Applies one event, with its one argument as it came.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] for what no server may send.
    pub fn apply(&mut self, event: &str, argument: &str) -> Result<Effect, Broken> {
        match event {
            "initial" => self.begin(serde_json::from_str(argument)?),
            "reset" => return Ok(self.reset(&serde_json::from_str(argument)?)),
            _ if Self::knows(event) => return self.edit(event, &serde_json::from_str(argument)?),
            _ => return Err(Broken::Event(event.to_owned())),
        }
        Ok(Effect::Changed)
    }

    /// Takes the collection that a granted `subscribe` brought.
    ///
    /// # Errors
    ///
    /// Returns [`Broken`] for what is no collection.
    pub fn subscribed(&mut self, collection: &str) -> Result<(), Broken> {
        let collection = serde_json::from_str(collection)?;
        let feed = self.fill(&collection);
        self.held(&feed).subscribed = true;
        Ok(())
    }

    /// Ends a subscription.
    pub fn unsubscribed(&mut self, feed: &str) {
        if let Some(collection) = self.feeds.get_mut(feed) {
            collection.subscribed = false;
            self.drop_unheld(feed);
        }
    }

    /// The user's id, once `initial` has come.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// The user's own model.
    #[must_use]
    pub fn user(&self) -> Option<&Model> {
        self.user.as_ref()
    }

    /// The teams, whose models are single items of the shared feed [`Self::teams_feed`].
    #[must_use]
    pub fn teams(&self) -> &Models {
        &self.teams
    }

    /// The feed to which the teams answer.
    #[must_use]
    pub fn teams_feed(&self) -> &str {
        &self.teams_feed
    }

    /// All feeds that are held whole, in no order.
    pub fn feeds(&self) -> impl Iterator<Item = (&str, &Collection)> {
        self.feeds.iter().map(|(feed, collection)| (&**feed, collection))
    }

    /// One feed that is held whole.
    #[must_use]
    pub fn feed(&self, feed: &str) -> Option<&Collection> {
        self.feeds.get(feed)
    }

    /// Writes the argument of `resume`: what is held, parents first, in at most this many bytes.
    ///
    /// What finds no room is left out. An empty tree asks for `initial`.
    #[must_use]
    pub fn resume(&self, bound: usize) -> String {
        let Some(root) = &self.root else { return r#"{"feeds":{}}"#.to_owned() };
        let lone = |id: &str, v: Option<Version>| format!("{}:{}", json(id), version(v));
        let user = lone(root, self.user.as_ref().and_then(|user| user.v));
        let teams: Vec<String> = self.teams.iter().map(|(id, team)| lone(id, team.v)).collect();
        let mut out = format!(r#"{{"feeds":{{"user":{{{user}}}"#);
        if !self.teams.is_empty() {
            out.push_str(&format!(",{}:{{{}}}", json(&self.teams_feed), teams.join(",")));
        }
        for feed in self.parents_first() {
            let entry = format!(",{}:{}", json(&feed), version(self.feeds[&feed].v));
            if out.len() + entry.len() + 2 > bound {
                break;
            }
            out.push_str(&entry);
        }
        out.push_str("}}");
        out
    }

    fn parents_first(&self) -> Vec<Arc<str>> {
        let below = |model: &Model| -> Vec<Arc<str>> {
            model.collections.iter().map(|(_, feed)| feed.clone()).collect()
        };
        let subscribed = self.feeds.iter().filter(|(_, collection)| collection.subscribed);
        let mut row: Vec<Arc<str>> = subscribed.map(|(feed, _)| feed.clone()).collect();
        row.extend(self.user.iter().chain(self.teams.values()).flat_map(below));
        let mut all = IndexSet::new();
        while !row.is_empty() {
            for feed in std::mem::take(&mut row) {
                let Some(collection) = self.feeds.get(&feed) else { continue };
                if all.insert(feed) {
                    row.extend(collection.models.values().flat_map(below));
                }
            }
        }
        all.into_iter().collect()
    }

    fn begin(&mut self, root: Root<'_>) {
        let user_feed = std::mem::take(&mut self.user_feed);
        *self = Self::new(&user_feed);
        let feed: Arc<str> = user_feed.into();
        self.user = root.models.user.map(|user| self.model(&feed, &user, user.v));
        if let Some(teams) = root.collections.teams {
            self.teams_feed = (&*teams.id).into();
            let feed = self.teams_feed.clone();
            for team in &teams.models {
                let model = self.model(&feed, team, team.v);
                self.teams.insert((&*team.id).into(), model);
            }
        }
        self.root = Some(root.attrs.id);
    }

    fn reset(&mut self, reset: &Reset<'_>) -> Effect {
        match (&reset.parent, &reset.collection) {
            (Some(parent), collection) => {
                let name = reset.name.as_deref().unwrap_or_default();
                let Some(above) = self.model_at(&parent.feed, &parent.id) else {
                    return Effect::NoFeed;
                };
                let hung = above.collections.iter().find(|(held, _)| **held == *name);
                let hung = hung.map(|(_, feed)| feed.clone());
                let is_same = match (&hung, collection) {
                    (None, None) => true,
                    (Some(feed), Some(new)) => **feed == *new.id && self.is_same(new),
                    _ => false,
                };
                self.hang(parent, name, collection.as_ref());
                if is_same { Effect::Same } else { Effect::Changed }
            }
            (None, Some(collection)) => {
                if !self.feeds.contains_key(&*reset.feed) {
                    return Effect::NoFeed;
                }
                let is_same = self.is_same(collection);
                self.fill(collection);
                if is_same { Effect::Same } else { Effect::Changed }
            }
            (None, None) => match self.feeds.get_mut(&*reset.feed) {
                Some(collection) => {
                    collection.subscribed = false;
                    for place in std::mem::take(&mut collection.places) {
                        if let Some(above) = self.model_at_mut(&place.feed, &place.id) {
                            above.collections.retain(|(name, _)| *name != place.name);
                        }
                    }
                    self.drop_unheld(&reset.feed);
                    Effect::Changed
                }
                None => Effect::NoFeed,
            },
        }
    }

    fn edit(&mut self, name: &str, event: &Event<'_>) -> Result<Effect, Broken> {
        let lacking = || Broken::Lacking(name.to_owned());
        let position = event
            .position
            .as_deref()
            .map(|text| Position::read(text).ok_or_else(|| Broken::Position(text.to_owned())));
        let position = position.transpose()?;
        let content = match name {
            "publish" | "change" => {
                Some(Content::of_json(&event.id, event.item.ok_or_else(lacking)?))
            }
            _ => None,
        };
        if name == "position" && position.is_none() {
            return Err(lacking());
        }

        let id = &*event.id;
        if *event.feed == *self.user_feed && self.root.as_deref() == Some(id) {
            let Some(user) = &mut self.user else { return Ok(Effect::NoItem) };
            let effect = match content {
                Some(content) => replace(user, content),
                None => Effect::NoItem,
            };
            user.v = event.v;
            return Ok(effect);
        }
        let is_team = *event.feed == *self.teams_feed && self.root.is_some();
        let models = match self.feeds.get_mut(&*event.feed) {
            _ if is_team => &mut self.teams,
            Some(collection) => &mut collection.models,
            None => return Ok(Effect::NoFeed),
        };
        let held = models.get_index_of(id);
        let to = match position.map(|position| target(models, held, position)) {
            Some(None) => return Ok(Effect::NoItem),
            Some(Some(to)) => Some(to),
            None => None,
        };
        let mut gone = None;
        let effect = match (name, content, held) {
            ("publish", Some(content), _) => {
                gone = models.shift_remove(id);
                let to = to.unwrap_or(models.len());
                let is_same = gone.as_ref().is_some_and(|old| old.content == content)
                    && (position.is_none() || held == Some(to));
                let v = event.v.filter(|_| is_team);
                models.shift_insert(to, id.into(), Model { content, v, collections: Vec::new() });
                if is_same { Effect::Same } else { Effect::Changed }
            }
            (_, _, None) => return Ok(Effect::NoItem),
            ("change", Some(content), Some(at)) => {
                let model = &mut models[at];
                if is_team {
                    model.v = event.v;
                }
                replace(model, content)
            }
            ("position", _, Some(at)) => {
                let to = to.unwrap_or(at);
                models.move_index(at, to);
                if at == to { Effect::Same } else { Effect::Changed }
            }
            (_, _, Some(at)) => {
                gone = models.shift_remove_index(at).map(|(_, model)| model);
                Effect::Changed
            }
        };
        if !is_team {
            self.held(&event.feed).v = event.v;
        }
        if let Some(gone) = gone {
            self.release(&event.feed, id, gone);
        }
        Ok(effect)
    }

    fn model_at(&self, feed: &str, id: &str) -> Option<&Model> {
        if *feed == *self.user_feed && self.root.as_deref() == Some(id) {
            return self.user.as_ref();
        }
        if *feed == *self.teams_feed {
            return self.teams.get(id);
        }
        self.feeds.get(feed)?.models.get(id)
    }

    fn model_at_mut(&mut self, feed: &str, id: &str) -> Option<&mut Model> {
        if *feed == *self.user_feed && self.root.as_deref() == Some(id) {
            return self.user.as_mut();
        }
        if *feed == *self.teams_feed {
            return self.teams.get_mut(id);
        }
        self.feeds.get_mut(feed)?.models.get_mut(id)
    }

    /// The collection of a feed of which it is known that it is held.
    fn held(&mut self, feed: &str) -> &mut Collection {
        self.feeds.get_mut(feed).expect("a feed in use is held")
    }

    /// Hangs a collection under a model, or takes away what hangs there.
    fn hang(&mut self, parent: &Parent<'_>, name: &str, new: Option<&wire::Collection<'_>>) {
        let place =
            Place { feed: (&*parent.feed).into(), id: (&*parent.id).into(), name: name.into() };
        let new = new.map(|collection| self.fill(collection));
        // Gone only where a feed hangs below itself.
        let Some(above) = self.model_at_mut(&place.feed, &place.id) else { return };
        let slot = above.collections.iter().position(|(held, _)| **held == *name);
        let old = match (slot, &new) {
            (Some(slot), Some(feed)) => {
                Some(std::mem::replace(&mut above.collections[slot].1, feed.clone()))
            }
            (Some(slot), None) => Some(above.collections.remove(slot).1),
            (None, Some(feed)) => {
                above.collections.push((name.into(), feed.clone()));
                None
            }
            (None, None) => None,
        };
        if let Some(feed) = &new
            && let places = &mut self.held(feed).places
            && !places.contains(&place)
        {
            places.push(place.clone());
        }
        if let Some(old) = old
            && Some(&old) != new.as_ref()
        {
            self.leave(&old, &place);
        }
    }

    /// Makes a model and hangs what is below it.
    fn model(&mut self, feed: &Arc<str>, model: &wire::Model<'_>, v: Option<Version>) -> Model {
        let mut collections = Vec::with_capacity(model.collections.len());
        for (name, below) in &model.collections {
            let below = self.fill(below);
            let (id, name): (Box<str>, Box<str>) = ((&*model.id).into(), (&**name).into());
            let place = Place { feed: feed.clone(), id, name: name.clone() };
            self.held(&below).places.push(place);
            collections.push((name, below));
        }
        Model { content: Content::of_json(&model.id, model.attrs), v, collections }
    }

    /// Replaces what is held of a feed, wherever it hangs; returns the feed.
    fn fill(&mut self, new: &wire::Collection<'_>) -> Arc<str> {
        let feed: Arc<str> = (&*new.id).into();
        let collection = self.feeds.entry(feed.clone()).or_default();
        for (id, gone) in std::mem::take(&mut collection.models) {
            self.release(&feed, &id, gone);
        }
        let mut models = Models::with_capacity(new.models.len());
        for model in &new.models {
            let made = self.model(&feed, model, None);
            models.insert((&*model.id).into(), made);
        }
        let collection = self.feeds.entry(feed.clone()).or_default();
        collection.v = new.v;
        collection.unavailable = new.unavailable;
        collection.models = models;
        feed
    }

    /// Lets go of what hung below a model that is gone.
    fn release(&mut self, feed: &str, id: &str, gone: Model) {
        for (name, below) in gone.collections {
            self.leave(&below, &Place { feed: feed.into(), id: id.into(), name });
        }
    }

    fn leave(&mut self, feed: &str, place: &Place) {
        if let Some(collection) = self.feeds.get_mut(feed) {
            collection.places.retain(|held| held != place);
            self.drop_unheld(feed);
        }
    }

    fn drop_unheld(&mut self, feed: &str) {
        let is_held =
            |collection: &Collection| collection.subscribed || !collection.places.is_empty();
        if self.feeds.get(feed).is_some_and(is_held) {
            return;
        }
        let Some(collection) = self.feeds.remove(feed) else { return };
        for (id, model) in collection.models {
            self.release(feed, &id, model);
        }
    }

    /// Tells whether exactly this is held already, all below it too.
    fn is_same(&self, new: &wire::Collection<'_>) -> bool {
        let Some(held) = self.feeds.get(&*new.id) else { return false };
        held.unavailable == new.unavailable
            && held.models.len() == new.models.len()
            && new
                .models
                .iter()
                .zip(&held.models)
                .all(|(new, (id, model))| *new.id == **id && self.is_same_model(new, model))
    }

    fn is_same_model(&self, new: &wire::Model<'_>, held: &Model) -> bool {
        let below = |name: &str| held.collections.iter().find(|(held, _)| **held == *name);
        Content::of_json(&new.id, new.attrs) == held.content
            && new.collections.len() == held.collections.len()
            && new.collections.iter().all(|(name, collection)| {
                below(name).is_some_and(|(_, feed)| **feed == *collection.id)
                    && self.is_same(collection)
            })
    }
}

fn replace(model: &mut Model, content: Content) -> Effect {
    if model.content == content {
        return Effect::Same;
    }
    model.content = content;
    Effect::Changed
}

/// The index that an item has at this position once it is taken out where it is held now.
fn target(models: &Models, held: Option<usize>, position: Position<'_>) -> Option<usize> {
    let others = models.len() - usize::from(held.is_some());
    let neighbour = |id: &str| {
        let at = models.get_index_of(id).filter(|&at| Some(at) != held)?;
        Some(at - usize::from(held.is_some_and(|held| held < at)))
    };
    match position {
        Position::Begin => Some(0),
        Position::End => Some(others),
        Position::Before(id) => neighbour(id),
        Position::Behind(id) => Some(neighbour(id)? + 1),
    }
}

fn json(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).expect("a string is always JSON")
}

fn version(v: Option<Version>) -> String {
    v.map_or("null".to_owned(), |v| format!("\"{v}\""))
}

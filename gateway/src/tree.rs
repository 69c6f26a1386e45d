//! The state tree: which feeds hang where, and who may see and edit them.
//!
//! Pure: names in, names out. A feed's name is the only thing that says whose it is, so
//! everything here serves one promise: no id, however it is spelled, reaches another's feed.

use std::sync::Arc;

use shard_router::feed::FeedType;

use crate::identity::{Identity, TeamId, UserId};

pub use self::template::{Template, TemplateError, Vars};

mod overlap;
pub(crate) mod template;

/// The placeholder for the team in feed names.
pub const TEAM: &str = "team";
/// The placeholder for the user in feed names.
pub const USER: &str = "user";
/// The placeholder for one free part in `[subscribe] allow`.
pub const ANY: &str = "any";

/// What a session's state is made of, as `[tree]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// What hangs under each team of the session.
    pub team: Option<Branch>,
    /// What is private to the user.
    pub user: Option<Branch>,
}

/// What hangs under a team or under the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branch {
    /// The shared feed in which the attributes of the team or user are one item, under its id.
    pub attrs: Option<Arc<str>>,
    /// Its collections, in the order of the file.
    pub collections: Vec<Collection>,
}

/// A feed at one place of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// The key under which clients find it.
    pub name: String,
    /// How its feed is called.
    pub feed: Template,
    /// The placeholder that stands for an item's id in the feeds nested below.
    pub item: Option<String>,
    /// What it is made as, where it does not exist yet.
    pub kind: FeedType,
    /// Who may edit it.
    pub rules: Rules,
    /// What hangs under each of its items, in the order of the file.
    pub collections: Vec<Collection>,
}

/// Who may edit a collection; by default nobody may.
///
/// Only those who may see the collection may edit it, whatever stands here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The attributes that everyone who sees the collection may set; `id` is never among them.
    pub editable: Vec<String>,
    /// Who may add an item.
    pub can_add: Who,
    /// Who may delete an item.
    pub can_delete: Who,
    /// Who may move an item.
    pub can_move: Who,
    /// One placeholder, such as `{member}`: the user of that id is the owner.
    pub owner: Option<Template>,
}

impl Rules {
    /// Returns the id of the collection's owner at a place, if the collection has one there.
    ///
    /// A collection's own item name may be meant; its value is then needed in `vars`.
    #[must_use]
    pub fn owner<'vars>(&self, vars: &'vars Vars) -> Option<&'vars str> {
        vars.get(self.owner.as_ref()?.single_placeholder()?)
    }
}

/// Who may do something to a collection that they see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Who {
    /// The user that `owner` names.
    Owner,
    /// Everyone who sees the collection.
    Member,
    /// Nobody.
    #[default]
    Nobody,
}

/// Whose a feed is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// This team's.
    Team(TeamId),
    /// This user's.
    User(UserId),
    /// Shown under every team: its name holds no placeholder.
    EveryTeam,
    /// Shown to every user: its name holds no placeholder.
    EveryUser,
}

impl Root {
    /// Tells whether someone may see the feeds of this root.
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        match self {
            Self::Team(team) => identity.is_in(team.as_str()),
            Self::User(user) => identity.user == *user,
            Self::EveryTeam => !identity.teams.is_empty(),
            Self::EveryUser => true,
        }
    }
}

/// Where in the tree a feed hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'tree> {
    /// The collection that the feed is.
    pub collection: &'tree Collection,
    /// The team or user and the items that its name holds.
    pub vars: Vars,
    /// Whose it is.
    pub root: Root,
}

impl Tree {
    /// Finds the collection that a feed's name belongs to.
    ///
    /// Templates that could name the same feed are equal (the configuration is refused
    /// otherwise), with the same rules and nested collections, so the first that fits is as
    /// good as any.
    #[must_use]
    pub fn place(&self, feed: &str) -> Option<Place<'_>> {
        // A feed without placeholders may hang in both branches; the user's shows it to more.
        self.place_in(feed, USER).or_else(|| self.place_in(feed, TEAM))
    }

    /// Lists the feeds whose items are the attributes of teams and users.
    pub fn attrs_feeds(&self) -> impl Iterator<Item = &str> {
        [&self.team, &self.user].into_iter().flatten().filter_map(|branch| branch.attrs.as_deref())
    }

    fn place_in(&self, feed: &str, branch: &str) -> Option<Place<'_>> {
        let collections = &match branch {
            USER => self.user.as_ref()?,
            _ => self.team.as_ref()?,
        }
        .collections;
        let (collection, vars) = find(collections, feed)?;
        let root = match (branch, vars.get(branch)) {
            (USER, Some(user)) => Root::User(UserId::new(user)),
            (USER, None) => Root::EveryUser,
            (_, Some(team)) => Root::Team(TeamId::new(team)),
            (_, None) => Root::EveryTeam,
        };
        Some(Place { collection, vars, root })
    }
}

fn find<'tree>(collections: &'tree [Collection], feed: &str) -> Option<(&'tree Collection, Vars)> {
    collections.iter().find_map(|collection| {
        let here = collection.feed.parse(feed).map(|vars| (collection, vars));
        here.or_else(|| find(&collection.collections, feed))
    })
}

/// Which feeds `subscribe` may name, as `[subscribe] allow` says; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow(pub Vec<Template>);

impl Allow {
    /// Tells whether someone may subscribe to a feed by its name.
    #[must_use]
    pub fn may(&self, identity: &Identity, feed: &str) -> bool {
        self.0.iter().filter_map(|template| template.parse(feed)).any(|vars| {
            vars.get(TEAM).is_none_or(|team| identity.is_in(team))
                && vars.get(USER).is_none_or(|user| identity.user.as_str() == user)
        })
    }
}

#[cfg(test)]
mod tests;

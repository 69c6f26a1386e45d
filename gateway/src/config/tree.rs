//! `[tree]` and `[subscribe]`: the feeds that clients may see.

use shard_router::feed::FeedType;

use super::read::{Entry, Reading, Section};
use crate::tree::{
    ANY, Allow, Branch, Collection, Rules, TEAM, Template, Tree, USER, Vars, Who, template::is_name,
};

/// How deep collections may hang in collections: deeper than any page shows them.
const MAX_DEPTH: usize = 8;

/// Reads the tree and what may be subscribed, and holds their names against each other.
pub(super) fn read(
    reading: &Reading<'_>,
    mut tree: Section<'_>,
    mut subscribe: Section<'_>,
) -> (Tree, Allow) {
    let mut names = Names(Vec::new());
    // Clients know a session's teams under this name, whether they have attributes or not.
    let team = tree.take(TEAM).and_then(|entry| entry.section());
    let team = names.branch(team, tree.path(TEAM), TEAM, "teams", true);
    let user = tree.take(USER).and_then(|entry| entry.section());
    let user = names.branch(user, tree.path(USER), USER, "user", false);
    tree.finish();
    let allow = subscribe.take("allow").and_then(|entry| {
        let templates = entry.list(|entry| {
            let template = template(entry, &[TEAM, USER, ANY])?;
            Some((entry.path.clone(), template))
        })?;
        Some(templates.into_iter().map(|(path, template)| {
            names.0.push(Named { path, template: template.clone(), role: Role::Allowed });
            template
        }))
        .map(|templates| Allow(templates.collect()))
    });
    subscribe.finish();
    names.check(reading);
    (Tree { team, user }, allow.unwrap_or_default())
}

/// Every template of the configuration and where it stands.
struct Names(Vec<Named>);

struct Named {
    path: String,
    template: Template,
    role: Role,
}

/// What a template is for.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// The feed whose items are the attributes of teams or users.
    Root,
    /// A collection of the tree, and what is nested in it.
    Collection { kind: FeedType, rules: Rules, nested: Vec<Collection> },
    /// What may be subscribed by name.
    Allowed,
}

impl Names {
    fn branch(
        &mut self,
        section: Option<Section<'_>>,
        path: String,
        root: &'static str,
        root_feed: &str,
        is_always_shown: bool,
    ) -> Option<Branch> {
        let is_there = section.is_some();
        let branch = section.map(|mut section| {
            let attrs = section.take("attrs").and_then(|entry| attrs(entry.section()?, root));
            let collections = self.collections(section.section("collections"), &mut vec![root]);
            section.finish();
            Branch { attrs: attrs.map(Into::into), collections }
        });
        if is_there || is_always_shown {
            let attrs = branch.as_ref().and_then(|branch| branch.attrs.as_deref());
            let template = Template::literal(attrs.unwrap_or(root_feed));
            self.0.push(Named { path: format!("{path}.attrs.feed"), template, role: Role::Root });
        }
        branch
    }

    fn collections(&mut self, section: Section<'_>, scope: &mut Vec<&str>) -> Vec<Collection> {
        let collections = section.take_all().into_iter().filter_map(|(name, entry)| {
            let is_fine = (1..=256).contains(&name.len()) && !name.contains(char::is_control);
            if !is_fine {
                entry.mistake("is no name: 1 to 256 bytes without control characters");
            }
            if scope.len() > MAX_DEPTH {
                entry.mistake(format!("hangs deeper than {MAX_DEPTH} collections"));
                return None;
            }
            self.collection(name, entry.section()?, scope)
        });
        collections.collect()
    }

    fn collection(
        &mut self,
        name: &str,
        mut section: Section<'_>,
        scope: &[&str],
    ) -> Option<Collection> {
        let feed = section.take("feed");
        if feed.is_none() {
            section.mistake("feed", "is missing");
        }
        let feed = feed.and_then(|entry| collection_feed(&entry, scope));
        let item = section.take("item").and_then(|entry| item(&entry, scope));
        let kind = section.take("type").and_then(|entry| {
            entry.one_of(&[("feed", FeedType::Feed), ("sorted_feed", FeedType::SortedFeed)])
        });
        let kind = kind.unwrap_or(FeedType::Feed);
        let mut below: Vec<&str> = scope.to_vec();
        below.extend(item.as_deref());
        let rules = rules(&mut section, &below);
        // It stands before what is nested in it, as in the file.
        let index = self.0.len();
        let collections = self.collections(section.section("collections"), &mut below);
        if let Some(template) = feed.clone() {
            let role = Role::Collection { kind, rules: rules.clone(), nested: collections.clone() };
            self.0.insert(index, Named { path: section.path("feed"), template, role });
        }
        section.finish();
        Some(Collection { name: name.to_owned(), feed: feed?, item, kind, rules, collections })
    }

    /// Notes templates that could name the same feed and are not the same.
    fn check(&self, reading: &Reading<'_>) {
        for (index, named) in self.0.iter().enumerate() {
            for before in &self.0[..index] {
                if let Some((at, message)) = clash(before, named) {
                    reading.mistake(&at.path, message);
                }
            }
        }
    }
}

fn clash<'named>(before: &'named Named, named: &'named Named) -> Option<(&'named Named, String)> {
    if !before.template.overlaps(&named.template) {
        return None;
    }
    let (shown, path) = (&before.template, &before.path);
    match (&before.role, &named.role) {
        (Role::Root, Role::Root) => {
            Some((named, format!("is `{shown}`, which is the feed of `{path}` already")))
        }
        (Role::Root, _) | (_, Role::Root) => {
            let (root, other) =
                if before.role == Role::Root { (before, named) } else { (named, before) };
            let message = format!(
                "could name the feed `{}`, which clients know as that of `{}`",
                root.template, root.path
            );
            Some((other, message))
        }
        _ if before.template != named.template => {
            Some((named, format!("could name the same feed as `{shown}` of `{path}`")))
        }
        (
            Role::Collection { kind, rules, nested },
            Role::Collection { kind: other_kind, rules: other_rules, nested: other_nested },
        ) => {
            let why = if holds(nested, &named.template) {
                "a feed cannot be nested in itself"
            } else if (kind, rules) != (other_kind, other_rules) {
                "its `type` and who may edit it must be the same"
            } else if !have_same_feeds(nested, other_nested) {
                // A `reset` tells all places of a feed at once what hangs there.
                "the collections nested in it must be the same"
            } else {
                return None;
            };
            Some((named, format!("is the feed of `{path}` as well; {why}")))
        }
        (Role::Allowed, _) | (_, Role::Allowed) => None,
    }
}

fn holds(collections: &[Collection], feed: &Template) -> bool {
    collections.iter().any(|it| it.feed == *feed || holds(&it.collections, feed))
}

/// Tells whether the same feeds hang under the same names, all the way down, in whatever order.
fn have_same_feeds(one: &[Collection], other: &[Collection]) -> bool {
    let is_in_other = |it: &Collection| {
        let found = other.iter().find(|found| found.name == it.name);
        found.is_some_and(|found| {
            found.feed == it.feed && have_same_feeds(&it.collections, &found.collections)
        })
    };
    one.len() == other.len() && one.iter().all(is_in_other)
}

fn attrs(mut section: Section<'_>, root: &'static str) -> Option<String> {
    let feed = section.take("feed");
    if feed.is_none() {
        section.mistake("feed", "is missing");
    }
    let feed = feed.and_then(|entry| {
        let template = template(&entry, &[root])?;
        if template.placeholders().next().is_some() {
            return entry.wrong("is the name of one shared feed, without placeholders");
        }
        Some(template.fill(&Vars::default()))
    });
    let right = format!("is `{{{root}}}`");
    match section.take("id") {
        Some(id) => {
            id.parsed(&right, |text| (text == format!("{{{root}}}")).then_some(()));
        }
        None => section.mistake("id", format!("is missing; it {right}")),
    }
    section.finish();
    feed
}

fn collection_feed(entry: &Entry<'_>, scope: &[&str]) -> Option<Template> {
    let template = template(entry, scope)?;
    let root = scope.first().expect("a scope begins with its root");
    let names_an_item = template.placeholders().any(|name| name != *root);
    let names_its_root = template.placeholders().any(|name| name == *root);
    if names_an_item && !names_its_root {
        // Nobody could tell from such a name whose item it belongs to.
        entry.mistake(format!("names an item, and so must name `{{{root}}}`"));
        return None;
    }
    Some(template)
}

fn template(entry: &Entry<'_>, scope: &[&str]) -> Option<Template> {
    let template: Template =
        entry.text()?.parse().map_err(|error| entry.mistake(format!("{error}"))).ok()?;
    let unknown: Vec<_> = template.placeholders().filter(|name| !scope.contains(name)).collect();
    let Some(unknown) = unknown.first() else { return Some(template) };
    let known: Vec<_> = scope.iter().map(|name| format!("`{{{name}}}`")).collect();
    entry.mistake(format!("has `{{{unknown}}}`; what is known here is {}", known.join(", ")));
    None
}

fn item(entry: &Entry<'_>, scope: &[&str]) -> Option<String> {
    let name = entry.parsed("is a name of letters, digits, `_` and `-`", |text| {
        is_name(text).then(|| text.to_owned())
    })?;
    let is_taken = scope.contains(&name.as_str()) || [TEAM, USER, ANY].contains(&name.as_str());
    if is_taken {
        entry.mistake(format!("is `{name}`, which means something else here"));
        return None;
    }
    Some(name)
}

fn rules(section: &mut Section<'_>, scope: &[&str]) -> Rules {
    let editable = section.take("editable").and_then(|entry| {
        entry.list(|entry| {
            let name = entry.text()?;
            if matches!(name, "" | "id") {
                entry.mistake("is the name of an attribute, and never `id`");
                return None;
            }
            Some(name.to_owned())
        })
    });
    let [can_add, can_delete, can_move] = ["can_add", "can_delete", "can_move"].map(|key| {
        let who = section.take(key).and_then(|entry| {
            entry.one_of(&[("owner", Who::Owner), ("member", Who::Member), ("nobody", Who::Nobody)])
        });
        who.unwrap_or_default()
    });
    let owner = section.take("owner");
    let needs_owner = [can_add, can_delete, can_move].contains(&Who::Owner);
    if needs_owner && owner.is_none() {
        section.mistake("owner", "is missing; it says who the owner is, such as `{member}`");
    }
    let owner = owner.and_then(|entry| {
        let template = template(&entry, scope)?;
        if template.single_placeholder().is_none() {
            return entry.wrong("is one placeholder, such as `{member}`, and nothing else");
        }
        Some(template)
    });
    Rules { editable: editable.unwrap_or_default(), can_add, can_delete, can_move, owner }
}

//! Capsule's edits: who may do which, and how the built-in worker carries them out.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use shard_router::{
    feed::{Edited, FeedError, Job, NewFeed, Note, Position},
    router::Router,
};
use tracing::warn;

use crate::{
    identity::{Identity, TeamId, UserId},
    protocol::{CallError, Edit, EditVerb, Object},
    tree::{Place, Tree, Who},
};

impl Edit {
    /// Returns the name of the event that asks for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.verb {
            EditVerb::Add { .. } => "add",
            EditVerb::Set { .. } => "set",
            EditVerb::Delete { .. } => "delete",
            EditVerb::Move { .. } => "move",
        }
    }

    /// Returns the item that it is about; one that is added has no id yet.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match &self.verb {
            EditVerb::Add { .. } => None,
            EditVerb::Set { id, .. } | EditVerb::Delete { id } | EditVerb::Move { id, .. } => {
                Some(id)
            }
        }
    }

    /// Returns the job that the built-in worker is put.
    #[must_use]
    pub fn to_job(&self, caller: &Identity) -> Value {
        let mut job = json!({
            "op": self.name(),
            "feed": self.feed,
            "user": caller.user.as_str(),
            "teams": caller.teams.iter().map(TeamId::as_str).collect::<Vec<_>>(),
        });
        match &self.verb {
            EditVerb::Add { item, position } => {
                job["item"] = Value::Object(item.clone());
                if let Some(position) = position {
                    job["position"] = position.as_str().into();
                }
            }
            EditVerb::Set { id, change } => {
                job["id"] = id.as_str().into();
                job["change"] = Value::Object(change.clone());
            }
            EditVerb::Delete { id } => job["id"] = id.as_str().into(),
            EditVerb::Move { id, position } => {
                job["id"] = id.as_str().into();
                job["position"] = position.as_str().into();
            }
        }
        job
    }

    fn position(&self) -> Result<Option<Position>, CallError> {
        let position = match &self.verb {
            EditVerb::Add { position, .. } => position.as_ref(),
            EditVerb::Move { position, .. } => Some(position),
            EditVerb::Set { .. } | EditVerb::Delete { .. } => None,
        };
        position
            .map(|position| {
                Position::from_str(position).map_err(|error| CallError::bad(error.to_string()))
            })
            .transpose()
    }
}

/// Tells whether someone may carry an edit out, by the rules of the tree alone.
///
/// # Errors
///
/// Returns 403 for a feed that is not the caller's or a verb that the caller may not, 400 for
/// attributes that may not be set, each by its name, or a bad position.
pub fn may<'tree>(
    tree: &'tree Tree,
    edit: &Edit,
    caller: &Identity,
) -> Result<Place<'tree>, CallError> {
    let unseen = || CallError::Forbidden("you may not see this feed".to_owned());
    let place =
        tree.place(&edit.feed).filter(|place| place.root.is_of(caller)).ok_or_else(unseen)?;
    let rules = &place.collection.rules;
    // The item itself may be what names the owner; one that is added has no id yet.
    let item = place.collection.item.as_ref().zip(edit.id());
    let vars = item.and_then(|(name, id)| place.vars.with(name, id));
    let owner = rules.owner(vars.as_ref().unwrap_or(&place.vars));
    let owns = || owner.is_some_and(|owner| owner == caller.user.as_str());
    let allowed = |who: Who| match who {
        Who::Owner => owns(),
        Who::Member => true,
        Who::Nobody => false,
    };
    let may = match &edit.verb {
        EditVerb::Add { .. } => allowed(rules.can_add),
        EditVerb::Set { .. } => !rules.editable.is_empty(),
        EditVerb::Delete { .. } => allowed(rules.can_delete),
        EditVerb::Move { .. } => allowed(rules.can_move),
    };
    if !may {
        return Err(CallError::Forbidden(format!("you may not {} here", edit.name())));
    }
    if let EditVerb::Add { item: named, .. } | EditVerb::Set { change: named, .. } = &edit.verb {
        let refused: Vec<String> = named
            .keys()
            .filter(|key| *key == "id" || !rules.editable.contains(key))
            .map(|key| format!("`{key}` may not be set"))
            .collect();
        if !refused.is_empty() {
            return Err(CallError::Bad(refused));
        }
    }
    edit.position()?;
    Ok(place)
}

/// The parts of an edit's job that its worker reads.
#[derive(Debug, Deserialize)]
struct EditJob {
    op: String,
    feed: String,
    user: String,
    #[serde(default)]
    teams: Vec<String>,
    #[serde(default)]
    id: String,
    #[serde(default)]
    item: Object,
    #[serde(default)]
    change: Object,
    position: Option<String>,
}

/// How often an item that others change at the same moment is tried to be set.
const TRIES: usize = 20;

/// What an edit is carried out within.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// An edit that is older is not applied any more: its client was told 504.
    pub timeout: Duration,
    /// How large an item may become, in bytes.
    pub max_item_bytes: usize,
}

/// Carries an edit's job out and returns its result.
pub async fn carry_out(router: &Router, tree: &Tree, bounds: Bounds, job: &Job) -> Vec<u8> {
    let answer = match try_to(router, tree, bounds, job).await {
        Ok(answer) => answer,
        Err(error) => error.to_json(),
    };
    answer.to_string().into_bytes()
}

async fn try_to(
    router: &Router,
    tree: &Tree,
    bounds: Bounds,
    job: &Job,
) -> Result<Value, CallError> {
    if job.age.is_some_and(|age| age >= bounds.timeout) {
        return Err(CallError::Timeout { job: job.id.clone(), state: "claimed" });
    }
    let asked: EditJob = serde_json::from_slice(&job.item)
        .map_err(|error| CallError::bad(format!("the job is not an edit: {error}")))?;
    let caller =
        Identity::new(UserId::new(&asked.user), asked.teams.iter().map(TeamId::new).collect());
    let verb = match asked.op.as_str() {
        "add" => EditVerb::Add { item: asked.item, position: asked.position },
        "set" => EditVerb::Set { id: asked.id, change: asked.change },
        "delete" => EditVerb::Delete { id: asked.id },
        "move" => EditVerb::Move { id: asked.id, position: asked.position.unwrap_or_default() },
        other => return Err(CallError::bad(format!("no edit is called `{other}`"))),
    };
    let edit = Edit { feed: asked.feed, verb };
    let place = may(tree, &edit, &caller)?;
    let new = NewFeed { feed_type: place.collection.kind, max_length: None };
    let note = Note { job: job.id.clone(), result: Bytes::from_static(br#"{"code":200}"#) };
    let position = edit.position()?;
    let feed = edit.feed.as_str();
    let edited = match &edit.verb {
        EditVerb::Add { item, .. } => {
            let item = Value::Object(item.clone()).to_string();
            check_size(&item, bounds.max_item_bytes)?;
            router.edit_add(feed, item, position.as_ref(), new, &note).await
        }
        EditVerb::Set { id, change } => {
            let change = Merge { change, max_item_bytes: bounds.max_item_bytes };
            return answer(&edit, set(router, feed, id, change, &note).await?);
        }
        EditVerb::Delete { id } => router.edit_delete(feed, id, &note).await,
        EditVerb::Move { id, .. } => {
            let position = position.expect("a move without a place was refused above");
            router.edit_move(feed, id, &position, &note).await
        }
    };
    answer(&edit, edited.map_err(|error| failed(feed, edit.id(), error))?)
}

fn check_size(item: &str, max: usize) -> Result<(), CallError> {
    if item.len() <= max {
        return Ok(());
    }
    Err(CallError::TooLarge(format!("the item would have {} bytes and may have {max}", item.len())))
}

/// Merges a change into an item, whatever the tree's rules say; for workers of our own.
///
/// # Errors
///
/// Returns 404 for an item that is not there, 409 for one that is no object.
pub async fn merge_into(
    router: &Router,
    feed: &str,
    id: &str,
    change: &Object,
    job: &str,
) -> Result<(), CallError> {
    let note = Note { job: job.to_owned(), result: Bytes::from_static(br#"{"code":200}"#) };
    let verb = EditVerb::Set { id: id.to_owned(), change: change.clone() };
    let edit = Edit { feed: feed.to_owned(), verb };
    let change = Merge { change, max_item_bytes: usize::MAX };
    answer(&edit, set(router, feed, id, change, &note).await?).map(drop)
}

/// What is merged into an item, and how large the item may become.
struct Merge<'a> {
    change: &'a Object,
    max_item_bytes: usize,
}

/// Merges a change into an item until nobody else has changed it meanwhile.
async fn set(
    router: &Router,
    feed: &str,
    id: &str,
    merge_in: Merge<'_>,
    note: &Note,
) -> Result<Edited, CallError> {
    let failed = |error| failed(feed, Some(id), error);
    let mut current = router.item(feed, id).await.map_err(failed)?;
    for _ in 0..TRIES {
        let Some(item) = current else { return Ok(Edited::Unknown) };
        let Some(merged) = merge(&item, merge_in.change) else {
            return Ok(Edited::Changed(item));
        };
        check_size(&merged, merge_in.max_item_bytes)?;
        match router.cas_item(feed, id, &item, merged.as_bytes(), note).await.map_err(failed)? {
            Edited::Changed(other) => current = Some(other),
            edited => return Ok(edited),
        }
    }
    Ok(current.map_or(Edited::Unknown, Edited::Changed))
}

/// Sets attributes in an item's text; the others keep their text. `None` if it is no object.
fn merge(item: &[u8], change: &Object) -> Option<String> {
    let mut attributes: RawObject = serde_json::from_slice(item).ok()?;
    for (name, value) in change {
        let raw = RawValue::from_string(value.to_string()).expect("a value is JSON");
        // Where a name stands twice, whoever parses the text takes the last.
        match attributes.0.iter_mut().rfind(|(own, _)| own == name) {
            Some((_, value)) => *value = raw,
            None => attributes.0.push((name.clone(), raw)),
        }
    }
    Some(serde_json::to_string(&attributes).expect("an object is JSON"))
}

/// An object whose values keep their text and their order.
struct RawObject(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> serde::de::Visitor<'de> for Entries {
            type Value = Vec<(String, Box<RawValue>)>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        Ok(Self(deserializer.deserialize_map(Entries)?))
    }
}

impl Serialize for RawObject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn answer(edit: &Edit, edited: Edited) -> Result<Value, CallError> {
    let id = edit.id().unwrap_or_default();
    match edited {
        Edited::Done { id } => match edit.verb {
            EditVerb::Add { .. } => Ok(json!({ "code": 200, "id": id })),
            _ => Ok(json!({ "code": 200 })),
        },
        Edited::AlreadyDone(noted) => match edit.verb {
            EditVerb::Add { .. } => {
                Ok(json!({ "code": 200, "id": String::from_utf8_lossy(&noted) }))
            }
            _ => Ok(json!({ "code": 200 })),
        },
        Edited::Changed(_) => Err(CallError::Conflict(format!(
            "item `{id}` is no object, or is changed by others all the time"
        ))),
        Edited::Unknown => Err(unknown(id)),
        Edited::UnknownNeighbour => Err(unknown_neighbour()),
        Edited::WrongKind(found) => {
            Err(CallError::Conflict(format!("a {found} cannot be edited like this")))
        }
    }
}

fn unknown(id: &str) -> CallError {
    CallError::Unknown(format!("there is no item `{id}`"))
}

fn unknown_neighbour() -> CallError {
    CallError::Conflict("the position names an item that is not there".to_owned())
}

fn failed(feed: &str, id: Option<&str>, error: FeedError) -> CallError {
    match error {
        FeedError::UnknownItem { .. } => unknown(id.unwrap_or_default()),
        FeedError::UnknownNeighbour { .. } => unknown_neighbour(),
        FeedError::SameItem(_) => {
            CallError::Conflict("an item cannot be put next to itself".to_owned())
        }
        FeedError::BadId { .. } | FeedError::BadName(_) => CallError::bad(error.to_string()),
        error => {
            warn!(feed, %error, cause = ?error, "An edit could not be carried out.");
            CallError::Unavailable("the feed's shard cannot carry it out now".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(item: &str, change: Value, expected: Option<&str>) {
        let Value::Object(change) = change else { panic!("a change is an object") };
        assert_eq!(merge(item.as_bytes(), &change).as_deref(), expected);
    }

    #[test]
    fn what_a_change_does_not_name_keeps_its_text() {
        check(
            r#"{"n": 1.0e2, "title":"a", "big":12345678901234567890123}"#,
            json!({"title": "b", "done": true}),
            Some(r#"{"n":1.0e2,"title":"b","big":12345678901234567890123,"done":true}"#),
        );
        check("{}", json!({}), Some("{}"));
        check(r#"{"a":1,"b":2,"a":3}"#, json!({"a": 4}), Some(r#"{"a":1,"b":2,"a":4}"#));
        check("[1]", json!({"a": 1}), None);
        check("text", json!({"a": 1}), None);
    }
}

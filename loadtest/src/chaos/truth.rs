//! What Redis holds, read by plain commands and by nothing of ours, and what a client lacks of it.

use std::collections::{HashMap, HashSet};

use redis::{FromRedisValue, RedisError, Value, cmd, pipe};
use sha1::{Digest, Sha1};

use super::world::{Kind, PUBLIC, TEAMS, USERS, World, part};
use crate::{
    cluster::{Cluster, ClusterError},
    tree::{Collection, Content, Model, Models, Tree},
};

/// Feeds that are read in one go.
const BATCH: usize = 64;

/// What is in Redis while nobody writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Truth {
    feeds: HashMap<String, Held>,
}

/// The content of one feed, by the words of the contract.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    kind: Kind,
    items: Vec<(String, Content, Vec<u8>)>,
    v: String,
}

/// What a client should show.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its user.
    pub user: &'a str,
    /// The teams that the user is in.
    pub teams: &'a HashSet<String>,
}

impl Truth {
    /// Reads every feed of the world.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when a shard is away.
    pub async fn read(cluster: &Cluster, world: &World) -> Result<Self, ClusterError> {
        let mut by_shard: Vec<Vec<&str>> = vec![Vec::new(); cluster.shards.len()];
        for feed in &world.feeds {
            by_shard[cluster.owner(&feed.name)].push(&feed.name);
        }
        let mut feeds = HashMap::new();
        for (shard, names) in cluster.shards.iter().zip(by_shard) {
            for names in names.chunks(BATCH) {
                let mut types = pipe();
                for name in names {
                    types.cmd("TYPE").arg(format!("feed.ids:{name}"));
                }
                let types: Vec<String> = shard.pipe(&types).await?;
                let mut contents = pipe();
                for (name, kind) in names.iter().zip(&types) {
                    let word = if kind == "list" { "LRANGE" } else { "ZRANGE" };
                    contents.add_command(
                        cmd(word).arg(format!("feed.ids:{name}")).arg(0).arg(-1).take(),
                    );
                    contents.cmd("HGETALL").arg(format!("feed.items:{name}"));
                }
                let contents: Vec<Value> = shard.pipe(&contents).await?;
                for ((name, kind), pair) in names.iter().zip(types).zip(contents.chunks(2)) {
                    feeds.insert((*name).to_owned(), Held::of(&kind, pair)?);
                }
            }
        }
        Ok(Self { feeds })
    }

    /// Tells the first place where a client's tree differs; `None` where it holds exactly this.
    #[must_use]
    pub fn difference(&self, tree: &Tree, wanted: &Wanted<'_>) -> Option<String> {
        if tree.root() != Some(wanted.user) {
            return Some(format!("the user: client {:?}, wanted {}", tree.root(), wanted.user));
        }
        let user = tree.user();
        let notes = format!("user.{}.notes", part(wanted.user));
        self.lone(USERS, wanted.user, user)
            .or_else(|| below(USERS, wanted.user, user?, &[("notes", notes.clone())]))
            .or_else(|| self.collection(&notes, tree, &|_| vec![]))
            .or_else(|| self.teams(tree, wanted))
            .or_else(|| {
                let subscribed = tree.feeds().filter(|(_, collection)| collection.subscribed);
                subscribed.into_iter().find_map(|(feed, _)| {
                    let is_known = PUBLIC.contains(&feed)
                        || wanted
                            .teams
                            .iter()
                            .any(|team| feed == format!("team.{}.chat", part(team)));
                    if is_known {
                        self.collection(feed, tree, &|_| vec![])
                    } else {
                        Some(format!("{feed}: held, and not to be seen"))
                    }
                })
            })
    }

    fn teams(&self, tree: &Tree, wanted: &Wanted<'_>) -> Option<String> {
        let held: HashSet<&str> = tree.teams().keys().map(|id| &**id).collect();
        let expected: HashSet<&str> = wanted.teams.iter().map(String::as_str).collect();
        if let Some(team) = held.symmetric_difference(&expected).next() {
            let which = if held.contains(team) { "held, and left" } else { "not held" };
            return Some(format!("team {team}: {which}"));
        }
        wanted.teams.iter().find_map(|team| {
            let model = tree.teams().get(&**team);
            let place = format!("team.{}", part(team));
            let (members, board) = (format!("{place}.members"), format!("{place}.board"));
            let tasks = |id: &str| vec![("tasks", format!("{members}.{}.tasks", part(id)))];
            self.lone(TEAMS, team, model)
                .or_else(|| {
                    let names = [("members", members.clone()), ("board", board.clone())];
                    below(TEAMS, team, model?, &names)
                })
                .or_else(|| self.collection(&board, tree, &|_| vec![]))
                .or_else(|| self.collection(&members, tree, &tasks))
                .or_else(|| {
                    let models = &tree.feed(&members)?.models;
                    models.keys().find_map(|id| self.collection(&tasks(id)[0].1, tree, &|_| vec![]))
                })
        })
    }

    /// Compares a model that stands for one item of a shared feed.
    fn lone(&self, feed: &str, id: &str, model: Option<&Model>) -> Option<String> {
        let Some(model) = model else { return Some(format!("{feed} {id}: not held")) };
        let item = self.feeds.get(feed)?.items.iter().find(|(held, ..)| held == id);
        // A missing item counts as an empty object.
        let item = item.map_or(b"{}".as_slice(), |(_, _, item)| item);
        let content = Content::of_item(id, item);
        let v = version([("", id, item)]);
        if content != model.content {
            return Some(format!("{feed} {id}: client {}, Redis {content}", model.content));
        }
        let differs = model.v.as_ref().is_some_and(|held| held.as_str() != v);
        differs.then(|| format!("{feed} {id}: v is {:?}, of Redis {v}", model.v))
    }

    fn collection(
        &self,
        feed: &str,
        tree: &Tree,
        names: &dyn Fn(&str) -> Vec<(&'static str, String)>,
    ) -> Option<String> {
        let Some(held) = tree.feed(feed) else { return Some(format!("{feed}: not held")) };
        if held.unavailable {
            return Some(format!("{feed}: still unavailable"));
        }
        let truth = self.feeds.get(feed).map(|truth| truth.differs(held))?;
        let nested =
            || held.models.iter().find_map(|(id, model)| below(feed, id, model, &names(id)));
        truth.map(|difference| format!("{feed}: {difference}")).or_else(nested)
    }
}

impl Held {
    fn of(kind: &str, pair: &[Value]) -> Result<Self, RedisError> {
        let listed = Vec::<Vec<u8>>::from_redis_value(pair[0].clone())?;
        let mut stored = HashMap::<Vec<u8>, Vec<u8>>::from_redis_value(pair[1].clone())?;
        let kind = if kind == "list" { Kind::Sorted } else { Kind::Plain };
        let mut items = Vec::new();
        for id in listed {
            // An id listed twice counts at its first place.
            let Some(item) = stored.remove(&id) else { continue };
            let Ok(id) = String::from_utf8(id) else { continue };
            items.push((id.clone(), Content::of_item(&id, &item), item));
        }
        let mut previous = "";
        let mut terms = Vec::new();
        for (id, _, item) in &items {
            terms.push((previous, id.as_str(), item.as_slice()));
            if kind == Kind::Sorted {
                previous = id;
            }
        }
        let v = version(terms);
        Ok(Self { kind, items, v })
    }

    fn differs(&self, held: &Collection) -> Option<String> {
        for (at, (id, content, _)) in self.items.iter().enumerate() {
            let Some((place, _, model)) = held.models.get_full(id.as_str()) else {
                return Some(format!("item {id} not held; Redis {content}"));
            };
            if model.content != *content {
                return Some(format!("item {id}: client {}, Redis {content}", model.content));
            }
            if self.kind == Kind::Sorted && place != at && held.models.len() == self.items.len() {
                let order: Vec<&str> = self.items.iter().map(|(id, ..)| id.as_str()).collect();
                return Some(format!("order: client {:?}, Redis {order:?}", keys(&held.models)));
            }
        }
        let extra =
            held.models.keys().find(|id| !self.items.iter().any(|(known, ..)| **known == ***id));
        if let Some(id) = extra {
            return Some(format!("item {id} held: {}; not in Redis", held.models[id].content));
        }
        let differs = held.v.as_ref().is_some_and(|v| v.as_str() != self.v);
        differs.then(|| format!("v is {:?}, of Redis {}", held.v, self.v))
    }
}

fn keys(models: &Models) -> Vec<&str> {
    models.keys().map(|id| &**id).collect()
}

/// Compares which collections hang below a model.
fn below(feed: &str, id: &str, model: &Model, expected: &[(&str, String)]) -> Option<String> {
    let held: HashSet<(&str, &str)> =
        model.collections.iter().map(|(name, feed)| (&**name, &**feed)).collect();
    let wanted: HashSet<(&str, &str)> =
        expected.iter().map(|(name, feed)| (*name, feed.as_str())).collect();
    (held != wanted).then(|| format!("{feed} {id}: below it {held:?}, wanted {wanted:?}"))
}

/// The version of content, by the words of the contract.
fn version<'a>(terms: impl IntoIterator<Item = (&'a str, &'a str, &'a [u8])>) -> String {
    let mut sums = [0_u32; 3];
    for (previous, id, item) in terms {
        let digest = Sha1::digest([previous.as_bytes(), &[0], id.as_bytes(), &[0], item].concat());
        for (at, sum) in sums.iter_mut().enumerate() {
            let word = digest[4 * at..4 * at + 4].try_into().expect("four bytes");
            *sum = sum.wrapping_add(u32::from_be_bytes(word));
        }
    }
    sums.map(|sum| format!("{sum:08x}")).concat()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use serde_json::json;

    use super::*;

    /// Makes a feed of ids and items, as Redis answers.
    fn held(kind: &str, items: &[(&str, &str)]) -> Held {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let listed = items.iter().map(|(id, _)| text(id)).collect();
        let stored = items.iter().flat_map(|(id, item)| [text(id), text(item)]).collect();
        Held::of(kind, &[Value::Array(listed), Value::Array(stored)]).unwrap()
    }

    fn truth() -> Truth {
        let world = World::new(3, &mut StdRng::seed_from_u64(1));
        let mut feeds: HashMap<String, Held> =
            world.feeds.iter().map(|feed| (feed.name.clone(), held("none", &[]))).collect();
        for (feed, kind, items) in [
            (TEAMS, "zset", &[("t0", r#"{"n":1}"#)][..]),
            ("team.t0.board", "list", &[("1", r#"{"a":1}"#), ("2", "no JSON")]),
            ("team.t0.members", "zset", &[("m2", "[1]"), ("m3", "{}")]),
            ("team.t0.members.m2.tasks", "list", &[("9", r#"{"id":"x"}"#)]),
            ("team.t0.members.m3.tasks", "list", &[]),
        ] {
            feeds.insert(feed.to_owned(), held(kind, items));
        }
        Truth { feeds }
    }

    fn initial() -> serde_json::Value {
        let tasks = |member: &str, models: serde_json::Value| json!({ "tasks": { "id": format!("team.t0.members.{member}.tasks"), "v": null, "models": models } });
        let task = json!([{ "id": "9", "attrs": { "id": "x" }, "collections": {} }]);
        json!({
            "attrs": { "id": "u0" },
            "models": { "user": { "id": "u0", "v": null, "attrs": { "id": "u0" }, "collections": {
                "notes": { "id": "user.u0.notes", "v": "0".repeat(24), "models": [] } } } },
            "collections": { "teams": { "id": "teams", "models": [{
                "id": "t0", "v": null, "attrs": { "id": "t0", "n": 1 }, "collections": {
                    "board": { "id": "team.t0.board", "v": null, "models": [
                        { "id": "1", "attrs": { "id": "1", "a": 1 }, "collections": {} },
                        { "id": "2", "attrs": { "id": "2", "value": "no JSON" }, "collections": {} },
                    ] },
                    "members": { "id": "team.t0.members", "v": null, "models": [
                        { "id": "m3", "attrs": { "id": "m3" }, "collections": tasks("m3", json!([])) },
                        { "id": "m2", "attrs": { "id": "m2", "value": [1] }, "collections": tasks("m2", task) },
                    ] },
                } }] } },
        })
    }

    #[track_caller]
    fn check(events: &[(&str, serde_json::Value)], teams: &[&str], expected: Option<&str>) {
        let mut tree = Tree::new(USERS);
        tree.apply("initial", &initial().to_string()).unwrap();
        for (name, argument) in events {
            tree.apply(name, &argument.to_string()).unwrap();
        }
        let teams = teams.iter().map(|team| (*team).to_owned()).collect();
        let found = truth().difference(&tree, &Wanted { user: "u0", teams: &teams });
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn whatever_differs_is_found() {
        let board = "team.t0.board";
        check(&[], &["t0"], None);
        check(&[], &[], Some("team t0: held, and left"));
        check(&[], &["t0", "t1"], Some("team t1: not held"));
        let moved = json!({ "feed": board, "id": "2", "position": "begin:", "v": null });
        check(
            &[("position", moved)],
            &["t0"],
            Some(r#"team.t0.board: order: client ["2", "1"], Redis ["1", "2"]"#),
        );
        let gone = json!({ "feed": board, "id": "2", "v": null });
        check(
            &[("retract", gone)],
            &["t0"],
            Some(r#"team.t0.board: item 2 not held; Redis {"value":"no JSON"}"#),
        );
        let more = json!({ "feed": board, "id": "3", "item": 3, "position": "2:", "v": null });
        check(
            &[("publish", more)],
            &["t0"],
            Some(r#"team.t0.board: item 3 held: {"value":3}; not in Redis"#),
        );
        let other = json!({ "feed": "team.t0.members.m2.tasks", "id": "9", "item": {}, "v": null });
        check(
            &[("change", other)],
            &["t0"],
            Some(r#"team.t0.members.m2.tasks: item 9: client {}, Redis {"id":"x"}"#),
        );
        let team = json!({ "feed": TEAMS, "id": "t0", "item": { "n": 2 }, "v": null });
        check(&[("change", team)], &["t0"], Some(r#"teams t0: client {"n":2}, Redis {"n":1}"#));
        // Without the tasks of a member that is there again.
        let again = json!({ "feed": "team.t0.members", "id": "m3", "item": {}, "v": null });
        check(
            &[("publish", again)],
            &["t0"],
            Some(
                r#"team.t0.members m3: below it {}, wanted {("tasks", "team.t0.members.m3.tasks")}"#,
            ),
        );
        let same = json!({ "feed": board, "id": "1", "item": { "a": 1 }, "v": "1".repeat(24) });
        let v = &truth().feeds[board].v;
        let wrong = format!("team.t0.board: v is Some({}), of Redis {v}", "1".repeat(24));
        check(&[("change", same)], &["t0"], Some(&wrong));
        let foreign = json!({ "feed": "user.u0.notes", "parent": { "feed": USERS, "id": "u0" },
            "name": "notes", "collection": { "id": "user.u0.notes", "v": null, "models": [], "unavailable": true } });
        check(&[("reset", foreign)], &["t0"], Some("user.u0.notes: still unavailable"));
    }

    #[test]
    fn content_is_what_has_an_id_and_an_item() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let listed = Value::Array(["2", "1", "2", "lone"].map(text).to_vec());
        let stored = Value::Array(["1", "a", "2", "b", "orphan", "c"].map(text).to_vec());
        let held = Held::of("list", &[listed, stored]).unwrap();
        let ids: Vec<&str> = held.items.iter().map(|(id, ..)| id.as_str()).collect();
        assert_eq!(ids, ["2", "1"]);
    }
}

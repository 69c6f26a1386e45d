//! What a client has to hold, computed from Redis alone and by nothing of ours.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use super::{
    cluster::Cluster,
    node::Clients,
    redis::{Redis, Reply},
};

/// A user as the tests' configuration shows the world to one.
#[derive(Debug, Clone, Copy)]
pub(super) struct User<'a> {
    pub(super) id: &'a str,
    pub(super) teams: &'a [&'a str],
}

/// A feed as it is in Redis.
struct Content {
    items: Vec<(String, Vec<u8>)>,
    is_sorted: bool,
}

impl Cluster {
    /// Computes the whole tree of a user, in the shape of `initial`.
    pub(super) async fn expected(&self, user: User<'_>) -> Value {
        let mut plain = HashSet::from(["teams".to_owned()]);
        let notes = self.collection(&format!("user.{}.notes", part(user.id)), &mut plain).await;
        let me = self.lone("users", user.id, json!({ "notes": notes })).await;
        let mut teams = Vec::new();
        for team in user.teams {
            let feed = format!("team.{}.members", part(team));
            let mut members = self.collection(&feed, &mut plain).await;
            for member in members["models"].as_array_mut().expect("models are a list") {
                let id = member["id"].as_str().expect("an id is a text");
                let tasks = format!("{feed}.{}.tasks", part(id));
                let tasks = self.collection(&tasks, &mut plain).await;
                member["collections"] = json!({ "tasks": tasks });
            }
            teams.push(self.lone("teams", team, json!({ "members": members })).await);
        }
        let tree = json!({
            "attrs": { "id": user.id },
            "models": { "user": me },
            "collections": { "teams": { "id": "teams", "models": teams } },
        });
        comparable(tree, &plain)
    }

    /// Compares what a client holds with what Redis holds; tells where they differ.
    pub(super) async fn compare(&self, user: User<'_>, held: &Value) -> Result<(), String> {
        let expected = self.expected(user).await;
        let plain = self.plain_feeds().await;
        let held = comparable(held.clone(), &plain);
        match difference("", &expected, &held) {
            None => Ok(()),
            Some(difference) => Err(difference),
        }
    }

    /// Waits until each client holds what Redis holds, without anything that did not fit.
    pub(super) async fn settled(&self, clients: &mut Clients, users: &[User<'_>]) {
        for (client, user) in users.iter().enumerate() {
            let deadline = tokio::time::Instant::now() + super::PATIENCE;
            loop {
                let held = clients.held(client).await;
                assert_eq!(held["problems"], json!([]), "client {client} could not follow");
                let Err(difference) = self.compare(*user, &held["tree"]).await else { break };
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "client {client} ({}) does not come to hold what Redis holds: {difference}",
                    user.id
                );
                tokio::time::sleep(super::LOOK).await;
            }
        }
    }

    /// A model that stands for one item of a shared feed.
    async fn lone(&self, feed: &str, id: &str, collections: Value) -> Value {
        let item = match self.find(feed, &["HGET", &format!("feed.items:{feed}"), id]).await {
            Reply::Text(item) => item,
            // A missing item counts as an empty object.
            _ => b"{}".to_vec(),
        };
        let (v, attrs) = (version([("", id, item.as_slice())]), attrs(id, &item));
        json!({ "id": id, "v": v, "attrs": attrs, "collections": collections })
    }

    /// A feed as a collection; noted in `plain` if its order means nothing.
    pub(super) async fn collection(&self, feed: &str, plain: &mut HashSet<String>) -> Value {
        let content = self.content(feed).await;
        if !content.is_sorted {
            plain.insert(feed.to_owned());
        }
        let mut previous = "";
        let mut terms = Vec::new();
        for (id, item) in &content.items {
            terms.push((previous, id.as_str(), item.as_slice()));
            if content.is_sorted {
                previous = id;
            }
        }
        let model = |(id, item): &(String, Vec<u8>)| json!({ "id": id, "attrs": attrs(id, item), "collections": {} });
        let models: Vec<Value> = content.items.iter().map(model).collect();
        json!({ "id": feed, "v": version(terms), "models": models })
    }

    async fn content(&self, feed: &str) -> Content {
        let (ids, items) = (format!("feed.ids:{feed}"), format!("feed.items:{feed}"));
        let kind = self.find(feed, &["TYPE", &ids]).await.text();
        let is_sorted = kind == "list";
        let listed = match kind.as_str() {
            "list" => self.find(feed, &["LRANGE", &ids, "0", "-1"]).await.texts(),
            "zset" => self.find(feed, &["ZRANGE", &ids, "0", "-1"]).await.texts(),
            "none" => Vec::new(),
            other => panic!("{ids} is a {other}"),
        };
        let mut content = Content { items: Vec::new(), is_sorted };
        for id in listed {
            let id = String::from_utf8(id).expect("the tests' ids are UTF-8");
            if let Reply::Text(item) = self.find(feed, &["HGET", &items, &id]).await {
                content.items.push((id, item));
            }
        }
        content
    }

    /// Asks the one shard that has the feed, or any where none has.
    async fn find(&self, feed: &str, words: &[&str]) -> Reply {
        let mut having: Vec<&Redis> = Vec::new();
        for shard in &self.shards {
            let keys = [format!("feed.ids:{feed}"), format!("feed.items:{feed}")];
            let exists = shard.text(&["EXISTS", &keys[0], &keys[1]]).await;
            if exists != Reply::Number(0) {
                having.push(shard);
            }
        }
        assert!(having.len() <= 1, "{feed} is on several shards");
        having.first().unwrap_or(&self.shard(feed)).text(words).await
    }

    /// The feeds whose order means nothing, of all shards.
    async fn plain_feeds(&self) -> HashSet<String> {
        let mut plain = HashSet::from(["teams".to_owned()]);
        for shard in &self.shards {
            for key in shard.text(&["KEYS", "feed.ids:*"]).await.texts() {
                let key = String::from_utf8(key).expect("the tests' feeds are UTF-8");
                if shard.text(&["TYPE", &key]).await.text() == "zset" {
                    plain.insert(key["feed.ids:".len()..].to_owned());
                }
            }
        }
        plain
    }
}

/// An id as it stands in a feed's name.
pub(super) fn part(id: &str) -> String {
    id.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'@' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
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

fn attrs(id: &str, item: &[u8]) -> Value {
    let value = serde_json::from_slice(item)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(item).into_owned()));
    match value {
        Value::Object(item) => {
            let mut attrs = Map::from_iter([("id".to_owned(), id.into())]);
            attrs.extend(item);
            Value::Object(attrs)
        }
        value => json!({ "id": id, "value": value }),
    }
}

/// Puts what means nothing into one form: the order of plain feeds, the kind of a number.
fn comparable(value: Value, plain: &HashSet<String>) -> Value {
    match value {
        Value::Object(object) => {
            let is_plain =
                object.get("id").and_then(Value::as_str).is_some_and(|id| plain.contains(id));
            let mut out: Map<String, Value> =
                object.into_iter().map(|(key, value)| (key, comparable(value, plain))).collect();
            if is_plain && let Some(Value::Array(models)) = out.get_mut("models") {
                models.sort_by_key(|model| model["id"].to_string());
            }
            Value::Object(out)
        }
        Value::Array(values) => values.into_iter().map(|value| comparable(value, plain)).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other,
    }
}

/// Finds the first place where two values differ.
fn difference(at: &str, expected: &Value, held: &Value) -> Option<String> {
    match (expected, held) {
        (Value::Object(expected), Value::Object(held)) => {
            let keys: HashSet<&String> = expected.keys().chain(held.keys()).collect();
            keys.into_iter().find_map(|key| {
                let null = Value::Null;
                let (one, other) = (expected.get(key), held.get(key));
                let missing = one.is_some() != other.is_some();
                let at = format!("{at}/{key}");
                if missing {
                    return Some(format!("{at}: Redis {one:?}, client {other:?}"));
                }
                difference(&at, one.unwrap_or(&null), other.unwrap_or(&null))
            })
        }
        (Value::Array(expected), Value::Array(held)) if expected.len() == held.len() => {
            let pairs = expected.iter().zip(held).enumerate();
            pairs
                .into_iter()
                .find_map(|(index, (one, other))| difference(&format!("{at}/{index}"), one, other))
        }
        (expected, held) if expected == held => None,
        (expected, held) => Some(format!("{at}: Redis {expected}, client {held}")),
    }
}

#[test]
fn an_id_in_a_feeds_name_is_encoded_by_the_rule() {
    assert_eq!(part("a.b/ü@x-_~"), "a%2Eb%2F%C3%BC@x-_~");
}

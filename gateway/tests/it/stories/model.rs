//! Random histories: whatever happens, clients end with what the shards hold.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gateway::{
    mirror::{Mirror, keeper::item_version},
    snapshot::attrs_json,
};
use serde_json::{Value, json};
use shard_router::feed::{FeedType, Kind};

use super::{
    client::TestClient,
    gateway::{BOARD, TestGateway, User, World, user},
    tree::{Collection, Model},
};

const SEEDS: u64 = 12;
const AT_ONCE: usize = 12;
const STEPS: usize = 150;
const TEAMS: [&str; 3] = ["red", "blue", "green"];
const USERS: [&str; 4] = ["ann", "bob", "cleo", "dai"];
const MEMBERS: [&str; 3] = ["m1", "m2", "m.3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_clients_end_with_what_the_shards_hold() {
    let number = |name| std::env::var(name).map(|text| text.parse().expect(name)).ok();
    let seeds: Vec<u64> = match number("STORY_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("STORY_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    // Histories wait most of their time, so some are lived side by side.
    for some in seeds.chunks(AT_ONCE) {
        let lives = tokio::task::LocalSet::new();
        let all = lives.run_until(async {
            let lived = |seed: &u64| (*seed, tokio::task::spawn_local(live(*seed)));
            let histories: Vec<_> = some.iter().map(lived).collect();
            for (seed, history) in histories {
                history.await.unwrap_or_else(|error| panic!("STORY_SEED={seed} fails: {error}"));
            }
        });
        all.await;
    }
}

/// SplitMix64: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % sides as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

struct History {
    dice: Dice,
    world: World,
    gateways: Vec<TestGateway>,
    clients: Vec<TestClient>,
    /// Which teams each user is in now.
    teams: HashMap<String, BTreeSet<String>>,
    /// Notices of writers that announce after they write, in no order.
    late: Vec<(usize, [String; 3])>,
    count: usize,
}

async fn live(seed: u64) {
    let world = World::new(BOARD, 3);
    let gateways = vec![world.gateway().await, world.gateway().await];
    for gateway in &gateways {
        gateway.heard().await;
    }
    let mut history = History {
        dice: Dice(seed),
        world,
        gateways,
        clients: Vec::new(),
        teams: HashMap::new(),
        late: Vec::new(),
        count: 0,
    };
    for _ in 0..STEPS {
        history.step().await;
        if history.dice.roll(3) == 0 {
            let pause = history.dice.roll(4) as u64;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        history.clients.iter_mut().for_each(TestClient::drain);
    }
    history.end(seed).await;
}

impl History {
    async fn step(&mut self) {
        self.count += 1;
        let team = self.dice.pick(&TEAMS);
        let member = self.dice.pick(&MEMBERS);
        let members = format!("team.{team}.members");
        let tasks = format!("{members}.{}.tasks", member.replace('.', "%2E"));
        let flat = [format!("team.{team}.chat"), "public.news".to_owned()];
        let flat = flat[self.dice.roll(2)].clone();
        let item = format!(r#"{{"own":{}}}"#, self.count);
        let feeds = self.gateways[0].feeds.clone();
        match self.dice.roll(27) {
            0..=3 => drop(feeds.publish(&members, Some(member), item).await),
            4 => drop(feeds.retract(&members, member).await),
            5..=7 => self.change_tasks(&tasks, item).await,
            8 | 9 => {
                let id = self.dice.roll(6).to_string();
                drop(feeds.publish(&flat, Some(&id), item).await);
            }
            10 => drop(feeds.retract(&flat, &self.dice.roll(6).to_string()).await),
            11 => drop(feeds.publish("teams", Some(team), item).await),
            12 => {
                let user = self.dice.pick(&USERS);
                drop(feeds.publish(&format!("user.{user}.notes"), Some("1"), item).await);
            }
            13 => self.write_late(&members, member, &item),
            14 => self.append_late(&tasks, &item),
            15 => self.retract_late(&members, member),
            16 => self.announce_some(),
            17 => self.change_teams().await,
            18..=20 => self.join().await,
            21 => {
                if self.clients.len() > 3 {
                    let at = self.dice.roll(self.clients.len());
                    self.clients.swap_remove(at).leave();
                }
            }
            22 => self.subscribe(&flat),
            23..=25 => self.come_back(),
            _ => {
                let shard = &self.world.shards[self.dice.roll(3)];
                match self.dice.roll(3) {
                    0 => shard.drop_connections(),
                    1 => shard.lag(Duration::from_millis(self.dice.roll(15) as u64)),
                    _ => {
                        let feed = if self.dice.roll(2) == 0 { &tasks } else { &flat };
                        drop(feeds.delete_feed(feed).await);
                    }
                }
            }
        }
    }

    async fn change_tasks(&mut self, tasks: &str, item: String) {
        let feeds = self.gateways[1].feeds.clone();
        let ids = feeds.ids(tasks).await.unwrap();
        if ids.is_empty() {
            drop(feeds.create_feed(tasks, FeedType::SortedFeed, None).await);
        }
        if ids.len() < 3 {
            return drop(feeds.prepend(tasks, item).await);
        }
        let (one, other) = (&ids[self.dice.roll(ids.len())], &ids[self.dice.roll(ids.len())]);
        match self.dice.roll(6) {
            0 => drop(feeds.append(tasks, item).await),
            1 => drop(feeds.publish_before(tasks, one, item).await),
            2 => drop(feeds.edit(tasks, one, item).await),
            3 => drop(feeds.retract(tasks, one).await),
            4 => drop(feeds.position(tasks, one, &format!(":{other}").parse().unwrap()).await),
            _ => drop(feeds.position(tasks, one, &format!("{other}:").parse().unwrap()).await),
        }
    }

    fn raw(&self, feed: &str, command: &[&str]) {
        self.world.shard_of(feed).raw(command).unwrap();
    }

    fn announce(&mut self, feed: &str, verb: &str, payload: String) {
        let shard = self.world.config.shards.owner(feed);
        let command = ["PUBLISH".to_owned(), format!("feed.{verb}:{feed}"), payload];
        self.late.push((shard, command));
    }

    fn write_late(&mut self, feed: &str, id: &str, item: &str) {
        let score = (2_000_000_000 + self.count).to_string();
        self.raw(feed, &["HSET", &format!("feed.items:{feed}"), id, item]);
        self.raw(feed, &["ZADD", &format!("feed.ids:{feed}"), &score, id]);
        let verb = if self.dice.roll(2) == 0 { "publish" } else { "edit" };
        // Some writers die before they say it, but then nobody can hear of it in time.
        self.announce(feed, verb, format!("{id}\0{item}"));
    }

    fn append_late(&mut self, feed: &str, item: &str) {
        let id = format!("late{}", self.count);
        let shard = self.world.shard_of(feed);
        // A feed of this name may be gone; a stock writer makes it as it goes.
        self.raw(feed, &["HSET", &format!("feed.config:{feed}"), "type", "sorted_feed"]);
        shard.raw(&["SADD", "feeds", feed]).unwrap();
        self.raw(feed, &["RPUSH", &format!("feed.ids:{feed}"), &id]);
        self.raw(feed, &["HSET", &format!("feed.items:{feed}"), &id, item]);
        self.announce(feed, "publish", format!("{id}\0{item}"));
        self.announce(feed, "position", format!("{id}\0:end"));
    }

    fn retract_late(&mut self, feed: &str, id: &str) {
        self.raw(feed, &["ZREM", &format!("feed.ids:{feed}"), id]);
        self.raw(feed, &["HDEL", &format!("feed.items:{feed}"), id]);
        self.announce(feed, "retract", id.to_owned());
    }

    fn announce_some(&mut self) {
        while !self.late.is_empty() && self.dice.roll(4) > 0 {
            let at = self.dice.roll(self.late.len());
            let (shard, command) = self.late.swap_remove(at);
            self.world.shards[shard].raw(&command).unwrap();
        }
    }

    fn some_teams(&mut self) -> BTreeSet<String> {
        TEAMS.iter().filter(|_| self.dice.roll(2) == 0).map(|team| (*team).to_owned()).collect()
    }

    /// Changes a user's teams in all of its sessions.
    async fn change_teams(&mut self) {
        let name = self.dice.pick(&USERS);
        let teams = self.some_teams();
        self.teams.insert(name.to_owned(), teams.clone());
        let teams: Vec<_> = teams.iter().map(String::as_str).collect();
        for client in self.clients.iter().filter(|client| client.user.name == name) {
            self.world.sessions.put(&client.user.session, name, &teams);
        }
        let message = json!({ "op": "refresh", "user": name });
        self.gateways[0].control(self.dice.roll(3), message).await;
    }

    async fn join(&mut self) {
        if self.clients.len() >= 8 {
            return;
        }
        let name = self.dice.pick(&USERS);
        let teams = match self.teams.get(name) {
            Some(teams) => teams.clone(),
            None => self.some_teams(),
        };
        self.teams.insert(name.to_owned(), teams.clone());
        let user = User {
            teams: teams.into_iter().collect(),
            ..user(name).in_session(&format!("session {}", self.count))
        };
        let client = self.gateways[self.dice.roll(2)].join(user);
        self.clients.push(client);
    }

    /// Lets a client return to either gateway, with what it held.
    fn come_back(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.dice.roll(self.clients.len());
        let mut client = self.clients.swap_remove(at);
        client.user.teams = self.teams[&client.user.name].iter().cloned().collect();
        let (client, _) = client.returns(&self.gateways[self.dice.roll(2)]);
        self.clients.push(client);
    }

    fn subscribe(&mut self, feed: &str) {
        if let Some(count) = self.clients.len().checked_sub(1) {
            let at = self.dice.roll(count + 1);
            self.clients[at].ask("subscribe", json!({ "feed": feed }));
        }
    }

    async fn end(mut self, seed: u64) {
        for shard in &self.world.shards {
            shard.lag(Duration::ZERO);
        }
        for (shard, command) in std::mem::take(&mut self.late) {
            self.world.shards[shard].raw(&command).unwrap();
        }
        let until = Instant::now() + Duration::from_secs(20);
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            for round in 0.. {
                client.drain();
                // A message can be lost with the connections; in life `recheck` makes up for it.
                if round % 10 == 0 {
                    let message = json!({ "op": "refresh", "user": client.user.name });
                    self.gateways[0].control(0, message).await;
                }
                let Err(difference) = self.compare(client).await else { break };
                let name = &client.user.name;
                assert!(Instant::now() < until, "STORY_SEED={seed}: {name}: {difference}");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            let faults = &client.tree.faults;
            assert!(faults.is_empty(), "STORY_SEED={seed}: {}: {faults:?}", client.user.name);
            check_rights(seed, client);
        }
    }

    async fn compare(&self, client: &TestClient) -> Result<(), String> {
        let tree = &client.tree;
        let name = client.user.name.as_str();
        let teams = &self.teams[name];
        let held: BTreeSet<_> = tree.teams.ids().into_iter().map(str::to_owned).collect();
        same("teams", &held, teams)?;
        let me = tree.me.as_ref().ok_or("no user yet")?;
        self.check_feed(me.nested("notes"), &format!("user.{name}.notes"), |_, _| Ok(())).await?;
        for model in &tree.teams.models {
            let item = self.gateways[0].feeds.item("teams", &model.id).await.unwrap();
            let v = item_version(&model.id, item.as_ref()).to_string();
            let item = item.unwrap_or_else(|| Bytes::from_static(b"{}"));
            same("attrs", model.attrs.get(), attrs_json(&model.id, &item).as_str())?;
            same("v", model.v.as_deref(), Some(v.as_str()))?;
            let members = format!("team.{}.members", model.id);
            let collection = model.collections.get("members").ok_or("no members yet")?;
            let mut tasks = Vec::new();
            self.check_feed(collection, &members, |model, id| {
                let feed = format!("{members}.{}.tasks", id.replace('.', "%2E"));
                let nested = model.collections.get("tasks").ok_or(format!("no {feed} yet"))?;
                tasks.push((feed, nested.clone()));
                Ok(())
            })
            .await?;
            for (feed, collection) in tasks {
                self.check_feed(&collection, &feed, |_, _| Ok(())).await?;
            }
        }
        for (feed, collection) in &tree.flat {
            self.check_feed(collection, feed, |_, _| Ok(())).await?;
        }
        Ok(())
    }

    async fn check_feed(
        &self,
        held: &Collection,
        feed: &str,
        mut nested: impl FnMut(&Model, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        let content = self.gateways[0].feeds.all(feed).await.unwrap();
        same("feed", held.id.as_str(), feed)?;
        let mirror = Mirror::new(&content);
        let order = |mut items: Vec<(String, String)>| {
            if content.kind != Kind::Sorted {
                items.sort();
            }
            items
        };
        let here = order(
            held.models.iter().map(|model| (model.id.clone(), model.attrs.get().into())).collect(),
        );
        let there = mirror.iter().map(|(id, item)| (id.to_owned(), attrs_json(id, item))).collect();
        same(feed, &here, &order(there))?;
        same(feed, held.v.as_deref(), Some(mirror.version().to_string().as_str()))?;
        held.models.iter().try_for_each(|model| nested(model, &model.id))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, here: T, there: T) -> Result<(), String> {
    if here == there { Ok(()) } else { Err(format!("{what}: {here:?} and not {there:?}")) }
}

/// Nothing of a team is ever heard by who is not in it at that point of the stream.
fn check_rights(seed: u64, client: &TestClient) {
    let mut teams: BTreeSet<String> = BTreeSet::new();
    // A right to subscribe comes with the session, perhaps before the team is in the tree.
    let mut subscribed: BTreeSet<String> = BTreeSet::new();
    for got in &client.log {
        let json = got.json();
        let id = json["id"].as_str().map(str::to_owned);
        match (got.name.as_str(), json["feed"].as_str()) {
            ("initial", _) => {
                teams.clear();
                subscribed.clear();
                let models = json["collections"]["teams"]["models"].as_array().unwrap();
                teams.extend(models.iter().map(|team| team["id"].as_str().unwrap().to_owned()));
            }
            ("publish", Some("teams")) => drop(teams.insert(id.unwrap())),
            ("retract", Some("teams")) => {
                let team = id.unwrap();
                let chat = format!("team.{team}.chat");
                assert!(
                    !subscribed.contains(&chat),
                    "STORY_SEED={seed}: {chat} outlives its right"
                );
                teams.remove(&team);
            }
            ("subscribed", _) => {
                subscribed.insert(json["collection"]["id"].as_str().unwrap().to_owned());
            }
            ("reset", Some(feed)) if json["collection"].is_null() => {
                let is_of_the_tree = feed.ends_with("members") || feed.ends_with("tasks");
                let ended = subscribed.remove(feed) || is_of_the_tree;
                assert!(ended, "STORY_SEED={seed}: {feed} ends twice");
            }
            (_, Some("teams")) => assert!(teams.contains(&id.unwrap()), "STORY_SEED={seed}"),
            (_, Some(feed)) => {
                let mut parts = feed.split('.');
                let whose = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
                let may = match whose {
                    ("team", _, Some("chat")) | ("public", _, _) => subscribed.contains(feed),
                    ("team", team, _) => teams.contains(team),
                    ("user", user, _) => user == client.user.name,
                    _ => false,
                };
                let text: Value = json.clone();
                assert!(may, "STORY_SEED={seed}: {} heard {text}", client.user.name);
            }
            (_, None) => {}
        }
    }
}

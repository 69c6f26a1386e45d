//! A literal client: it does what the events say and nothing else.

use std::collections::BTreeMap;

use gateway::snapshot::attrs_json;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use sha1::{Digest, Sha1};

/// What a client holds.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub user: String,
    /// `models.user`, which answers to this feed.
    pub me: Option<Model>,
    pub teams: Collection,
    /// What was subscribed to by name.
    pub flat: BTreeMap<String, Collection>,
    /// What must not happen to a client whose gateway is right.
    pub faults: Vec<String>,
    /// How many events told no version, as happens to slow clients.
    pub nulls: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Collection {
    pub id: String,
    #[serde(default)]
    pub v: Option<String>,
    pub models: Vec<Model>,
    #[serde(default)]
    pub unavailable: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Model {
    pub id: String,
    #[serde(default)]
    pub v: Option<String>,
    pub attrs: Box<RawValue>,
    #[serde(default)]
    pub collections: BTreeMap<String, Collection>,
}

#[derive(Deserialize)]
struct Initial {
    attrs: Value,
    models: BTreeMap<String, Model>,
    collections: BTreeMap<String, Collection>,
}

/// An event about one item.
#[derive(Debug, Deserialize)]
struct Event {
    feed: String,
    id: String,
    item: Option<Box<RawValue>>,
    position: Option<String>,
    v: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Reset {
    feed: String,
    parent: Option<Parent>,
    name: Option<String>,
    collection: Option<Collection>,
}

#[derive(Debug, Deserialize)]
struct Parent {
    feed: String,
    id: String,
}

/// The feed to which `models.user` answers in these stories.
const ME: &str = "user";

impl Tree {
    /// Does what an event says.
    pub fn apply(&mut self, name: &str, json: &str) {
        match name {
            "initial" => self.initial(json),
            "reset" => self.reset(serde_json::from_str(json).expect(json)),
            "publish" | "change" | "retract" | "position" => {
                self.event(name, serde_json::from_str(json).expect(json));
            }
            _ => {}
        }
    }

    fn initial(&mut self, json: &str) {
        let mut initial: Initial = serde_json::from_str(json).expect(json);
        self.user = initial.attrs["id"].as_str().unwrap().to_owned();
        self.me = initial.models.remove("user");
        self.teams = initial.collections.remove("teams").unwrap();
        self.flat.clear();
    }

    /// Takes the collection in that answers a subscription.
    pub fn subscribed(&mut self, collection: &str) {
        let collection: Collection = serde_json::from_str(collection).expect(collection);
        self.flat.insert(collection.id.clone(), collection);
    }

    /// Visits every place at which a feed hangs.
    fn each(&mut self, feed: &str, visit: &mut dyn FnMut(&mut Collection)) {
        fn below(model: &mut Model, feed: &str, visit: &mut dyn FnMut(&mut Collection)) {
            model.collections.values_mut().for_each(|nested| at(nested, feed, visit));
        }
        fn at(collection: &mut Collection, feed: &str, visit: &mut dyn FnMut(&mut Collection)) {
            if collection.id == feed {
                visit(collection);
            }
            collection.models.iter_mut().for_each(|model| below(model, feed, visit));
        }
        at(&mut self.teams, feed, visit);
        self.me.iter_mut().for_each(|me| below(me, feed, visit));
        self.flat.values_mut().for_each(|flat| at(flat, feed, visit));
    }

    /// Returns what is held of a feed, at the first place.
    pub fn feed(&mut self, feed: &str) -> Option<Collection> {
        let mut found = None;
        self.each(feed, &mut |collection| {
            found.get_or_insert_with(|| collection.clone());
        });
        found
    }

    fn reset(&mut self, reset: Reset) {
        let Some(Parent { feed, id }) = reset.parent else {
            match reset.collection {
                // It answers a subscription that is still there.
                Some(collection) => drop(self.flat.insert(reset.feed, collection)),
                None => self.forget(&reset.feed),
            }
            return;
        };
        let name = reset.name.expect("what has a parent has a name");
        let place = |model: &mut Model| match &reset.collection {
            Some(collection) => drop(model.collections.insert(name.clone(), collection.clone())),
            None => drop(model.collections.remove(&name)),
        };
        if feed == ME
            && let Some(me) = self.me.as_mut().filter(|me| me.id == id)
        {
            place(me);
        }
        self.each(&feed, &mut |collection| {
            collection.models.iter_mut().filter(|model| model.id == id).for_each(place);
        });
    }

    /// Drops a feed wherever it is held.
    fn forget(&mut self, feed: &str) {
        fn below(model: &mut Model, feed: &str) {
            model.collections.retain(|_, nested| nested.id != feed);
            let nested = model.collections.values_mut();
            nested.flat_map(|nested| &mut nested.models).for_each(|model| below(model, feed));
        }
        self.flat.remove(feed);
        let models = self.teams.models.iter_mut().chain(&mut self.me);
        models.for_each(|model| below(model, feed));
    }

    /// Returns what a client that returns says it holds.
    pub fn claims(&self) -> Value {
        fn lone<'a>(models: impl IntoIterator<Item = &'a Model>) -> Value {
            models.into_iter().map(|model| (model.id.clone(), json!(model.v))).collect()
        }
        fn below(model: &Model, feeds: &mut serde_json::Map<String, Value>) {
            for nested in model.collections.values() {
                feeds.insert(nested.id.clone(), json!(nested.v));
                nested.models.iter().for_each(|model| below(model, feeds));
            }
        }
        let mut feeds = serde_json::Map::new();
        let models = self.teams.models.iter().chain(&self.me);
        models.for_each(|model| below(model, &mut feeds));
        feeds.extend(self.flat.values().map(|flat| (flat.id.clone(), json!(flat.v))));
        if !self.user.is_empty() {
            feeds.insert(self.teams.id.clone(), lone(&self.teams.models));
            feeds.insert(
                ME.to_owned(),
                json!({ &self.user: self.me.as_ref().and_then(|me| me.v.clone()) }),
            );
        }
        json!({ "feeds": feeds })
    }

    fn event(&mut self, name: &str, event: Event) {
        let Event { feed, id, item, position, v } = event;
        let is_team = self.teams.id == feed;
        let attrs = |item: &Option<Box<RawValue>>| {
            let item = item.as_ref().expect("the event has an item").get();
            RawValue::from_string(attrs_json(&id, item.as_bytes())).unwrap()
        };
        self.nulls += usize::from(v.is_none());
        let (mut faults, mut places) = (Vec::new(), 0);
        self.each(&feed, &mut |collection| {
            places += 1;
            let held = collection.models.iter().position(|model| model.id == id);
            match name {
                "publish" => {
                    if held.is_some() {
                        faults.push("what is held is published");
                    }
                    if let Some(held) = held {
                        collection.models.remove(held);
                    }
                    let at = place(collection, position.as_deref(), &mut faults);
                    let model = Model {
                        id: id.clone(),
                        v: None,
                        attrs: attrs(&item),
                        collections: BTreeMap::new(),
                    };
                    collection.models.insert(at, model);
                }
                "change" => match held {
                    Some(held) => {
                        let (model, attrs) = (&mut collection.models[held], attrs(&item));
                        if model.attrs.get() == attrs.get() {
                            faults.push("a change changes nothing");
                        }
                        model.attrs = attrs;
                    }
                    None => faults.push("what is not held is changed"),
                },
                "retract" => match held {
                    Some(held) => drop(collection.models.remove(held)),
                    None => faults.push("what is not held is retracted"),
                },
                _ => match held {
                    Some(held) => {
                        let model = collection.models.remove(held);
                        let at = place(collection, position.as_deref(), &mut faults);
                        if at == held {
                            faults.push("what stays is moved");
                        }
                        collection.models.insert(at, model);
                    }
                    None => faults.push("what is not held is moved"),
                },
            }
            // A lone item has a version of its own.
            if is_team {
                collection.models.iter_mut().filter(|model| model.id == id).for_each(|model| {
                    model.v = v.clone();
                });
            } else {
                let had_version = collection.v.is_some();
                collection.v = v.clone();
                if v.is_none() && had_version {
                    faults.push("the version is lost");
                } else if !collection.is_version_of_content() {
                    faults.push("the version is not that of what is held");
                }
            }
        });
        // A feed that is not held is ignored, one at several places may be behind at one.
        if places == 1 && !is_team {
            self.faults
                .extend(faults.iter().map(|fault| format!("{fault}: {name} of {id} in {feed}")));
        }
    }
}

fn place(collection: &Collection, position: Option<&str>, faults: &mut Vec<&str>) -> usize {
    let end = collection.models.len();
    let Some(position) = position else { return end };
    if position == "begin:" {
        return 0;
    }
    if position == ":end" {
        return end;
    }
    let find = |id: &str| collection.models.iter().position(|model| model.id == id);
    let at = match position.strip_prefix(':') {
        Some(next) => find(next),
        None => find(position.strip_suffix(':').expect("a position has a colon")).map(|at| at + 1),
    };
    match at {
        Some(at) => at,
        None => {
            faults.push("a position names what is not held");
            end
        }
    }
}

impl Collection {
    pub fn ids(&self) -> Vec<&str> {
        self.models.iter().map(|model| model.id.as_str()).collect()
    }

    pub fn model(&self, id: &str) -> &Model {
        let found = self.models.iter().find(|model| model.id == id);
        found.unwrap_or_else(|| panic!("{} holds {:?} and not {id}", self.id, self.ids()))
    }

    /// Recomputes the version from the words of the design alone.
    ///
    /// Only feeds whose items all begin with `{"own":` are judged: what a snapshot shows of
    /// others does not tell whether an `id` in it was in the item.
    fn is_version_of_content(&self) -> bool {
        let item = |model: &Model| {
            let own = model.attrs.get().find(r#""own":"#)?;
            let id = serde_json::to_string(&model.id).unwrap();
            (model.attrs.get()[..own] == format!(r#"{{"id":{id},"#))
                .then(|| format!("{{{}", &model.attrs.get()[own..]))
        };
        let Some(items) = self.models.iter().map(item).collect::<Option<Vec<_>>>() else {
            return true;
        };
        let version = |is_sorted: bool| {
            let (mut sums, mut before) = ([0_u32; 3], "");
            for (Model { id, .. }, item) in self.models.iter().zip(&items) {
                let digest = Sha1::digest(format!("{before}\0{id}\0{item}"));
                for (sum, word) in sums.iter_mut().zip(digest.chunks(4)) {
                    *sum = sum.wrapping_add(u32::from_be_bytes(word.try_into().unwrap()));
                }
                if is_sorted {
                    before = id;
                }
            }
            sums.map(|sum| format!("{sum:08x}")).concat()
        };
        // What is passed through has no version.
        self.v.as_deref().is_none_or(|v| v == version(true) || v == version(false))
    }
}

impl Model {
    /// Returns the attributes.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.attrs.get()).unwrap()
    }

    pub fn nested(&self, name: &str) -> &Collection {
        &self.collections[name]
    }
}

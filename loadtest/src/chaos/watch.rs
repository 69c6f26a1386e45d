//! One client's account: what it holds, and what of what came should not have come.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Stage,
    rights::About,
    truth::{Truth, Wanted},
    world::TEAMS,
};
use crate::tree::{Effect, Tree};

/// For so long after a client reads again it may hear what waited for it.
const DRAINED: Duration = Duration::from_secs(3);

/// The account of one client; clones share it.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    name: String,
    user: String,
    /// What it subscribes to whenever it has its state anew.
    wanted: Vec<String>,
    stage: Arc<Stage>,
    tree: Tree,
    counts: Counts,
    /// When it got its state, since the last connect.
    caught_up: Option<Instant>,
    /// Whether it is connected and has not got its state yet.
    catching_up: bool,
    /// The teams that a `retract` took from this connection.
    left: HashSet<String>,
    /// Whether the last event left the tree as it was.
    was_repeat: bool,
    /// Since when it did not read, and when it began to again, if it does.
    pause: Option<(Instant, Option<Instant>)>,
}

/// What a client has heard.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Events by name.
    pub events: BTreeMap<String, u64>,
    /// Those that left the tree as it was, by name.
    pub twice: BTreeMap<String, u64>,
    /// Those about something that is not held, by name.
    pub stray: BTreeMap<String, u64>,
    /// Those that its user may not see.
    pub forbidden: u64,
    /// The first of these.
    pub first_forbidden: Option<String>,
    /// What could not be applied.
    pub broken: Vec<String>,
    /// What a library told its page, and how much of it was no change.
    pub told: BTreeMap<String, u64>,
    /// Answers to `resume` by kind.
    pub resumes: BTreeMap<String, u64>,
    /// Bytes of `initial`s, `reset`s, and of what came before the answer to a `resume`.
    pub recovery: u64,
    /// Bytes of all events.
    pub bytes: u64,
}

/// As much of an event as tells whom it is about.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    feed: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parent: Option<Parent<'a>>,
    #[serde(borrow, default)]
    collection: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Parent<'a> {
    #[serde(borrow)]
    feed: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    code: u16,
    #[serde(borrow, default)]
    collection: Option<&'a RawValue>,
    #[serde(default)]
    resumed: u64,
    #[serde(default)]
    reset: u64,
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    feed: Cow<'a, str>,
}

impl Watch {
    /// Begins the account of a client of this user, who subscribes to what is `wanted`.
    #[must_use]
    pub fn new(name: String, user: &str, wanted: &[String], stage: Arc<Stage>) -> Self {
        Self(Arc::new(Mutex::new(State {
            name,
            user: user.to_owned(),
            wanted: wanted.to_vec(),
            stage,
            tree: Tree::new(super::world::USERS),
            counts: Counts::default(),
            caught_up: None,
            catching_up: false,
            left: HashSet::new(),
            was_repeat: false,
            pause: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Notes that it is connected and will now get its state.
    pub fn connected(&self) {
        let mut state = self.state();
        state.catching_up = true;
        state.caught_up = None;
    }

    /// Notes that it is not connected.
    pub fn lost(&self) {
        let mut state = self.state();
        state.catching_up = false;
        state.caught_up = None;
    }

    /// Notes that it does not read from now on.
    pub fn pauses(&self) {
        let mut state = self.state();
        // Of pauses that overlap the first counts.
        let began = state.pause.filter(|(_, end)| end.is_none_or(|end| end.elapsed() < DRAINED));
        state.pause = Some((began.map_or_else(Instant::now, |(began, _)| began), None));
    }

    /// Notes that it reads again.
    pub fn reads(&self) {
        if let Some((_, end)) = &mut self.state().pause {
            *end = Some(Instant::now());
        }
    }

    /// Returns the argument of its `resume`.
    #[must_use]
    pub fn resume(&self, bound: usize) -> String {
        self.state().tree.resume(bound)
    }

    /// Takes an event in; tells whether it was an `initial`, after which nothing is subscribed.
    pub fn event(&self, name: &str, argument: &str) -> bool {
        self.state().event(name, argument)
    }

    /// Notes that a library told its page of a change, by the last event.
    pub fn told(&self) {
        let mut state = self.state();
        let name = if state.was_repeat { "told of what was so" } else { "told" };
        raise(&mut state.counts.told, name);
    }

    /// Notes that a library that resumes by itself is in step.
    pub fn in_step(&self) {
        self.state().ready();
    }

    /// Takes the answer to a call in; tells whether it was granted.
    pub fn answer(&self, event: &str, argument: &str, answer: &str) -> bool {
        self.state().answer(event, argument, answer)
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.state().name.clone()
    }

    /// Returns its user.
    #[must_use]
    pub fn user(&self) -> String {
        self.state().user.clone()
    }

    /// Returns what it subscribes to.
    #[must_use]
    pub fn wanted(&self) -> Vec<String> {
        self.state().wanted.clone()
    }

    /// Tells since when it has its state; `None` while it is not connected or waits for it.
    #[must_use]
    pub fn caught_up(&self) -> Option<Instant> {
        self.state().caught_up
    }

    /// Tells the first place where it differs from what it should hold.
    #[must_use]
    pub fn difference(&self, truth: &Truth, teams: &HashSet<String>) -> Option<String> {
        let state = self.state();
        if state.caught_up.is_none() {
            return Some("it is not connected, or has not got its state".to_owned());
        }
        let is_subscribed =
            |feed: &String| state.tree.feed(feed).is_some_and(|held| held.subscribed);
        let missing = state.wanted.iter().find(|feed| !is_subscribed(feed));
        truth
            .difference(&state.tree, &Wanted { user: &state.user, teams })
            .or_else(|| Some(format!("{}: not subscribed", missing?)))
    }
}

impl State {
    fn event(&mut self, name: &str, argument: &str) -> bool {
        let is_initial = name == "initial";
        raise(&mut self.counts.events, name);
        self.counts.bytes += argument.len() as u64;
        if is_initial || name == "reset" || self.catching_up {
            self.counts.recovery += argument.len() as u64;
        }
        if !Tree::knows(name) {
            return false;
        }
        self.was_repeat = false;
        match self.tree.apply(name, argument) {
            Ok(effect) if effect.is_repeat() => {
                raise(&mut self.counts.twice, name);
                self.note("twice", name, argument);
                self.was_repeat = true;
            }
            // What a client names and does not see is answered by telling it to forget it.
            Ok(Effect::NoFeed) if name == "reset" && self.catching_up => {}
            Ok(Effect::NoFeed) => {
                raise(&mut self.counts.stray, name);
                self.note("not held", name, argument);
            }
            Ok(_) => {}
            Err(error) => {
                let text: String = argument.chars().take(200).collect();
                self.counts.broken.push(format!("{name}: {error}: {text}"));
            }
        }
        if is_initial {
            self.left.clear();
            self.ready();
            self.judge_all();
        } else {
            self.judge(name, argument);
        }
        is_initial
    }

    fn answer(&mut self, event: &str, argument: &str, answer: &str) -> bool {
        let Ok(Answer { code, collection, resumed, reset }) = serde_json::from_str(answer) else {
            self.counts.broken.push(format!("answer to {event}: {answer}"));
            return false;
        };
        match (event, code) {
            ("resume", 200) => {
                raise(&mut self.counts.resumes, "answered");
                *self.counts.resumes.entry("feeds resumed".to_owned()).or_default() += resumed;
                *self.counts.resumes.entry("feeds reset".to_owned()).or_default() += reset;
                self.ready();
            }
            ("resume", code) => raise(&mut self.counts.resumes, &format!("refused: {code}")),
            ("subscribe", 200) => {
                self.counts.bytes += answer.len() as u64;
                let held = collection.map(|collection| self.tree.subscribed(collection.get()));
                if let Some(Err(error)) = held {
                    self.counts.broken.push(format!("subscribe {argument}: {error}"));
                }
                if let Ok(Asked { feed }) = serde_json::from_str(argument) {
                    let about = self.stage.rights.about(&feed, None);
                    self.judge_about(&about, &|| format!("subscribe {feed}"));
                }
            }
            _ => {}
        }
        code == 200
    }

    /// Notes something odd, with as much of it as tells it apart.
    fn note(&self, what: &str, name: &str, argument: &str) {
        let begin: String = argument.chars().take(200).collect();
        let while_ = if self.catching_up { " while catching up" } else { "" };
        self.stage.journal.note(format!("{what}{while_}: {}: {name} {begin}", self.name));
    }

    fn ready(&mut self) {
        self.catching_up = false;
        self.caught_up = Some(Instant::now());
    }

    /// Looks at everything that an `initial` has brought.
    fn judge_all(&mut self) {
        self.judge_about(&About::All, &|| "initial".to_owned());
        let rights = &self.stage.rights;
        let teams = self.tree.teams().keys().map(|team| About::Team(team.to_string()));
        let feeds = self.tree.feeds().map(|(feed, _)| rights.about(feed, None));
        let abouts: Vec<About> = teams.chain(feeds).collect();
        for about in abouts {
            self.judge_about(&about, &|| format!("initial with {about:?}"));
        }
    }

    fn judge(&mut self, name: &str, argument: &str) {
        let Ok(peek) = serde_json::from_str::<Peek<'_>>(argument) else { return };
        let takes_away = match name {
            "reset" => peek.collection.is_none(),
            "retract" => peek.feed == TEAMS,
            _ => false,
        };
        if let Some(team) = peek.id.as_deref().filter(|_| peek.feed == TEAMS) {
            match name {
                "retract" => drop(self.left.insert(team.to_owned())),
                "publish" => drop(self.left.remove(team)),
                _ => {}
            }
        }
        if takes_away {
            return;
        }
        let text = || {
            let begin: String = argument.chars().take(160).collect();
            format!("{name} {begin}")
        };
        let about = self.stage.rights.about(&peek.feed, peek.id.as_deref());
        self.judge_about(&about, &text);
        if let Some(parent) = &peek.parent {
            let about = self.stage.rights.about(&parent.feed, Some(&parent.id));
            self.judge_about(&about, &text);
        }
    }

    fn judge_about(&mut self, about: &About, what: &dyn Fn() -> String) {
        let behind = match self.pause {
            Some((began, end)) if end.is_none_or(|end| end.elapsed() < DRAINED) => began.elapsed(),
            _ => Duration::ZERO,
        };
        let is_behind_retract = matches!(about, About::Team(team) if self.left.contains(team));
        let may = self.stage.rights.may_hear(&self.user, about, behind);
        if may && !is_behind_retract {
            return;
        }
        self.counts.forbidden += 1;
        let why = if is_behind_retract { "behind the team's retract" } else { "no right" };
        let line = format!("forbidden for {} ({}): {why}: {}", self.name, self.user, what());
        self.stage.journal.note(&line);
        self.counts.first_forbidden.get_or_insert(line);
    }
}

fn raise(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

//! The task of the live state: what it holds, and how one thing leads to another.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shard_router::{
    feed::{BadFeed, Checked},
    router::Router,
    shard::{Heard, ShardError},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    COMMANDS, Command, Listener, Settings,
    client::Client,
    hung::Hung,
    links::{Links, Voice},
    rounds::Rounds,
    shelf::Shelf,
    view::{Need, Owner, PlaceId, View},
    waiting::{Until, Waiting},
};
use crate::{
    hub::{
        ClientId, Hub, Room,
        frame::{About, Frame},
    },
    identity::{TeamId, UserId},
    metrics,
    mirror::{
        Change, Version,
        keeper::{Answer, Effect, Keeper, Out, item_version},
    },
    outbox::CloseReason,
    snapshot,
    tree::{Allow, Tree},
};

/// What was heard and waits for the task; behind it the shard's own buffer fills.
const HEARD: usize = 8_192;
/// How much of what waits is taken in before anything is sent on.
const BATCH: usize = 256;
const TICK: Duration = Duration::from_millis(100);

/// What a shard answered to an [`Effect`].
#[derive(Debug)]
enum Answered {
    Read {
        nonce: u64,
        answers: Result<Vec<Result<Answer, BadFeed>>, ShardError>,
    },
    Verified {
        shard: usize,
        nonce: u64,
        checked: Result<Vec<Result<Checked, BadFeed>>, ShardError>,
    },
    Marked {
        shard: usize,
        nonce: u64,
        sent: Result<(), ShardError>,
    },
}

pub(super) struct State {
    pub(super) keeper: Keeper,
    pub(super) hub: Hub,
    pub(super) tree: Arc<Tree>,
    pub(super) allow: Arc<Allow>,
    pub(super) router: Arc<Router>,
    pub(super) listener: Box<dyn Listener>,
    pub(super) tracker: TaskTracker,
    pub(super) links: Links,
    pub(super) heard: mpsc::Receiver<(usize, Heard)>,
    answers: mpsc::Sender<Answered>,
    answered: mpsc::Receiver<Answered>,
    pub(super) mark_channel: Bytes,
    pub(super) views: HashMap<Owner, Box<View>>,
    /// Where each feed hangs.
    pub(super) hung: Hung,
    /// What is encoded of views.
    pub(super) shelf: Shelf,
    /// Views that changed, with a `reset` that may be due.
    pub(super) open: HashSet<Owner>,
    /// Views to be looked at again when the patience with one of their feeds ends.
    pub(super) alarms: BTreeMap<(Instant, u64), Owner>,
    pub(super) clients: HashMap<ClientId, Box<Client>>,
    /// Who subscribed to a feed by its name and was told that it cannot be read; not in its room yet.
    pub(super) untold: HashMap<Arc<str>, Vec<ClientId>>,
    /// Feeds that those who subscribed by name get anew once all that happened is taken in.
    pub(super) anew: HashSet<Arc<str>>,
    pub(super) waiting: Waiting,
    /// The answers to subscriptions, one for all who ask until the feed changes.
    pub(super) acks: HashMap<Arc<str>, Frame>,
    pub(super) rounds: Rounds,
    /// Why whoever joins now is closed, once everybody was.
    pub(super) closing: Option<CloseReason>,
    next_alarm: u64,
}

impl State {
    pub(super) fn new(
        settings: Settings,
        router: Arc<Router>,
        listener: Box<dyn Listener>,
        tracker: TaskTracker,
    ) -> Self {
        let keeper = Keeper::new(settings.keeper.clone(), &settings.shards, Instant::now());
        let (mut links, heard) = Links::new(HEARD);
        for (index, shard) in router.shards() {
            links.open(index, &*shard, keeper.standing_channels());
        }
        let (answers, answered) = mpsc::channel(COMMANDS);
        Self {
            keeper,
            hub: Hub::default(),
            tree: settings.tree,
            allow: settings.allow,
            router,
            listener,
            tracker,
            links,
            heard,
            answers,
            answered,
            mark_channel: Bytes::from(settings.keeper.mark_channel),
            views: HashMap::new(),
            hung: Hung::default(),
            shelf: Shelf::default(),
            open: HashSet::new(),
            alarms: BTreeMap::new(),
            clients: HashMap::new(),
            untold: HashMap::new(),
            anew: HashSet::new(),
            waiting: Waiting::default(),
            acks: HashMap::new(),
            rounds: Rounds::new(settings.recheck, Instant::now()),
            closing: None,
            next_alarm: 0,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        drain: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut inbox_open = true;
        while inbox_open {
            let mut notices = None;
            tokio::select! {
                () = drain.cancelled() => break,
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => inbox_open = false,
                },
                Some((link, heard)) = self.heard.recv() => {
                    let now = Instant::now();
                    notices = Some(now);
                    self.hear(link, heard, now);
                    for _ in 0..BATCH {
                        let Ok((link, heard)) = self.heard.try_recv() else { break };
                        self.hear(link, heard, now);
                    }
                }
                Some(answered) = self.answered.recv() => self.answer(answered),
                _ = tick.tick() => {
                    let now = Instant::now();
                    self.keeper.tick(now);
                    self.ring(now);
                    self.go_round(now);
                    self.shelf.expire(now, &mut self.views);
                    for (shard, count) in self.keeper.subscriptions() {
                        metrics::shard_subscriptions(shard, count);
                    }
                }
            }
            self.settle();
            if let Some(since) = notices {
                metrics::fanout(since.elapsed());
            }
        }
        self.end(inbox);
    }

    /// Closes whoever is left, also those who have joined and were not looked at yet.
    fn end(mut self, mut inbox: mpsc::Receiver<Command>) {
        inbox.close();
        self.close_all(CloseReason::Draining);
        while let Ok(command) = inbox.try_recv() {
            if let Command::Join { outbox, .. } = command {
                outbox.close(CloseReason::Draining);
            }
        }
    }

    /// Hands on what a connection tells, unless it was let go since.
    fn hear(&mut self, link: usize, heard: Heard, now: Instant) {
        match self.links.voice(link) {
            Some(Voice::Shard(shard)) => self.keeper.heard(shard, heard, now),
            Some(Voice::Witness(shard)) => self.keeper.witnessed(shard, &heard),
            None => {}
        }
    }

    fn answer(&mut self, answered: Answered) {
        let now = Instant::now();
        match answered {
            Answered::Read { nonce, answers } => self.keeper.answered(nonce, answers, now),
            Answered::Verified { shard, nonce, checked } => {
                self.keeper.verified(shard, nonce, checked, now);
            }
            Answered::Marked { shard, nonce, sent } => self.keeper.probed(shard, nonce, sent, now),
        }
    }

    /// Tells clients what came of it, until nothing more does; then asks the shards.
    fn settle(&mut self) {
        loop {
            let outs = self.keeper.outs();
            if outs.is_empty() {
                break;
            }
            for out in outs {
                self.out(out);
            }
        }
        self.announce();
        self.tell_anew();
        self.serve_waiting();
        for effect in self.keeper.effects() {
            self.carry_out(effect);
        }
    }

    fn out(&mut self, out: Out) {
        let now = Instant::now();
        match out {
            Out::Filled(feed) => self.filled(&feed, now),
            Out::Event(feed, event) => self.event(&feed, &event.change, Some(event.v), now),
            Out::Passed(feed, change) => self.event(&feed, &change, None, now),
            Out::Emptied(feed) => self.emptied(&feed, now),
            Out::Reset(feed) => self.reset(&feed, now),
            Out::ItemFilled(feed, id) => self.item_filled(&feed, &id),
            Out::Item(feed, id) => self.item(&feed, &id),
            Out::Finished { queue, id, result } => self.listener.finished(&queue, &id, result),
            Out::Control(message) => self.listener.control(message),
            Out::Shard { shard, up } => self.listener.shard(shard, up),
            Out::Deaf(is_deaf) => self.listener.deaf(is_deaf),
        }
    }

    pub(super) fn places(&self, feed: &str) -> Vec<(Owner, PlaceId)> {
        self.hung.places(feed).to_vec()
    }

    /// Lists the rooms that hear a feed's events: its views where it is shown, and its subscribers.
    pub(super) fn audience(&self, feed: &Arc<str>) -> Vec<Room> {
        let mut rooms: Vec<Room> = Vec::new();
        for (owner, place) in self.hung.places(feed) {
            let room = owner.room();
            if self.views[owner].hears(*place) && !rooms.contains(&room) {
                rooms.push(room);
            }
        }
        if !self.anew.contains(feed) {
            rooms.push(Room::Feed(feed.clone()));
        }
        rooms
    }

    fn filled(&mut self, feed: &Arc<str>, now: Instant) {
        for (owner, place) in self.places(feed) {
            let mut needs = Vec::new();
            if let Some(view) = self.views.get_mut(&owner) {
                view.filled(place, &self.keeper, now, &mut needs);
            }
            self.open.insert(owner.clone());
            self.meet(&owner, needs, now);
            self.ready(&owner);
        }
        self.acks.remove(feed);
        self.waiting.happened(&Until::Filled(feed.clone()));
        if self.untold.contains_key(feed) {
            self.anew.insert(feed.clone());
        }
    }

    /// Wakes those who wait for a view, if it is whole now.
    fn ready(&mut self, owner: &Owner) {
        if self.views.get(owner).is_some_and(|view| view.is_ready()) {
            self.waiting.happened(&Until::Ready(owner.clone()));
        }
    }

    /// Does what time brings: ends the patience with feeds, and of clients that wait.
    fn ring(&mut self, now: Instant) {
        while let Some(alarm) = self.alarms.first_entry()
            && alarm.key().0 <= now
        {
            let owner = alarm.remove();
            if let Some(view) = self.views.get_mut(&owner) {
                view.alarm = None;
                self.open.insert(owner);
            }
        }
        self.waiting.expire(now);
    }

    fn event(&mut self, feed: &Arc<str>, change: &Change, v: Option<Version>, now: Instant) {
        self.acks.remove(feed);
        let audience = self.audience(feed);
        if audience.iter().any(|room| !self.hub.is_empty(room)) {
            let (name, frame) = event_frame(feed, change, v);
            metrics::events_delivered(name, self.hub.send(&audience, &frame));
        }
        for (owner, place) in self.places(feed) {
            let mut needs = Vec::new();
            let Some(view) = self.views.get_mut(&owner) else { continue };
            view.stale(place);
            match change {
                Change::Publish { id, .. } => view.published(place, id, now, &mut needs),
                Change::Retract { id } => view.retracted(place, id, &mut needs),
                Change::Change { .. } | Change::Position { .. } => {}
            }
            if view.is_open() {
                self.open.insert(owner.clone());
            }
            self.meet(&owner, needs, now);
            self.ready(&owner);
        }
    }

    fn reset(&mut self, feed: &Arc<str>, now: Instant) {
        self.acks.remove(feed);
        for (owner, place) in self.places(feed) {
            let mut needs = Vec::new();
            if let Some(view) = self.views.get_mut(&owner) {
                view.reset(place, &self.keeper, now, &mut needs);
            }
            self.open.insert(owner.clone());
            self.meet(&owner, needs, now);
            self.fetch(&owner, now);
            self.ready(&owner);
        }
        if !self.hub.is_empty(&Room::Feed(feed.clone())) {
            self.anew.insert(feed.clone());
        }
    }

    /// Sends feeds anew to those who subscribed to them by name.
    fn tell_anew(&mut self) {
        for feed in std::mem::take(&mut self.anew) {
            let room = Room::Feed(feed.clone());
            for id in self.untold.remove(&feed).unwrap_or_default() {
                if let Some(client) = self.clients.get(&id) {
                    self.hub.join(room.clone(), id, client.outbox.clone());
                }
            }
            let json = snapshot::reset_json(&feed, None, Some(&self.collection(&feed)));
            let delivered = self.hub.send(&[room], &Frame::snapshot("reset", json));
            metrics::events_delivered("reset", delivered);
        }
    }

    /// Takes in the attributes of a team or user; who was told others before is told now.
    fn item_filled(&mut self, feed: &str, id: &str) {
        let v = item_version(id, self.keeper.item(feed, id).flatten());
        let mut is_other = false;
        for owner in [Owner::Team(TeamId::new(id)), Owner::User(UserId::new(id))] {
            let view = self.views.get_mut(&owner);
            if let Some(view) = view.filter(|view| *view.attrs == *feed) {
                is_other |= view.attrs_filled(v);
                self.ready(&owner);
            }
        }
        if is_other {
            self.item(feed, id);
        }
    }

    /// Tells a room that its own team or user has other attributes.
    fn item(&mut self, feed: &str, id: &str) {
        let concerned: Vec<Owner> = [Owner::Team(TeamId::new(id)), Owner::User(UserId::new(id))]
            .into_iter()
            .filter(|owner| {
                self.views.get(owner).is_some_and(|view| view.shared && *view.attrs == *feed)
            })
            .collect();
        for owner in concerned {
            let Some(view) = self.views.get_mut(&owner) else { continue };
            view.stale_model();
            let (item, v) = view.attrs_item(&self.keeper);
            let frame = lone_change(feed, id, item, v);
            let delivered = self.hub.send(&[owner.room()], &frame);
            metrics::events_delivered("change", delivered);
        }
    }

    /// Mirrors what a view wants mirrored; what is there already fills it at once.
    pub(super) fn meet(&mut self, owner: &Owner, needs: Vec<Need>, now: Instant) {
        let mut open = needs;
        while !open.is_empty() {
            let mut more = Vec::new();
            for need in std::mem::take(&mut open) {
                match need {
                    Need::Hang(feed, place) => {
                        self.keeper.want(&feed, self.router.owner(&feed), now);
                        self.hung.hang(feed.clone(), owner.clone(), place);
                        if self.keeper.mirror(&feed).is_some()
                            && let Some(view) = self.views.get_mut(owner)
                        {
                            view.filled(place, &self.keeper, now, &mut more);
                        }
                    }
                    Need::Drop(feed, place) => {
                        self.keeper.unwant(&feed, now);
                        self.hung.drop(&feed, owner, place);
                    }
                }
            }
            open = more;
        }
    }

    /// Sends the resets that are due.
    pub(super) fn announce(&mut self) {
        let now = Instant::now();
        for owner in std::mem::take(&mut self.open) {
            let Some(view) = self.views.get_mut(&owner) else { continue };
            let room = owner.room();
            let resets = view.announce(&self.keeper, now, !self.hub.is_empty(&room));
            // What is still open waits for its feed, which wakes it, or for its patience to end.
            let alarm = view.patience_ends();
            self.shelf.put(&owner, &mut self.views, now);
            let Some(view) = self.views.get_mut(&owner) else { continue };
            if let Some(at) = alarm.filter(|at| view.alarm.is_none_or(|set| *at < set)) {
                view.alarm = Some(at);
                self.next_alarm += 1;
                self.alarms.insert((at, self.next_alarm), owner);
            }
            for frame in resets {
                let delivered = self.hub.send(std::slice::from_ref(&room), &frame);
                metrics::events_delivered("reset", delivered);
            }
        }
    }

    /// Returns a feed as a flat collection, as its subscribers see it.
    pub(super) fn collection(&self, feed: &str) -> String {
        match self.keeper.mirror(feed) {
            Some(mirror) => snapshot::collection_json(feed, mirror, self.keeper.version(feed)),
            None => snapshot::unavailable_json(feed),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let (router, answers, channel) =
            (self.router.clone(), self.answers.clone(), self.mark_channel.clone());
        match effect {
            Effect::Read { shard, feed, nonce } => {
                self.tracker.spawn(async move {
                    let read = router.read_on(shard, &feed, channel, nonce.to_string()).await;
                    let read = read.map(|content| vec![content.map(Answer::Full)]);
                    // Nobody waits any more when the live state has stopped.
                    let _ = answers.send(Answered::Read { nonce, answers: read }).await;
                });
            }
            Effect::Settle { shard, touched, nonce } => {
                self.tracker.spawn(async move {
                    let read = router.settle(shard, touched, channel, nonce.to_string()).await;
                    let each = |settled: Result<_, _>| settled.map(Answer::Settled);
                    let read = read.map(|settled| settled.into_iter().map(each).collect());
                    let _ = answers.send(Answered::Read { nonce, answers: read }).await;
                });
            }
            Effect::Verify { shard, feeds, nonce } => {
                self.tracker.spawn(async move {
                    let checked = router.verify(shard, &feeds, channel, nonce.to_string()).await;
                    let _ = answers.send(Answered::Verified { shard, nonce, checked }).await;
                });
            }
            Effect::Mark { shard, nonce } => {
                self.tracker.spawn(async move {
                    let sent = router.mark(shard, channel, nonce.to_string()).await;
                    let _ = answers.send(Answered::Marked { shard, nonce, sent }).await;
                });
            }
            Effect::Subscribe { shard, channels, ticket } => {
                self.links.subscribe(shard, channels, ticket);
            }
            Effect::Unsubscribe { shard, channels } => self.links.unsubscribe(shard, channels),
            Effect::Witness { shard } => {
                if let Some((_, known)) =
                    self.router.shards().into_iter().find(|(at, _)| *at == shard)
                {
                    self.links.witness(shard, &*known, channel);
                }
            }
            Effect::Dismiss { shard } => self.links.dismiss(shard),
            Effect::Reset { shard, reason } => self.links.reset(shard, reason),
        }
    }
}

/// Returns the event that tells one change of a feed, with its name.
///
/// Events of feeds are made here and nowhere else, so that every mailbox knows them.
pub(super) fn event_frame(
    feed: &Arc<str>,
    change: &Change,
    v: Option<Version>,
) -> (&'static str, Frame) {
    let (name, json) = snapshot::event_json(feed, change, v);
    let about = match change {
        Change::Change { id, .. } => About::Change { feed: feed.clone(), id: id.clone() },
        Change::Publish { .. } | Change::Retract { .. } | Change::Position { .. } => {
            About::Feed(feed.clone())
        }
    };
    (name, Frame::of_feed(about, name, json))
}

/// Returns the event that tells that a lone item, such as a team's attributes, is another.
pub(super) fn lone_change(feed: &str, id: &str, item: &[u8], v: Version) -> Frame {
    let about = About::Lone { feed: feed.into(), id: id.into() };
    Frame::of_feed(about, "change", snapshot::item_event_json(feed, id, item, v))
}

//! What the live state knows of each client, and how one comes, changes and goes.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    Attendant, Command, Inspected, Target,
    state::State,
    view::{Need, Owner, PATIENCE, TEAMS, View},
    waiting::{Pending, Until, What},
};
use crate::{
    hub::{ClientId, Room, frame::Frame},
    identity::{Identity, Session, SessionId, TeamId},
    metrics,
    mirror::keeper::item_version,
    outbox::{CloseReason, Outbox},
    protocol::{self, CallError},
    snapshot,
};

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) outbox: Outbox,
    session: SessionId,
    pub(super) identity: Identity,
    attendant: Arc<dyn Attendant>,
    /// Whether it has its state, and hears its rooms.
    pub(super) joined: bool,
    /// Teams whose rooms it hears.
    pub(super) teams: Arc<[TeamId]>,
    /// Feeds it hears by name.
    pub(super) subscribed: Vec<Arc<str>>,
}

impl State {
    pub(super) fn command(&mut self, command: Command) {
        // Whoever asked may be gone by the time of the answer.
        match command {
            Command::Join { client, session, outbox, attendant, resumes } => {
                if let Some(reason) = self.closing {
                    outbox.close(reason);
                }
                self.join(client, session, outbox, attendant);
                let now = Instant::now();
                self.rounds.add(client);
                match resumes {
                    true => self.rounds.expect_claims(client, now),
                    false => self.wait(client, What::Initial),
                }
            }
            Command::Resume { client, most, asked } => self.resume(client, asked, most),
            Command::Leave(client) => self.leave(client),
            Command::Identity { client, identity } => self.identity(client, identity),
            Command::Subscribe { client, feed, call } => self.subscribe(client, &feed, call),
            Command::Unsubscribe { client, feed, reply } => {
                let ended =
                    CallError::Conflict("it was unsubscribed before it was read".to_owned());
                let _ = reply.send(self.unsubscribe(client, &feed, ended));
            }
            Command::Sees { client, feed, reply } => {
                // A client that comes back says what it kept before its tree is there.
                self.wait(client, What::Sees { feed, reply });
            }
            Command::Close { target, reason, reply } => {
                let targets = self.targets(&target);
                let outboxes = targets.iter().filter_map(|id| Some(&self.clients.get(id)?.outbox));
                outboxes.for_each(|outbox| outbox.close(reason));
                let _ = reply.send(targets.len());
            }
            Command::Refresh { target, reply } => {
                let targets = self.targets(&target);
                let attendants = targets.iter().filter_map(|id| self.attendant(*id));
                attendants.for_each(|attendant| attendant.look(true));
                let _ = reply.send(targets.len());
            }
            Command::Emit { room, frame } => {
                let rooms = match &room {
                    Room::Feed(feed) => self.audience(feed),
                    _ => vec![room],
                };
                metrics::events_delivered("emit", self.hub.send(&rooms, &frame));
            }
            Command::Inspect { user, reply } => {
                let _ = reply.send(self.inspect(&user));
            }
            Command::Topology(topology) => self.topology(topology),
            Command::CloseAll(reason) => self.close_all(reason),
        }
    }

    /// Closes every client, and whoever joins from now on.
    pub(super) fn close_all(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        self.clients.values().for_each(|client| client.outbox.close(reason));
    }

    /// Has those looked at whose turn it is, and tells who is late.
    pub(super) fn go_round(&mut self, now: Instant) {
        let clients = &self.clients;
        for id in self.rounds.due(now, |id| clients.contains_key(&id)) {
            if let Some(attendant) = self.attendant(id) {
                attendant.look(false);
            }
        }
        for id in self.rounds.late(now) {
            if let Some(attendant) = self.attendant(id) {
                attendant.late();
            }
        }
    }

    fn attendant(&self, id: ClientId) -> Option<Arc<dyn Attendant>> {
        Some(self.clients.get(&id)?.attendant.clone())
    }

    fn join(
        &mut self,
        id: ClientId,
        session: Session,
        outbox: Outbox,
        attendant: Arc<dyn Attendant>,
    ) {
        let Session { id: session, identity } = session;
        self.acquire(&Owner::User(identity.user.clone()));
        for team in identity.teams.iter() {
            self.acquire(&Owner::Team(team.clone()));
        }
        owners(&identity).for_each(|owner| self.fetch(&owner, Instant::now()));
        let client = Client {
            outbox,
            session,
            identity,
            attendant,
            joined: false,
            teams: Arc::default(),
            subscribed: Vec::new(),
        };
        self.clients.insert(id, Box::new(client));
    }

    pub(super) fn wait(&mut self, client: ClientId, what: What) {
        self.waiting.add(client, what, Instant::now());
    }

    /// Has a view for one client more.
    fn acquire(&mut self, owner: &Owner) {
        let now = Instant::now();
        if !self.views.contains_key(owner) {
            let mut needs = Vec::new();
            let mut view = View::new(owner.clone(), self.tree.clone(), now, &mut needs);
            if view.shared {
                let (attrs, shard) = (view.attrs.clone(), self.router.owner(&view.attrs));
                self.keeper.want_item(&attrs, owner.id(), shard, now);
            }
            view.attrs_known = !view.shared || self.keeper.item(&view.attrs, owner.id()).is_some();
            self.views.insert(owner.clone(), Box::new(view));
            self.meet(owner, needs, now);
            self.open.insert(owner.clone());
        }
        self.views.get_mut(owner).expect("was made above").clients += 1;
    }

    /// Has a view for one client less; nobody's view is let go.
    fn release(&mut self, owner: &Owner) {
        let now = Instant::now();
        let Some(view) = self.views.get_mut(owner) else { return };
        view.clients -= 1;
        if view.clients > 0 {
            return;
        }
        let view = self.views.remove(owner).expect("is there");
        if view.shared {
            self.keeper.unwant_item(&view.attrs, owner.id(), now);
        }
        let mut needs: Vec<Need> = Vec::new();
        view.close(&mut needs);
        self.meet(owner, needs, now);
        self.open.remove(owner);
    }

    fn leave(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.waiting.drop_of(id, |_| true);
        self.hub.leave(&Room::User(client.identity.user.clone()), id);
        for team in client.teams.iter() {
            self.hub.leave(&Room::Team(team.clone()), id);
        }
        for feed in &client.subscribed {
            self.unhear(id, feed);
        }
        for team in client.identity.teams.iter() {
            self.release(&Owner::Team(team.clone()));
        }
        self.release(&Owner::User(client.identity.user));
    }

    /// Brings a client in line with another list of teams.
    fn identity(&mut self, id: ClientId, identity: Identity) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let before = std::mem::replace(&mut client.identity, identity.clone());
        let (outbox, joined) = (client.outbox.clone(), client.joined);
        // Before the teams go: nothing of a lost team follows its `retract`.
        self.end_rights(id);
        let gained: Vec<TeamId> =
            identity.teams.iter().filter(|team| !before.is_in(team.as_str())).cloned().collect();
        for team in before.teams.iter().filter(|team| !identity.is_in(team.as_str())) {
            let client = self.clients.get_mut(&id).expect("was there above");
            if client.teams.contains(team) {
                client.teams = client.teams.iter().filter(|own| *own != team).cloned().collect();
                self.hub.leave(&Room::Team(team.clone()), id);
                let attrs = self.views[&Owner::Team(team.clone())].attrs.clone();
                let gone = Frame::event("retract", snapshot::gone_json(&attrs, team.as_str()));
                metrics::events_delivered("retract", u64::from(outbox.offer(&gone).is_ok()));
            }
            self.waiting.drop_of(id, |what| matches!(what, What::Team(own) if own == team));
            self.release(&Owner::Team(team.clone()));
        }
        for team in gained {
            self.acquire(&Owner::Team(team.clone()));
            // A client without `initial` finds the team there.
            if joined {
                self.fetch(&Owner::Team(team.clone()), Instant::now());
                self.wait(id, What::Team(team));
            }
        }
    }

    /// Ends the subscriptions to which a client has no right any more.
    fn end_rights(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(&id) else { return };
        let lost: Vec<Arc<str>> = client
            .subscribed
            .iter()
            .filter(|feed| !self.allow.may(&client.identity, feed))
            .cloned()
            .collect();
        let outbox = client.outbox.clone();
        for feed in lost {
            let ended = CallError::Forbidden("you may not hear this feed".to_owned());
            let was_told = self.hub.contains(&Room::Feed(feed.clone()), id)
                || self.untold.get(&feed).is_some_and(|untold| untold.contains(&id));
            self.unsubscribe(id, &feed, ended);
            if !was_told {
                continue;
            }
            let gone = Frame::event("reset", snapshot::reset_json(&feed, None, None));
            metrics::events_delivered("reset", u64::from(outbox.offer(&gone).is_ok()));
        }
    }

    fn subscribe(&mut self, id: ClientId, feed: &Arc<str>, call: Option<u64>) {
        if self.clients.contains_key(&id) {
            self.want_by_name(id, feed);
            self.wait(id, What::Subscribe { feed: feed.clone(), call });
        }
    }

    /// Has a feed mirrored that a client asks for by its name.
    pub(super) fn want_by_name(&mut self, id: ClientId, feed: &Arc<str>) {
        let client = self.clients.get_mut(&id).expect("the caller looked");
        if !client.subscribed.contains(feed) {
            client.subscribed.push(feed.clone());
            self.keeper.want(feed, self.router.owner(feed), Instant::now());
        }
        self.keeper.fetch(feed, Instant::now());
    }

    /// Ends a subscription; calls that still wait for its feed are answered with `ended`.
    fn unsubscribe(&mut self, id: ClientId, feed: &Arc<str>, ended: CallError) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        let Some(at) = client.subscribed.iter().position(|own| own == feed) else { return false };
        client.subscribed.swap_remove(at);
        let outbox = client.outbox.clone();
        for pending in self.unhear(id, feed) {
            if let What::Subscribe { call: Some(call), .. } = pending.what {
                // A client that is gone wants no answer.
                let _ = outbox.ack(call, protocol::ack(&ended.to_json()));
            }
        }
        true
    }

    /// Lets a client not hear a feed by its name any more; returns what it still waited for.
    fn unhear(&mut self, id: ClientId, feed: &Arc<str>) -> Vec<Pending> {
        let room = Room::Feed(feed.clone());
        self.hub.leave(&room, id);
        if self.hub.is_empty(&room) {
            self.acks.remove(feed);
        }
        if let Some(untold) = self.untold.get_mut(feed) {
            untold.retain(|client| *client != id);
            if untold.is_empty() {
                self.untold.remove(feed);
            }
        }
        self.keeper.unwant(feed, Instant::now());
        let is_it = |what: &What| matches!(what, What::Subscribe { feed: own, .. } if own == feed);
        self.waiting.drop_of(id, is_it)
    }

    /// Tells what can be told to those who wait.
    pub(super) fn serve_waiting(&mut self) {
        let now = Instant::now();
        while let Some((number, pending)) = self.waiting.next_due() {
            let Some(client) = self.clients.get(&pending.client) else { continue };
            let is_patient = now < pending.since + PATIENCE;
            if let Some((until, may_pass)) = self.lacks(client, pending.client, &pending.what)
                && (is_patient || !may_pass)
            {
                self.waiting.put_back(number, pending, until);
                continue;
            }
            match pending.what {
                What::Initial => self.tell_initial(pending.client, pending.since),
                What::Resume(asked) => self.tell_resume(pending.client, asked, pending.since),
                What::Team(team) => self.tell_team(pending.client, &team),
                What::Subscribe { feed, call } => self.tell_feed(pending.client, &feed, call),
                What::Sees { feed, reply } => {
                    // Whoever asked may be gone.
                    let _ = reply.send(self.sees(pending.client, &feed));
                }
            }
        }
    }

    /// Returns what has to happen before a client can be told, and whether it is told
    /// without it when its patience ends.
    fn lacks(&self, client: &Client, id: ClientId, what: &What) -> Option<(Until, bool)> {
        let unready = |owner: &Owner| !self.views[owner].is_ready();
        let unready_view =
            || owners(&client.identity).find(unready).map(|owner| (Until::Ready(owner), true));
        let joined = || Some((Until::Joined(id), false)).filter(|_| !client.joined);
        match what {
            What::Initial => unready_view(),
            What::Resume(_) => unready_view().or_else(|| {
                let mut by_name = client.subscribed.iter();
                let unfilled = by_name.find(|feed| self.keeper.mirror(feed).is_none())?;
                Some((Until::Filled(unfilled.clone()), true))
            }),
            What::Team(team) => {
                let owner = Owner::Team(team.clone());
                unready(&owner).then_some((Until::Ready(owner), true))
            }
            What::Subscribe { feed, .. } => joined().or_else(|| {
                let is_unfilled = self.keeper.mirror(feed).is_none();
                is_unfilled.then(|| (Until::Filled(feed.clone()), true))
            }),
            What::Sees { .. } => joined(),
        }
    }

    /// Sends `initial` and lets the client hear its rooms, in one step.
    pub(super) fn tell_initial(&mut self, id: ClientId, since: Instant) {
        let identity = self.clients[&id].identity.clone();
        let frame = self.initial(&identity);
        let outbox = self.clients[&id].outbox.clone();
        if outbox.offer(&frame).is_ok() {
            metrics::events_delivered("initial", 1);
            metrics::snapshot(since.elapsed(), frame.snapshot_bytes());
        }
        self.enter(id, &identity);
    }

    /// Returns what a user is shown first, the same frame for all connections of the user that
    /// are on their way at a time.
    fn initial(&mut self, identity: &Identity) -> Frame {
        let revisions: Vec<u64> = owners(identity).map(|owner| self.told_in_full(&owner)).collect();
        let user = Owner::User(identity.user.clone());
        if let Some(frame) = self.views[&user].initial(&revisions) {
            return frame;
        }
        let own = self.tree.user.is_some().then(|| self.model(&user));
        let teams = identity.teams.iter().map(|team| self.model(&Owner::Team(team.clone())));
        let teams: Vec<Arc<str>> = teams.collect();
        let teams_feed =
            self.tree.team.as_ref().and_then(|branch| branch.attrs.as_deref()).unwrap_or(TEAMS);
        let bytes: usize = own.iter().chain(&teams).map(|model| model.len() + 1).sum();
        let frame = Frame::write_snapshot("initial", bytes + INITIAL, |out| {
            snapshot::write_initial(
                out,
                identity.user.as_str(),
                own.as_deref(),
                teams_feed,
                &teams,
            );
        });
        let view = self.views.get_mut(&user).expect("a client's views are there");
        view.remember_initial(revisions, &frame);
        for owner in owners(identity) {
            self.shelf.put(&owner, &mut self.views, Instant::now());
        }
        frame
    }

    /// Counts a view as told with the model at its top, and returns its revision.
    pub(super) fn told_in_full(&mut self, owner: &Owner) -> u64 {
        let revision = self.told(owner);
        let view = self.views.get_mut(owner).expect("a client's views are there");
        view.attrs_are_held(Some(item_version(owner.id(), None)));
        revision
    }

    /// Counts a view as told to somebody as it is, and returns its revision.
    pub(super) fn told(&mut self, owner: &Owner) -> u64 {
        let view = self.views.get_mut(owner).expect("a client's views are there");
        view.told_as_it_is(self.hub.is_empty(&owner.room()));
        if view.is_open() {
            self.open.insert(owner.clone());
        }
        let revision = view.revision();
        // What is shown as unavailable must be on its way.
        self.fetch(owner, Instant::now());
        revision
    }

    fn model(&mut self, owner: &Owner) -> Arc<str> {
        let view = self.views.get_mut(owner).expect("a client's views are there");
        view.model(&self.keeper)
    }

    /// Tells a client that it is in a team now: the team, then what hangs below it.
    fn tell_team(&mut self, id: ClientId, team: &TeamId) {
        let owner = Owner::Team(team.clone());
        self.told_in_full(&owner);
        let view = self.views.get_mut(&owner).expect("a client's views are there");
        let (item, v) = view.attrs_item(&self.keeper);
        let json = snapshot::item_event_json(&view.attrs, team.as_str(), item, v);
        let mut frames = vec![Frame::event("publish", json)];
        frames.extend(view.resets(&self.keeper));
        self.shelf.put(&owner, &mut self.views, Instant::now());
        let client = self.clients.get_mut(&id).expect("the caller looked");
        client.teams = client.teams.iter().chain([team]).cloned().collect();
        for frame in &frames {
            let name = if frame.name() == "publish" { "publish" } else { "reset" };
            metrics::events_delivered(name, u64::from(client.outbox.offer(frame).is_ok()));
        }
        self.hub.join(Room::Team(team.clone()), id, client.outbox.clone());
    }

    /// Answers a subscription with the feed and lets the client hear it, in one step.
    fn tell_feed(&mut self, id: ClientId, feed: &Arc<str>, call: Option<u64>) {
        if let Some(call) = call {
            let ack = self.feed_ack(feed);
            // A client that is gone wants no answer.
            let _ = self.clients[&id].outbox.ack(call, ack);
        }
        self.hear_by_name(id, feed);
    }

    /// Returns the answer to a subscription, the same frame for all until the feed changes.
    fn feed_ack(&mut self, feed: &Arc<str>) -> Frame {
        if let Some(frame) = self.acks.get(feed) {
            return frame.clone();
        }
        let json = format!(r#"{{"code":200,"collection":{}}}"#, self.collection(feed));
        let frame = Frame::snapshot("ack", json);
        if self.keeper.mirror(feed).is_some() {
            self.acks.insert(feed.clone(), frame.clone());
        }
        frame
    }

    fn sees(&self, id: ClientId, feed: &str) -> bool {
        let Some(client) = self.clients.get(&id) else { return false };
        self.hung.places(feed).iter().any(|(owner, _)| match owner {
            Owner::Team(team) => client.identity.is_in(team.as_str()),
            Owner::User(user) => client.identity.user == *user,
        })
    }

    fn targets(&self, target: &Target) -> Vec<ClientId> {
        let by = |wanted: &dyn Fn(&Client) -> bool| {
            self.clients.iter().filter(|(_, client)| wanted(client)).map(|(id, _)| *id).collect()
        };
        match target {
            Target::User(user) => by(&|client| client.identity.user == *user),
            Target::Session(session) => by(&|client| client.session == *session),
            Target::Room(Room::Feed(feed)) => self.hub.members(&self.audience(feed)),
            Target::Room(room) => self.hub.members(std::slice::from_ref(room)),
        }
    }

    fn inspect(&self, user: &crate::identity::UserId) -> Vec<Inspected> {
        let mine = self.clients.iter().filter(|(_, client)| client.identity.user == *user);
        let inspected = mine.map(|(id, client)| {
            let user = client.joined.then(|| Room::User(client.identity.user.clone()));
            let teams = client.teams.iter().cloned().map(Room::Team);
            let feeds = client.subscribed.iter().cloned().map(Room::Feed);
            let rooms = user.into_iter().chain(teams).chain(feeds).map(|room| room.to_string());
            let hung = self.hung.feeds().filter(|feed| self.sees(*id, feed));
            let version = |feed: &Arc<str>| self.keeper.version(feed).map(|v| v.to_string());
            let feeds: BTreeMap<_, _> = hung
                .chain(&client.subscribed)
                .map(|feed| (feed.to_string(), version(feed)))
                .collect();
            Inspected { client: id.0, rooms: rooms.collect(), feeds }
        });
        inspected.collect()
    }
}

/// About how many bytes an `initial` has beside its models.
const INITIAL: usize = 128;

/// Lists whose views an identity sees.
pub(super) fn owners(identity: &Identity) -> impl Iterator<Item = Owner> {
    let user = Owner::User(identity.user.clone());
    identity.teams.iter().cloned().map(Owner::Team).chain([user])
}

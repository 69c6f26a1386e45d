//! Rooms per team, user and feed, and the fan-out of shared frames.
//!
//! The hub drops frames into mailboxes and never learns what a socket is.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt, slice,
    sync::Arc,
};

use crate::{
    identity::{TeamId, UserId},
    outbox::Outbox,
};

pub mod frame;

use frame::Frame;

/// The number of one connection; never used twice by a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What a group of clients hears together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Room {
    /// `team:ID`: everybody in that team.
    Team(TeamId),
    /// `user:ID`: every connection of that user.
    User(UserId),
    /// `feed:NAME`: those who subscribed to that feed by name.
    Feed(Arc<str>),
}

/// A text is no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("room {0:?} is none of `team:ID`, `user:ID` and `feed:NAME`")]
pub struct BadRoom(pub String);

impl std::str::FromStr for Room {
    type Err = BadRoom;

    fn from_str(text: &str) -> Result<Self, BadRoom> {
        match text.split_once(':') {
            Some((_, "")) => Err(BadRoom(text.to_owned())),
            Some(("team", id)) => Ok(Self::Team(TeamId::new(id))),
            Some(("user", id)) => Ok(Self::User(UserId::new(id))),
            Some(("feed", name)) => Ok(Self::Feed(name.into())),
            _ => Err(BadRoom(text.to_owned())),
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Team(id) => write!(out, "team:{id}"),
            Self::User(id) => write!(out, "user:{id}"),
            Self::Feed(name) => write!(out, "feed:{name}"),
        }
    }
}

/// All rooms of this gateway.
#[derive(Debug, Default)]
pub struct Hub {
    rooms: HashMap<Room, Members>,
}

/// Who hears a room.
#[derive(Debug)]
enum Members {
    /// As in the room of a user nearly always.
    One(Member),
    Many(Box<Many>),
}

/// Side by side for the fan-out, and by number for who comes and goes.
#[derive(Debug, Default)]
struct Many {
    list: Vec<Member>,
    /// Where each stands; there once they are too many to look through.
    #[expect(clippy::box_collection, reason = "hardly any needs one, and it is 48 bytes")]
    places: Option<Box<HashMap<ClientId, usize>>>,
}

/// So many are looked through.
const FEW: usize = 32;

#[derive(Debug, Clone)]
struct Member {
    client: ClientId,
    outbox: Outbox,
}

impl Hub {
    /// Lets a client hear a room.
    pub fn join(&mut self, room: Room, client: ClientId, outbox: Outbox) {
        let member = Member { client, outbox };
        match self.rooms.entry(room) {
            Entry::Vacant(room) => drop(room.insert(Members::One(member))),
            Entry::Occupied(room) => room.into_mut().add(member),
        }
    }

    /// Lets a client hear a room no longer.
    pub fn leave(&mut self, room: &Room, client: ClientId) {
        if self.rooms.get_mut(room).is_some_and(|members| members.remove(client)) {
            self.rooms.remove(room);
        }
    }

    /// Tells whether anybody hears a room.
    #[must_use]
    pub fn is_empty(&self, room: &Room) -> bool {
        !self.rooms.contains_key(room)
    }

    /// Tells whether this client hears a room.
    #[must_use]
    pub fn contains(&self, room: &Room, client: ClientId) -> bool {
        self.rooms.get(room).is_some_and(|members| members.contains(client))
    }

    /// Lists who hears at least one of these rooms, each once.
    #[must_use]
    pub fn members(&self, rooms: &[Room]) -> Vec<ClientId> {
        let mut all = Vec::new();
        self.each(rooms, |member| all.push(member.client));
        all
    }

    /// Drops a frame into the mailbox of everybody who hears at least one of these rooms, once.
    ///
    /// Returns how many took it. A mailbox that is full closes its client; nobody waits.
    pub fn send(&self, rooms: &[Room], frame: &Frame) -> u64 {
        let mut delivered = 0;
        self.each(rooms, |member| delivered += u64::from(member.outbox.offer(frame).is_ok()));
        delivered
    }

    fn each(&self, rooms: &[Room], mut visit: impl FnMut(&Member)) {
        let listed = |room| self.rooms.get(room).map(Members::list);
        let mut filled = rooms.iter().filter_map(listed).peekable();
        let Some(first) = filled.next() else { return };
        if filled.peek().is_none() {
            return first.iter().for_each(visit);
        }
        let mut seen = HashSet::new();
        for member in first.iter().chain(filled.flatten()) {
            if seen.insert(member.client) {
                visit(member);
            }
        }
    }
}

impl Members {
    fn list(&self) -> &[Member] {
        match self {
            Self::One(member) => slice::from_ref(member),
            Self::Many(many) => &many.list,
        }
    }

    fn contains(&self, client: ClientId) -> bool {
        match self {
            Self::One(member) => member.client == client,
            Self::Many(many) => many.place(client).is_some(),
        }
    }

    fn add(&mut self, member: Member) {
        match self {
            _ if self.contains(member.client) => {}
            Self::One(first) => {
                let mut many = Many::default();
                many.add(first.clone());
                many.add(member);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => many.add(member),
        }
    }

    /// Takes a client out, but for the only one; tells whether nobody is left.
    fn remove(&mut self, client: ClientId) -> bool {
        match self {
            Self::One(member) => member.client == client,
            Self::Many(many) => {
                many.remove(client);
                many.list.is_empty()
            }
        }
    }
}

impl Many {
    fn place(&self, client: ClientId) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&client).copied(),
            None => self.list.iter().position(|member| member.client == client),
        }
    }

    fn add(&mut self, member: Member) {
        if let Some(places) = &mut self.places {
            places.insert(member.client, self.list.len());
        }
        self.list.push(member);
        if self.places.is_none() && self.list.len() > FEW {
            let places = self.list.iter().zip(0..).map(|(member, at)| (member.client, at));
            self.places = Some(Box::new(places.collect()));
        }
    }

    fn remove(&mut self, client: ClientId) {
        let Some(at) = self.place(client) else { return };
        self.list.swap_remove(at);
        if let Some(places) = &mut self.places {
            places.remove(&client);
            if let Some(moved) = self.list.get(at) {
                places.insert(moved.client, at);
            }
        }
        if self.list.len() <= FEW / 2 {
            self.places = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::mailbox;

    #[test]
    fn who_hears_a_frame_in_two_rooms_gets_it_once() {
        let mut hub = Hub::default();
        let (outbox, mut inbox) = mailbox(1_000);
        let rooms = [Room::Team(TeamId::new("red")), Room::Team(TeamId::new("blue"))];
        for room in &rooms {
            hub.join(room.clone(), ClientId(1), outbox.clone());
        }
        assert_eq!(hub.send(&rooms, &Frame::event("publish", "{}")), 1);
        assert!(inbox.try_next().is_some());
        assert!(inbox.try_next().is_none());
        hub.leave(&rooms[0], ClientId(1));
        assert!(hub.is_empty(&rooms[0]));
        assert_eq!(hub.members(&rooms), [ClientId(1)]);
    }

    #[test]
    fn a_room_knows_its_members_however_many_they_are() {
        let (mut hub, room) = (Hub::default(), Room::Team(TeamId::new("red")));
        let (outbox, _inbox) = mailbox(1_000);
        for round in 0..2 {
            for client in 0..3 * FEW as u64 {
                hub.join(room.clone(), ClientId(client), outbox.clone());
                hub.join(room.clone(), ClientId(client), outbox.clone());
            }
            assert_eq!(hub.members(std::slice::from_ref(&room)).len(), 3 * FEW, "{round}");
            for client in 0..3 * FEW as u64 {
                assert!(hub.contains(&room, ClientId(client)));
                hub.leave(&room, ClientId(client));
                assert!(!hub.contains(&room, ClientId(client)));
            }
            assert!(hub.is_empty(&room));
        }
    }

    #[test]
    fn a_room_is_read_as_it_is_written() {
        for text in ["team:42", "user:ann", "feed:public.a:b"] {
            assert_eq!(text.parse::<Room>().unwrap().to_string(), text);
        }
        for text in ["", "team", "team:", "club:1"] {
            assert_eq!(text.parse::<Room>(), Err(BadRoom(text.to_owned())));
        }
    }
}

//! Who may see what, and since and until when; the harness's own knowledge. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::world::{PUBLIC, TEAMS, USERS, World, part};

/// How long a gateway may take to carry out a control message.
const SOON: Duration = Duration::from_secs(2);
/// How long it may take to find out by itself: `session.recheck`, and then as above.
const FOUND_OUT: Duration = Duration::from_secs(33);

/// The rights of everybody over the run.
#[derive(Debug)]
pub struct Rights {
    /// The team that a part of a feed's name stands for.
    parts: HashMap<String, String>,
    users: HashMap<String, String>,
    /// Held to look or to note.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By user and team; the session itself is the team [`SESSION`].
    spans: HashMap<(String, String), Vec<Span>>,
    /// When control messages could not reach every gateway.
    deaf: Vec<Span>,
    /// Whose rights changed since [`Rights::maybe_unheard`] was asked.
    changed: HashMap<String, Instant>,
}

/// From, and until when if it has ended.
#[derive(Debug, Clone, Copy)]
struct Span(Instant, Option<Instant>);

/// No team's id is empty.
const SESSION: &str = "";

/// Whom something is about, as far as its feed's name and id say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// Everybody.
    All,
    /// A team.
    Team(String),
    /// A user.
    User(String),
    /// Nobody that there is.
    Nobody,
}

impl Rights {
    /// Notes what is so in the beginning.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let now = Instant::now();
        let mut spans = HashMap::new();
        for user in &world.users {
            for team in user.teams.iter().map(String::as_str).chain([SESSION]) {
                spans.insert((user.id.clone(), team.to_owned()), vec![Span(now, None)]);
            }
        }
        Self {
            parts: world.teams.iter().map(|team| (part(team), team.clone())).collect(),
            users: world.users.iter().map(|user| (part(&user.id), user.id.clone())).collect(),
            state: Mutex::new(State { spans, ..State::default() }),
        }
    }

    /// Notes that a user's session is there with these teams, or gone, from now on.
    ///
    /// What is gained counts from this call, which comes before the session is written; what
    /// is lost is noted by [`Self::lost`] behind the control message.
    pub fn gained(&self, user: &str, teams: &[String]) {
        let now = Instant::now();
        let mut state = self.state.lock().expect("no holder of this lock panics");
        for team in teams.iter().map(String::as_str).chain([SESSION]) {
            let spans = state.spans.entry((user.to_owned(), team.to_owned())).or_default();
            if spans.last().is_none_or(|last| last.1.is_some()) {
                spans.push(Span(now, None));
            }
        }
    }

    /// Notes that a user has no more than these teams from now on, or no session.
    pub fn lost(&self, user: &str, left: Option<&[String]>) {
        let now = Instant::now();
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state.changed.insert(user.to_owned(), now);
        for ((whose, team), spans) in &mut state.spans {
            let is_left = left.is_some_and(|left| team == SESSION || left.contains(team));
            if whose == user
                && !is_left
                && let Some(last) = spans.last_mut()
            {
                last.1.get_or_insert(now);
            }
        }
    }

    /// Notes that control messages do not reach every gateway from now on; the answer is for [`Self::hear`].
    pub fn deaf(&self) -> usize {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state.deaf.push(Span(Instant::now(), None));
        state.deaf.len() - 1
    }

    /// Notes that they do again.
    pub fn hear(&self, deaf: usize) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state.deaf[deaf].1 = Some(Instant::now() + SOON);
    }

    /// Returns whose rights changed, since this was asked last, while not every gateway could be told.
    pub fn maybe_unheard(&self) -> Vec<String> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let changed = std::mem::take(&mut state.changed);
        let unheard = changed.into_iter().filter(|(_, at)| state.is_deaf(*at));
        unheard.map(|(user, _)| user).collect()
    }

    /// Tells whether a user's client may hear something that is about this, now.
    ///
    /// `behind` is how long ago it may have been sent, where its client did not read.
    #[must_use]
    pub fn may_hear(&self, user: &str, about: &About, behind: Duration) -> bool {
        let team = match about {
            About::All => SESSION,
            About::Team(team) => team,
            About::User(id) if id == user => SESSION,
            About::User(_) | About::Nobody => return false,
        };
        let state = self.state.lock().expect("no holder of this lock panics");
        let spans = state.spans.get(&(user.to_owned(), team.to_owned()));
        let Some(Span(_, until)) = spans.and_then(|spans| spans.last()) else { return false };
        let Some(until) = *until else { return true };
        let allowed = if state.is_deaf(until) { FOUND_OUT } else { SOON };
        Instant::now() < until + allowed + behind
    }

    /// Returns the teams that a user is in, or `None` if its session is gone.
    #[must_use]
    pub fn teams(&self, user: &str) -> Option<HashSet<String>> {
        let state = self.state.lock().expect("no holder of this lock panics");
        let is_now = |team: &str| {
            let spans = state.spans.get(&(user.to_owned(), team.to_owned()));
            spans.and_then(|spans| spans.last()).is_some_and(|last| last.1.is_none())
        };
        is_now(SESSION).then(|| self.parts.values().filter(|team| is_now(team)).cloned().collect())
    }

    /// Reads whom a feed is about; `id` is the item that is told of.
    #[must_use]
    pub fn about(&self, feed: &str, id: Option<&str>) -> About {
        if PUBLIC.contains(&feed) {
            return About::All;
        }
        match (feed, id) {
            (TEAMS, Some(id)) => return About::Team(id.to_owned()),
            (USERS, Some(id)) => return About::User(id.to_owned()),
            _ => {}
        }
        let mut words = feed.split('.');
        match (words.next(), words.next()) {
            (Some("team"), Some(team)) => {
                self.parts.get(team).map_or(About::Nobody, |team| About::Team(team.clone()))
            }
            (Some("user"), Some(user)) => {
                self.users.get(user).map_or(About::Nobody, |user| About::User(user.clone()))
            }
            _ => About::Nobody,
        }
    }
}

impl State {
    /// Tells whether what was said at this time may not have been heard.
    fn is_deaf(&self, at: Instant) -> bool {
        let overlaps = |deaf: &Span| deaf.0 < at + SOON && deaf.1.is_none_or(|end| end + SOON > at);
        self.deaf.iter().any(overlaps)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn what_was_lost_may_be_heard_for_a_moment_only() {
        let world = World::new(20, &mut StdRng::seed_from_u64(1));
        let rights = Rights::new(&world);
        let user = &world.users[6];
        let team = &user.teams[0];
        let feed = format!("team.{}.board", part(team));
        let about = rights.about(&feed, Some("1"));
        assert_eq!(about, About::Team(team.clone()));
        let may = |behind| rights.may_hear(&user.id, &about, behind);
        assert!(may(Duration::ZERO));
        rights.lost(&user.id, Some(&[]));
        assert!(may(Duration::ZERO));
        {
            let mut state = rights.state.lock().unwrap();
            let long_ago = Instant::now() - 2 * SOON;
            let key = (user.id.clone(), team.clone());
            state.spans.insert(key, vec![Span(long_ago, Some(long_ago))]);
        }
        assert!(!may(Duration::ZERO));
        assert!(may(4 * SOON), "it may have waited in a client that did not read");
        assert!(rights.may_hear(&user.id, &About::All, Duration::ZERO));
        assert_eq!(rights.teams(&user.id), Some(HashSet::new()));
        rights.gained(&user.id, std::slice::from_ref(team));
        assert!(may(Duration::ZERO));
        let of_other = rights.about("user.u0.notes", Some("n1"));
        assert_eq!(of_other, About::User("u0".to_owned()));
        assert!(!rights.may_hear(&user.id, &of_other, Duration::ZERO));
        assert_eq!(rights.about("user.nobody.notes", None), About::Nobody);
    }
}

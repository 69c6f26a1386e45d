//! Who and what there is in a run: users, teams, feeds, items; all decided by the seed. Pure.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;

/// What a feed's ids are kept in, which never changes in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A zset; its writers choose the ids.
    Plain,
    /// A list; its ids are numbers that are given.
    Sorted,
}

/// One feed and what may be in it.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Its name.
    pub name: String,
    /// Whether it has an order.
    pub kind: Kind,
    /// The ids that a plain feed may hold.
    pub ids: Vec<String>,
    /// How many items are kept when more are written; `None` for all.
    pub max_length: Option<u64>,
}

/// One user, whose clients share one session.
#[derive(Debug, Clone)]
pub struct User {
    /// The id, which may hold what a feed's name may not.
    pub id: String,
    /// The session's id.
    pub session: String,
    /// The teams in the beginning.
    pub teams: Vec<String>,
}

/// Everything that a run is played with.
#[derive(Debug, Clone)]
pub struct World {
    /// Everybody.
    pub users: Vec<User>,
    /// All teams' ids; the first is the largest.
    pub teams: Vec<String>,
    /// All feeds in which writers write.
    pub feeds: Vec<Feed>,
}

/// The shared feed of the teams' own items.
pub const TEAMS: &str = "teams";
/// The shared feed of the users' own items.
pub const USERS: &str = "users";
/// Feeds that everybody may subscribe to.
pub const PUBLIC: [&str; 3] = ["public.news", "public.queue", "public.%C3%BC"];

/// Over this many items a sorted feed gets more retracts than inserts.
pub const PLENTY: usize = 14;
/// The longest list of a team's members.
const MEMBERS: std::ops::Range<usize> = 3..9;

impl World {
    /// Makes a world of so many users.
    #[must_use]
    pub fn new(users: usize, rng: &mut StdRng) -> Self {
        let teams: Vec<String> = (0..(users / 3).max(3))
            .map(|number| match number % 5 {
                4 => format!("t.{number}/ü"),
                _ => format!("t{number}"),
            })
            .collect();
        let users: Vec<User> = (0..users)
            .map(|number| {
                let id =
                    if number % 7 == 6 { format!("u.{number} é") } else { format!("u{number}") };
                let count = rng.random_range(1..4);
                let mut own: Vec<String> = teams.sample(rng, count).cloned().collect();
                if rng.random_bool(0.4) && !own.contains(&teams[0]) {
                    own.push(teams[0].clone());
                }
                User { id, session: format!("s{number}"), teams: own }
            })
            .collect();
        let mut feeds = vec![
            plain(TEAMS, teams.clone()),
            plain(USERS, users.iter().map(|user| user.id.clone()).collect()),
        ];
        for team in &teams {
            let place = format!("team.{}", part(team));
            let members: Vec<String> = (0..rng.random_range(MEMBERS))
                .map(|number| match number {
                    0 => "m:0.x".to_owned(),
                    1 => "ü 1".to_owned(),
                    _ => format!("m{number}"),
                })
                .collect();
            for member in &members {
                feeds.push(sorted(&format!("{place}.members.{}.tasks", part(member))));
            }
            feeds.push(plain(&format!("{place}.members"), members));
            feeds.push(Feed { max_length: Some(12), ..sorted(&format!("{place}.board")) });
            let lines = (0..30).map(|number| format!("line{number}")).collect();
            feeds.push(Feed { max_length: Some(15), ..plain(&format!("{place}.chat"), lines) });
        }
        for user in &users {
            let notes = (0..8).map(|number| format!("n{number}")).collect();
            let name = format!("user.{}.notes", part(&user.id));
            feeds.push(Feed { max_length: Some(6), ..plain(&name, notes) });
        }
        let [news, queue, other] = PUBLIC;
        feeds.push(plain(news, (0..20).map(|number| format!("n{number}")).collect()));
        feeds.push(sorted(queue));
        feeds.push(plain(other, vec!["only".to_owned()]));
        Self { users, teams, feeds }
    }

    /// Picks a feed; those of the whole world are picked seldom, since everybody hears them.
    pub fn pick(&self, rng: &mut StdRng) -> &Feed {
        loop {
            let feed = self.feeds.choose(rng).expect("there are feeds");
            let is_loud = [TEAMS, USERS].contains(&&*feed.name) || feed.name.starts_with("public");
            if !is_loud || rng.random_bool(0.4) {
                return feed;
            }
        }
    }
}

fn plain(name: &str, ids: Vec<String>) -> Feed {
    Feed { name: name.to_owned(), kind: Kind::Plain, ids, max_length: None }
}

fn sorted(name: &str) -> Feed {
    Feed { name: name.to_owned(), kind: Kind::Sorted, ids: Vec::new(), max_length: None }
}

/// Makes an item: mostly JSON objects, and whatever else writers write.
///
/// Numbers are small and whole, so that no client's JSON parser writes them otherwise.
pub fn item(rng: &mut StdRng, number: u64) -> Vec<u8> {
    match rng.random_range(0..40) {
        0 => format!("no JSON, é {number}").into_bytes(),
        1 => vec![b'x', 0xff, 0xfe, b'0' + (number % 10) as u8],
        2 => json!([number, null, "list"]).to_string().into_bytes(),
        3 => json!({ "id": "another", "n": number }).to_string().into_bytes(),
        4 => json!({ "n": number, "long": "lorem ".repeat(400) }).to_string().into_bytes(),
        _ => json_item(rng, number).into_bytes(),
    }
}

/// Makes an item that is a JSON object.
pub fn json_item(rng: &mut StdRng, number: u64) -> String {
    let text = ["plain", "ümläut", "🦀 emoji", "quote \" and \\", "line\nbreak"];
    let text = text.choose(rng).expect("there are texts");
    json!({ "n": number, "text": text, "done": rng.random_bool(0.5) }).to_string()
}

/// An id as it stands in a feed's name.
#[must_use]
pub fn part(id: &str) -> String {
    let is_free = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~@".contains(&byte);
    let encode = |byte: u8| match byte {
        byte if is_free(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    id.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_seed_decides_the_world() {
        let world = |seed| format!("{:?}", World::new(20, &mut StdRng::seed_from_u64(seed)));
        assert_eq!(world(1), world(1));
        assert_ne!(world(1), world(2));
    }

    #[test]
    fn an_id_in_a_feeds_name_is_encoded_by_the_rule() {
        assert_eq!(part("a.b/ü@x-_~"), "a%2Eb%2F%C3%BC@x-_~");
    }
}

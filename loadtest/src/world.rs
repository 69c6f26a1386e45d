//! The feeds of a benchmark: teams of some members, tasks of each, and what is each user's own.

use redis::{Pipeline, pipe};

use crate::cluster::{Cluster, ClusterError};

/// Commands in one go.
const BATCH: usize = 5_000;

/// Who is in which team, and how many feeds that makes.
#[derive(Debug)]
pub struct World {
    /// How many users, each in one team.
    pub users: usize,
    /// How many members a team has.
    pub members: usize,
    /// How many tasks each member has.
    pub tasks: usize,
}

/// One feed: its name, whether it is sorted, and how many items it has.
type Feed = (String, bool, Vec<String>);

impl World {
    /// Names a user.
    #[must_use]
    pub fn user(&self, number: usize) -> String {
        format!("user-{number}")
    }

    /// Names the team that a user is in.
    #[must_use]
    pub fn team(&self, user: usize) -> String {
        format!("team-{}", user / self.members)
    }

    /// How many teams there are.
    #[must_use]
    pub const fn teams(&self) -> usize {
        self.users.div_ceil(self.members)
    }

    /// Names the board of the team with this number; it holds one item, `1`.
    #[must_use]
    pub fn board(&self, team: usize) -> String {
        format!("team.team-{team}.board")
    }

    /// How many feeds are shown whole: of each team its members and its board, of each user his
    /// notes, and of each member, user or not, his tasks.
    #[must_use]
    pub const fn feeds(&self) -> usize {
        2 * self.teams() + self.teams() * self.members + self.users
    }

    /// How many single items of shared feeds are shown: each team's and each user's own.
    #[must_use]
    pub const fn lone(&self) -> usize {
        self.teams() + self.users
    }

    /// Writes everything before a gateway looks at any of it, as a restored dump would.
    ///
    /// # Errors
    ///
    /// Returns [`ClusterError`] when a Redis does not take it.
    pub async fn write(&self, cluster: &Cluster) -> Result<(), ClusterError> {
        for number in 0..self.users {
            let (user, team) = (self.user(number), self.team(number));
            cluster.put_session(&user, &user, &[team]).await?;
        }
        let mut pipes: Vec<Pipeline> = cluster.shards.iter().map(|_| pipe()).collect();
        for feed in self.all() {
            let owner = cluster.owner(&feed.0);
            put(&mut pipes[owner], &feed);
            if pipes[owner].len() > BATCH {
                cluster.shards[owner].pipe::<()>(&std::mem::take(&mut pipes[owner])).await?;
            }
        }
        for (shard, pipe) in cluster.shards.iter().zip(&pipes) {
            shard.pipe::<()>(pipe).await?;
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = Feed> {
        let ids = |prefix: &str, from: usize, count: usize| -> Vec<String> {
            (from..from + count).map(|number| format!("{prefix}{number}")).collect()
        };
        let shared = [
            ("teams".to_owned(), false, ids("team-", 0, self.teams())),
            ("users".to_owned(), false, ids("user-", 0, self.users)),
        ];
        let teams = (0..self.teams()).flat_map(move |team| {
            let members = ids("user-", team * self.members, self.members);
            let tasks: Vec<Feed> = members
                .iter()
                .map(|member| {
                    let feed = format!("team.team-{team}.members.{member}.tasks");
                    (feed, true, ids("", 1, self.tasks))
                })
                .collect();
            let board = (self.board(team), true, ids("", 1, 1));
            let members = (format!("team.team-{team}.members"), false, members);
            [board, members].into_iter().chain(tasks)
        });
        let notes = (0..self.users)
            .map(move |user| (format!("user.user-{user}.notes"), false, ids("", 1, 1)));
        shared.into_iter().chain(teams).chain(notes)
    }
}

fn put(pipe: &mut Pipeline, (feed, is_sorted, ids): &Feed) {
    let (key, config) = (format!("feed.ids:{feed}"), format!("feed.config:{feed}"));
    let kind = if *is_sorted { "sorted_feed" } else { "feed" };
    pipe.cmd("SADD").arg("feeds").arg(feed).ignore();
    pipe.cmd("HSET").arg(config).arg("type").arg(kind).ignore();
    for (place, id) in ids.iter().enumerate() {
        match is_sorted {
            true => pipe.cmd("RPUSH").arg(&key).arg(id).ignore(),
            false => pipe.cmd("ZADD").arg(&key).arg(place).arg(id).ignore(),
        };
        let item = format!(r#"{{"title":"{id} of {feed}","done":false}}"#);
        pipe.cmd("HSET").arg(format!("feed.items:{feed}")).arg(id).arg(item).ignore();
    }
}

//! Who a client is: user, teams, and the session that says so.

use std::{fmt, sync::Arc};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the id as it is.
            pub fn new(id: impl AsRef<str>) -> Self {
                Self(id.as_ref().into())
            }

            /// Returns the id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A user's id, never empty.
    UserId
);
id!(
    /// A team's id, never empty.
    TeamId
);
id!(
    /// The id under which the session store keeps a session; a secret, so its text is not logged.
    SessionId
);

/// Who a session says its bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The teams, sorted, each once.
    pub teams: Arc<[TeamId]>,
}

impl Identity {
    /// Sorts the teams and counts doubles once.
    #[must_use]
    pub fn new(user: UserId, mut teams: Vec<TeamId>) -> Self {
        teams.sort();
        teams.dedup();
        Self { user, teams: teams.into() }
    }

    /// Tells whether the user is in this team.
    #[must_use]
    pub fn is_in(&self, team: &str) -> bool {
        self.teams.binary_search_by(|own| own.as_str().cmp(team)).is_ok()
    }
}

/// An [`Identity`] and the session that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Where to look again.
    pub id: SessionId,
    /// What was found.
    pub identity: Identity,
}

//! From polling to a websocket: the probe, and the hand-over.
//!
//! Until the client says that it goes over, the session is a polling one: a probe that fails,
//! stands still or is given up leaves it as it is.

use std::{sync::Arc, time::Duration};

use axum::{extract::Request, response::Response};

use super::{
    Upgrade,
    handshake::Sessions,
    polling::{HandedOver, Polling, Task},
    websocket::Websocket,
};
use crate::socket::guard::Query;

/// How long a websocket may take to take over: socket.io's own default.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a websocket that may take a polling session over.
pub(super) fn begin(
    sessions: &Arc<Sessions>,
    polling: Arc<Polling>,
    mut request: Request,
    query: Query<'_>,
) -> Response {
    let Some(upgrade) = Upgrade::take(&mut request) else {
        return query.refuse((3, "Bad request"));
    };
    let answer = upgrade.answer();
    match Probe::begin(polling) {
        Some(probe) => Websocket::probe(sessions, probe, query, upgrade),
        None => Websocket::turn_away(sessions, query, upgrade),
    }
    answer
}

/// Answers who wants a websocket for a session that has one: it opens and is closed, as the
/// original servers do, and the one that is there stays.
pub(super) fn turn_away(
    sessions: &Arc<Sessions>,
    mut request: Request,
    query: Query<'_>,
) -> Response {
    let Some(upgrade) = Upgrade::take(&mut request) else {
        return query.refuse((3, "Bad request"));
    };
    let answer = upgrade.answer();
    Websocket::turn_away(sessions, query, upgrade);
    answer
}

/// A polling session that a websocket is about to take over; dropped, it goes on as it was.
pub(super) struct Probe {
    polling: Arc<Polling>,
    is_probed: bool,
    task: Task,
}

impl Probe {
    /// Begins, unless another websocket tries already.
    fn begin(polling: Arc<Polling>) -> Option<Self> {
        let task = Task::default();
        let may = polling.begin_upgrade(&task);
        // Not made in vain: dropped, it would end the other's.
        may.then(|| Self { polling, is_probed: false, task })
    }

    pub(super) fn task(&self) -> Task {
        self.task.clone()
    }

    pub(super) const fn is_probed(&self) -> bool {
        self.is_probed
    }

    /// Notes that the client has asked whether anybody is there.
    pub(super) fn probed(&mut self) {
        self.is_probed = true;
        self.polling.probed();
    }

    /// Takes the session from its polls, if it is still there.
    pub(super) fn hand_over(&self) -> Option<HandedOver> {
        self.polling.hand_over(&self.task)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.polling.end_upgrade();
    }
}

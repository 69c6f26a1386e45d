//! Going over to another topology, without a client noticing more than what differs.

use std::time::Instant;

use shard_router::topology::Topology;
use tracing::info;

use super::state::State;

impl State {
    /// Makes and lets go connections, and has every feed followed where it is now.
    ///
    /// The router, the connections and the keeper change in one step of this task: there
    /// is no moment at which one of them knows a shard that another does not.
    pub(super) fn topology(&mut self, topology: Topology) {
        let adopted = self.router.adopt(topology);
        for &shard in &adopted.closed {
            self.links.close(shard);
        }
        for (index, shard) in self.router.shards() {
            if adopted.opened.contains(&index) {
                self.links.open(index, &*shard, self.keeper.standing_channels());
            }
        }
        let router = self.router.clone();
        let moved = self.keeper.retopology(&adopted, |feed| router.owner(feed), Instant::now());
        info!(
            version = adopted.version,
            opened = adopted.opened.len(),
            closed = adopted.closed.len(),
            moved,
            "Gateway goes by another topology."
        );
    }
}

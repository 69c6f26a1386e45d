//! The configuration of the gateways of a [`Cluster`](super::Cluster).

use super::{COOKIE, Plan, Redis, SECRET, TOKEN};

/// Where a gateway listens, as it stands in its configuration before it has ports.
pub(super) const LISTEN: &str = "@LISTEN@";
/// Where its admin listener is.
pub(super) const ADMIN: &str = "@ADMIN@";

/// Writes the configuration of one gateway; defaults but for what has to be said, and for what
/// the plan says.
#[must_use]
pub fn text(node: &str, shards: &[Redis], sessions: &Redis, plan: &Plan) -> String {
    let nodes: Vec<String> = shards
        .iter()
        .map(|shard| {
            format!("  {{ name = \"{}\", url = \"{}\" }},\n", shard.name(), shard.gateway_url())
        })
        .collect();
    format!(
        r#"[server]
listen = "127.0.0.1:{LISTEN}"
node   = "{node}"
{server}

[admin]
listen = "127.0.0.1:{ADMIN}"
token  = "{TOKEN}"

[session]
format  = "express"
cookie  = "{COOKIE}"
secrets = ["{SECRET}"]
store   = "{store}/0"
user    = "/user/id"
teams   = "/user/teams"

[shards]
nodes = [
{nodes}]

[tree.team]
attrs = {{ feed = "teams", id = "{{team}}" }}
[tree.team.collections.members]
feed = "team.{{team}}.members"
item = "member"
[tree.team.collections.members.collections.tasks]
feed = "team.{{team}}.members.{{member}}.tasks"
type = "sorted_feed"
[tree.team.collections.board]
feed = "team.{{team}}.board"
type = "sorted_feed"
[tree.user]
attrs = {{ feed = "users", id = "{{user}}" }}
[tree.user.collections.notes]
feed = "user.{{user}}.notes"

[subscribe]
allow = ["public.{{any}}", "team.{{team}}.chat"]

{config}"#,
        server = plan.server,
        config = plan.config,
        store = sessions.url(),
        nodes = nodes.concat(),
    )
}

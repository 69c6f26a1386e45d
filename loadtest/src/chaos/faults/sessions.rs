//! What changes about users: their teams, and whether they have a session.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;

use super::{Fault, Spell, seconds};
use crate::{
    chaos::{Stage, fleet::Fleet},
    cluster::{ClusterError, admin::escape},
};

pub(super) async fn run(
    stage: &Stage,
    fleet: &Fleet,
    fault: Fault,
    at: usize,
    mut rng: StdRng,
    spell: &Spell,
) {
    let done = match fault {
        Fault::ChangeTeams => change_teams(stage, at, &mut rng).await,
        _ => end_session(stage, fleet, at, &mut rng, spell).await,
    };
    if let Err(error) = done {
        stage.journal.note(format!("{}: {}: {error:?}", stage.world.users[at].id, fault.label()));
    }
}

async fn change_teams(stage: &Stage, at: usize, rng: &mut StdRng) -> Result<(), ClusterError> {
    let user = &stage.world.users[at];
    let count = rng.random_range(0..4);
    let teams: Vec<String> = stage.world.teams.sample(rng, count).cloned().collect();
    stage.journal.note(format!("{}: teams {teams:?}", user.id));
    stage.rights.gained(&user.id, &teams);
    stage.cluster.put_session(&user.session, &user.id, &teams).await?;
    refresh(stage, &user.id, rng).await;
    stage.rights.lost(&user.id, Some(&teams));
    Ok(())
}

async fn end_session(
    stage: &Stage,
    fleet: &Fleet,
    at: usize,
    rng: &mut StdRng,
    spell: &Spell,
) -> Result<(), ClusterError> {
    let user = &stage.world.users[at];
    let teams: Vec<String> = stage.rights.teams(&user.id).into_iter().flatten().collect();
    stage.journal.note(format!("{}: session ends", user.id));
    stage.cluster.drop_session(&user.session).await?;
    let message = json!({ "op": "disconnect", "session": user.session });
    stage.cluster.control(&message).await?;
    stage.rights.lost(&user.id, None);
    spell.last(seconds(rng, 1.0, 4.0)).await;
    stage.rights.gained(&user.id, &teams);
    stage.cluster.put_session(&user.session, &user.id, &teams).await?;
    stage.journal.note(format!("{}: session is there again", user.id));
    fleet.revive(&user.id).await;
    Ok(())
}

/// Has the user's sessions looked at again: by a gateway, or as an application may by itself.
pub(in crate::chaos) async fn refresh(stage: &Stage, user: &str, rng: &mut StdRng) {
    if rng.random_bool(0.5) {
        let gateway = stage.cluster.gateways.choose(rng).expect("there are gateways");
        let path = format!("/api/users/{}/refresh", escape(user));
        let asked = gateway.admin().ask("POST", &path, None).await;
        if asked.is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
    let told = stage.cluster.control(&json!({ "op": "refresh", "user": user })).await;
    if let Err(error) = told {
        stage.journal.note(format!("{user}: nobody was told: {error:?}"));
    }
}

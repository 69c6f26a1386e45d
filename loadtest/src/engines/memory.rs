//! What a connection takes of memory: the slope between two levels in a fresh process.

use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{
    Failure, Figure, Figures, Plan,
    ear::item,
    stage::{Crowd, Stage},
};
use crate::start::Engine;

/// How many events each client gets.
const EVENTS: u32 = 20;
/// Padding of an event, in bytes.
const PADDING: usize = 200;
/// How many teams are written to at the same time.
const WRITERS: usize = 32;
/// What the gateway says of its mirrors.
const MIRRORS: &str = "gateway_mirror_bytes";

/// Memory at one moment, in bytes.
struct Level {
    rss: f64,
    mirrors: f64,
}

/// Measures with so many connections of each user.
pub(super) async fn measure(plan: &Plan, engine: Engine, each: usize) -> Result<Figures, Failure> {
    let users = plan.connections.div_ceil(each);
    let stage = Stage::start(plan, engine, users, each, "", "").await?;
    let mut crowd = Crowd::new();
    stage.let_in(&mut crowd, plan.few, 0, None).await?;
    let few = level(plan, &stage).await?;
    stage.let_in(&mut crowd, plan.connections, 0, None).await?;
    let many = level(plan, &stage).await?;

    let before = stage.sample()?.cpu;
    publish(&stage).await?;
    let sent = u64::from(EVENTS) * plan.connections as u64;
    crowd.hear(sent).await?;
    let cpu = (stage.sample()?.cpu - before).as_secs_f64();
    let used = level(plan, &stage).await?;
    crowd.leave().await;

    let more = (plan.connections - plan.few) as f64;
    let idle = (many.rss - few.rss) / more;
    // Whatever all of them still hold counts, not only what those beyond the first level do.
    let after = idle + (used.rss - many.rss) / plan.connections as f64;
    Ok(if each == 1 {
        vec![
            (Figure::Idle, idle),
            (Figure::Used, after),
            (Figure::Mirrored, (many.mirrors - few.mirrors) / more),
            (Figure::Team, cpu * 1e6 / sent as f64),
        ]
    } else {
        vec![(Figure::SharedIdle, idle), (Figure::SharedUsed, after)]
    })
}

/// Looks at the gateway after a rest.
async fn level(plan: &Plan, stage: &Stage) -> Result<Level, Failure> {
    sleep(plan.rest).await;
    let metrics = stage.gateway().metrics().await?;
    let mirrors = metrics.get(MIRRORS).copied().unwrap_or_default();
    Ok(Level { rss: stage.sample()?.rss as f64, mirrors })
}

/// Changes the one item of each team's board, again and again.
async fn publish(stage: &Stage) -> Result<(), Failure> {
    let teams = stage.world.teams();
    let writers = (0..WRITERS.min(teams)).map(|first| async move {
        for team in (first..teams).step_by(WRITERS) {
            let board = stage.world.board(team);
            for number in 0..EVENTS {
                stage.router.edit(&board, "1", item(number, PADDING)).await?;
            }
        }
        Ok::<(), Failure>(())
    });
    try_join_all(writers).await?;
    Ok(())
}

//! What goes wrong with a gateway.

use rand::rngs::StdRng;

use super::{Fault, Spell, seconds};
use crate::{chaos::Stage, cluster::process::Signal};

pub(super) async fn run(stage: &Stage, fault: Fault, at: usize, mut rng: StdRng, spell: &Spell) {
    let gateway = &stage.cluster.gateways[at];
    let length = seconds(&mut rng, 0.2, 5.0);
    stage.journal.note(format!("{}: {} for {length:?}", gateway.name(), fault.label()));
    stage.tally.look(gateway).await;
    let deaf = stage.rights.deaf();
    if fault == Fault::KillGateway {
        gateway.kill();
        stage.tally.killed(gateway);
    } else {
        gateway.process().signal(Signal::Stop);
    }
    spell.last(length).await;
    let healed = gateway.heal().await;
    stage.journal.note(format!("{}: healed: {healed:?}", gateway.name()));
    stage.rights.hear(deaf);
}

//! The one list that `--explain` shows: the runtime's steps with the network's where they happen.

use plan::{Journal, Spoken};
use runtime::planner::Plan;

/// A plan that was not carried out.
pub fn planned(plan: &Plan, network: Vec<Spoken>) -> Vec<Spoken> {
    interleave(plan, plan.steps.iter().map(|s| Spoken::of(s, None)).collect(), network)
}

/// A plan that was, with its times. The network's marks follow the runtime's.
pub fn timed(plan: &Plan, mut network: Vec<Spoken>, journal: &Journal) -> Vec<Spoken> {
    let count = plan.steps.len();
    let mut micros = vec![None; count + network.len()];
    for mark in journal.marks() {
        if let Some(slot) = micros.get_mut(usize::from(mark.step)) {
            *slot = Some(slot.unwrap_or(0) + mark.end_us.saturating_sub(mark.begin_us));
        }
    }
    for (spoken, time) in network.iter_mut().zip(&micros[count..]) {
        spoken.micros = *time;
    }
    let own = plan.steps.iter().zip(&micros).map(|(s, time)| Spoken::of(s, *time)).collect();
    interleave(plan, own, network)
}

fn interleave(plan: &Plan, mut own: Vec<Spoken>, network: Vec<Spoken>) -> Vec<Spoken> {
    let rest = own.split_off(plan.network_at());
    own.into_iter().chain(network).chain(rest).collect()
}

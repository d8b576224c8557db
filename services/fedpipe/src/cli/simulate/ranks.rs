//! Ranks that somebody fixes site by site, which no job file can: for comparing rules of merging.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use domain::adapter::RankTable;
use domain::id::WorkerName;

use super::job::Simulated;

/// A rank for each of some sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks(BTreeMap<WorkerName, u16>);

/// Reads `a=4,b=8`.
///
/// # Errors
/// A sentence that says what would be right.
pub fn parse(text: &str) -> Result<Ranks, String> {
    let mut ranks = BTreeMap::new();
    for pair in text.split(',') {
        let wrong = || format!("{pair:?} is not a site and its rank: write site-a=4,site-b=8");
        let (name, rank) = pair.split_once('=').ok_or_else(wrong)?;
        let name: WorkerName = name.parse().map_err(|_| wrong())?;
        ranks.insert(name, rank.parse().map_err(|_| wrong())?);
    }
    Ok(Ranks(ranks))
}

impl Ranks {
    /// Puts them in the place of the planned ones.
    pub fn replace(&self, simulated: &mut Simulated) -> anyhow::Result<()> {
        let most = simulated.job.spec.adapter.rank_max;
        let targets: Vec<_> = simulated.first_plan().global.targets().collect();
        for (name, rank) in &self.0 {
            ensure!(
                (1..=most).contains(rank),
                "--ranks: {name}={rank} is not from 1 to the job's rank_max {most}"
            );
            let profile = simulated.profiles.get(name);
            let layers = profile.map(|profile| profile.measurement.layers);
            let planned = simulated.first_plan_mut().workers.get_mut(name);
            let (planned, layers) = planned
                .zip(layers)
                .with_context(|| format!("--ranks: the plan names no site {name}"))?;
            planned.ranks = RankTable::uniform(&targets, layers, *rank);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_and_their_ranks_are_read_and_anything_else_is_refused() {
        let ranks = parse("a=4,site-b=16").unwrap();
        let found: Vec<(&str, u16)> = ranks
            .0
            .iter()
            .map(|(name, rank)| (name.as_str(), *rank))
            .collect();
        assert_eq!(found, [("a", 4), ("site-b", 16)]);
        for text in ["", "a", "a=", "a=-1", "a=4;b=8", "=4", "a=4,"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

//! How far each site's change of a round lies from the mean of all, `Σ_k ‖Δ_i[k] − Δ̄[k]‖_F` over the tensors k of
//! the adapter: what personalised rates may go by (FedMeZO, arXiv 2402.05926).
//!
//! Promises: the same files give the same figures, bit for bit; memory holds two tensors, whatever the number of
//! sites. Does not: count a late update, whose change began elsewhere.

use domain::zeroth::Scalars;

use super::check::read;
use super::files::Closed;
use super::round::{Member, Round};
use super::share::Share;
use crate::Error;

/// Of each member of a round, in their order, from its file; absent for a late one.
///
/// # Errors
/// If a file cannot be read, or is not what its plan demands.
pub fn files(round: &Round) -> Result<Vec<Option<f64>>, Error> {
    let in_time = || round.members.iter().filter(|one| one.started.is_none());
    let mut sites: Vec<(&Member, Closed, f64)> = Vec::new();
    for member in in_time() {
        let update = Closed::open(&member.update, sites.last().map(|(_, file, _)| file))?;
        sites.push((member, update, 0.0));
    }
    let weight: f64 = in_time().map(|one| one.share.weight).sum();
    for shape in &round.weights {
        let rank = usize::from(round.ranks.rank(shape.name));
        if rank == 0 {
            continue;
        }
        let name = shape.name;
        for (key, size) in [
            (name.peft_a(), [rank, shape.inp]),
            (name.peft_b(), [shape.out, rank]),
        ] {
            let values = |member: &Member, update: &Closed| {
                read(update, &key, size).map_err(|source| Error::Merge {
                    round: round.round,
                    source: super::Error::Update {
                        worker: member.worker.clone(),
                        source,
                    },
                })
            };
            let mut mean = vec![0.0; size.iter().product()];
            for (member, update, _) in &sites {
                let share = member.share.weight / weight;
                let own = values(member, update)?;
                let both = mean.iter_mut().zip(own);
                both.for_each(|(mean, value)| *mean += share * f64::from(value));
            }
            for (member, update, sum) in &mut sites {
                let own = values(member, update)?;
                *sum += distance(own.into_iter().map(f64::from), &mean);
            }
        }
    }
    let mut found = sites.into_iter().map(|(_, _, sum)| sum);
    let of = |one: &Member| one.started.is_none().then(|| found.next()).flatten();
    Ok(round.members.iter().map(of).collect())
}

/// Of sites that walk along the same directions, from what they move along each, up to a factor that is the same
/// for all: d random numbers make directions of one length and as good as orthogonal, so that
/// `‖Δ_i[k] − Δ̄[k]‖` is `√d_k · η/P` times the distance of the scalars, for every tensor k.
#[must_use]
pub fn scalars(members: &[(Share, Scalars)]) -> Vec<f64> {
    let moves = |(share, own): &(Share, Scalars)| -> Vec<f64> {
        let finite = |value: f32| if value.is_finite() { value } else { 0.0 };
        let found = own.values().iter();
        found
            .map(|value| share.stretch * f64::from(finite(*value)))
            .collect()
    };
    let all: Vec<Vec<f64>> = members.iter().map(moves).collect();
    let weight: f64 = members.iter().map(|(share, _)| share.weight).sum();
    let mut mean = vec![0.0; all.first().map_or(0, Vec::len)];
    for ((share, _), own) in members.iter().zip(&all) {
        let both = mean.iter_mut().zip(own);
        both.for_each(|(mean, value)| *mean += share.weight / weight * value);
    }
    all.iter()
        .map(|own| distance(own.iter().copied(), &mean))
        .collect()
}

fn distance(own: impl Iterator<Item = f64>, mean: &[f64]) -> f64 {
    let squares = own.zip(mean).map(|(value, mean)| (value - mean).powi(2));
    squares.sum::<f64>().sqrt()
}

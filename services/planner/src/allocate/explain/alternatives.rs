//! The choices next to the one that was taken, and what each lacks.

use domain::job::spec::Optimizer;
use domain::plan::{Change, Rejected};

use crate::allocate::lane::Lane;
use crate::allocate::mode;
use crate::allocate::program::Choice;
use crate::allocate::units::{bytes, loss, seconds};

use super::Chosen;

/// Other modes that are spoken of at most; the best of them.
const MODES: usize = 6;

/// One choice with an adapter of so many parameters.
struct Alternative<'a> {
    lane: Lane<'a>,
    choice: Choice,
    parameters: u64,
    gain: f64,
    /// `None`: the steps of a round alone. A worker is told its plan's reasons with its task, and one of an earlier release
    /// would not read a task with a change that it has no name for.
    change: Option<Change>,
    /// Highest rank.
    rank: u16,
    /// Whether workers can execute it.
    runs: bool,
}

/// The next better rank, the next larger batch, the next numbers of steps, and the best of every other mode, with why
/// each was rejected.
pub(super) fn rejected(chosen: &Chosen<'_>) -> Vec<Rejected> {
    let mut rejected = Vec::new();
    rejected.extend(higher_rank(chosen).map(|other| reject(chosen, &other)));
    rejected.extend(larger_batch(chosen).map(|other| reject(chosen, &other)));
    rejected.extend(
        other_steps(chosen)
            .iter()
            .map(|other| reject(chosen, other)),
    );
    rejected.extend(
        other_modes(chosen)
            .iter()
            .map(|other| reject(chosen, other)),
    );
    rejected
}

/// The step of the frontier with the best worth among those that were not taken and do not fit.
fn higher_rank<'a>(chosen: &Chosen<'a>) -> Option<Alternative<'a>> {
    let (decision, site) = (chosen.decision, chosen.site);
    let frontier = &site.source.space.frontier;
    let room = decision.choice.room(site.memory(), chosen.fleet_seconds)?;
    let solution = &decision.solution;
    let (parameters, gain, rank) = frontier.next(&solution.levels, room)?;
    Some(Alternative {
        lane: decision.lane,
        choice: decision.choice,
        parameters: solution.parameters + parameters,
        gain: chosen.gain + gain,
        change: Some(Change::Rank),
        rank,
        runs: true,
    })
}

/// The next larger batch in the same mode: with the ranks it leaves room for, or the same ones where it
/// leaves none.
fn larger_batch<'a>(chosen: &Chosen<'a>) -> Option<Alternative<'a>> {
    let (decision, site) = (chosen.decision, chosen.site);
    let lanes = site.open.lanes.iter().zip(&site.open.choices);
    let larger = lanes.filter(|(lane, _)| {
        lane.mode.mode == decision.lane.mode.mode
            && lane.steps == decision.lane.steps
            && lane.batch > decision.lane.batch
    });
    let (lane, choice) = larger.min_by_key(|(lane, _)| lane.batch)?;
    let other = at(chosen, *lane, *choice, Some(Change::Batch), true);
    Some(settle(chosen, other))
}

/// The next more and the next fewer steps of a round with the same batch in the same mode, where the job leaves them open:
/// with the ranks they leave room for, or the same ones where they leave none. More steps gain more and take longer, fewer
/// leave time for higher ranks, so that either could have been the better choice.
fn other_steps<'a>(chosen: &Chosen<'a>) -> Vec<Alternative<'a>> {
    let (site, own) = (chosen.site, chosen.decision.lane);
    let lanes = site.open.lanes.iter().zip(&site.open.choices);
    let alike =
        lanes.filter(|(lane, _)| lane.mode.mode == own.mode.mode && lane.batch == own.batch);
    let alike: Vec<(&Lane<'a>, &Choice)> = alike.collect();
    let more = alike.iter().filter(|(lane, _)| lane.steps > own.steps);
    let fewer = alike.iter().filter(|(lane, _)| lane.steps < own.steps);
    let more = more.min_by_key(|(lane, _)| lane.steps);
    let fewer = fewer.max_by_key(|(lane, _)| lane.steps);
    let found = more.into_iter().chain(fewer);
    let found = found.map(|(lane, choice)| at(chosen, **lane, **choice, None, true));
    found.map(|other| settle(chosen, other)).collect()
}

/// The best batch, and number of steps, of each other mode, the most valuable first.
fn other_modes<'a>(chosen: &Chosen<'a>) -> Vec<Alternative<'a>> {
    let site = chosen.site;
    let of = |runs: bool| {
        let lanes = if runs { &site.open } else { &site.shown };
        let both = lanes.lanes.iter().zip(&lanes.choices);
        both.map(move |(lane, choice)| (lane, choice, runs))
    };
    let mut best: Vec<Alternative<'a>> = Vec::new();
    for (lane, choice, runs) in of(true).chain(of(false)) {
        let Some(change) = mode::change(&chosen.decision.lane.mode.mode, &lane.mode.mode) else {
            continue;
        };
        let other = at(chosen, *lane, *choice, Some(change), runs);
        let known = best
            .iter_mut()
            .find(|known| known.lane.mode.mode == lane.mode.mode);
        match known {
            Some(known) if order(chosen, &other) > order(chosen, known) => *known = other,
            Some(_) => {}
            None => best.push(other),
        }
    }
    best.sort_by(|left, right| {
        let (left, right) = (order(chosen, left), order(chosen, right));
        right
            .partial_cmp(&left)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    best.truncate(MODES);
    best.into_iter()
        .map(|other| settle(chosen, other))
        .collect()
}

/// What fits before what does not; then by value, and the less it needs.
fn order(chosen: &Chosen<'_>, other: &Alternative<'_>) -> (bool, f64, f64) {
    let needed = chosen.needed(other);
    let fits = needed <= chosen.site.memory() && chosen.seconds(other) <= limit(chosen, other);
    (fits, other.choice.value(other.gain), -needed)
}

/// With the whole steps there is room for within the fleet's time, or with the adapter that was chosen
/// where there is none. [`settle`] finds its ranks, once it is known to be spoken of.
fn at<'a>(
    chosen: &Chosen<'a>,
    lane: Lane<'a>,
    choice: Choice,
    change: Option<Change>,
    runs: bool,
) -> Alternative<'a> {
    let site = chosen.site;
    let room = choice.room(site.memory(), chosen.fleet_seconds);
    let reached = room.and_then(|room| site.source.space.frontier.reached(room));
    let solution = &chosen.decision.solution;
    let (parameters, gain) = reached.unwrap_or((solution.parameters, chosen.gain));
    Alternative {
        lane,
        choice,
        parameters,
        gain,
        change,
        rank: chosen.ranks.max(),
        runs,
    }
}

/// The ranks that an alternative has room for, to the last.
fn settle<'a>(chosen: &Chosen<'a>, other: Alternative<'a>) -> Alternative<'a> {
    let site = chosen.site;
    let space = &site.source.space;
    let room = other.choice.room(site.memory(), chosen.fleet_seconds);
    let Some(selection) = room.and_then(|room| space.frontier.greedy(room)) else {
        return other;
    };
    Alternative {
        parameters: selection.parameters,
        gain: selection.gain,
        rank: space.highest(&selection.levels),
        ..other
    }
}

impl Chosen<'_> {
    /// Bytes that an alternative needs, the margin included.
    fn needed(&self, other: &Alternative<'_>) -> f64 {
        let conditions = &self.site.source.conditions;
        let training = conditions.training_bytes(other.lane.mode, other.lane.batch);
        training.of(other.parameters).max(other.lane.scoring)
    }

    fn seconds(&self, other: &Alternative<'_>) -> f64 {
        other.choice.seconds.of(other.parameters)
    }
}

fn limit(chosen: &Chosen<'_>, other: &Alternative<'_>) -> f64 {
    chosen.fleet_seconds.min(other.choice.longest)
}

fn reject(chosen: &Chosen<'_>, other: &Alternative<'_>) -> Rejected {
    let gain = other.choice.value(other.gain) - chosen.decision.solution.value;
    let mode = &other.lane.mode.mode;
    let is_other = *mode != chosen.decision.lane.mode.mode;
    Rejected {
        rank: other.rank,
        batch: other.lane.batch,
        because: because(chosen, other, gain),
        change: other.change,
        mode: is_other.then(|| mode.clone()),
        memory_bytes: Some(chosen.needed(other).ceil() as u64),
        round_seconds: Some(chosen.seconds(other)),
        gain: Some(gain),
    }
}

/// What an alternative lacks, as the end of a sentence about it.
fn because(chosen: &Chosen<'_>, other: &Alternative<'_>, gain: f64) -> String {
    let (needed, time) = (chosen.needed(other), chosen.seconds(other));
    let memory = chosen.site.memory();
    // Said where it is not that of the choice, which the text begins with.
    let (rounds, round) = match other.lane.steps {
        own if own == chosen.decision.lane.steps => (String::new(), "a round".to_owned()),
        1 => (
            "in rounds of 1 step ".to_owned(),
            "a round of 1 step".to_owned(),
        ),
        own => (
            format!("in rounds of {own} steps "),
            format!("a round of {own} steps"),
        ),
    };
    let mut lacks = if needed > memory {
        format!(
            "{rounds}it needs {} of memory, {} more than the worker may use",
            bytes(needed),
            bytes(needed - memory),
        )
    } else if time > other.choice.longest {
        format!(
            "{round} takes {}, and the job's deadlines leave {}",
            seconds(time),
            seconds(other.choice.longest),
        )
    } else if time > chosen.fleet_seconds {
        format!(
            "{round} takes {}, {} more than the fleet, which finishes in {}",
            seconds(time),
            seconds(time - chosen.fleet_seconds),
            seconds(chosen.fleet_seconds),
        )
    } else {
        format!("{rounds}{}", worse(chosen, other, gain))
    };
    if gain > 0.0 {
        lacks.push_str(&format!(
            "; it would lower the loss by {} more a round",
            loss(gain)
        ));
    }
    if !other.runs && other.lane.mode.mode.optimizer == Optimizer::Mezo {
        lacks.push_str("; zeroth-order steps are for sites without room for gradients");
    }
    lacks
}

/// Why something that fits is not better.
fn worse(chosen: &Chosen<'_>, other: &Alternative<'_>, gain: f64) -> String {
    let source = &chosen.site.source;
    let penalty = source.worth.penalty(source.profile, &other.lane.mode.mode)
        - source
            .worth
            .penalty(source.profile, &chosen.decision.lane.mode.mode);
    let parameters = chosen.decision.solution.parameters;
    let mut worse = if gain < 0.0 {
        format!(
            "it fits, and lowers the loss by {} less a round",
            loss(-gain)
        )
    } else {
        "it fits, and gains no more".to_owned()
    };
    if other.parameters < parameters {
        worse.push_str(&format!(
            ", for it leaves room for {:.0} % of the adapter's parameters",
            100.0 * other.parameters as f64 / parameters.max(1) as f64
        ));
    }
    if penalty > 0.0 {
        worse.push_str(&format!(
            ", for its rounding raises the measured loss by {}",
            loss(penalty)
        ));
    }
    worse
}

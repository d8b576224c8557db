//! What a site lacks for the smallest choice that the job allows, with figures.

use domain::cause::Trouble;

use super::lane::Lanes;
use super::predict::most_seconds;
use super::site::{Lack, Site};
use super::units::{bytes, seconds};

/// The least that a set of choices asks for.
struct Least {
    batch: u16,
    needed: f64,
    seconds: f64,
    longest: f64,
}

/// `None` if the site has room for something that can run.
pub(super) fn lacking(site: &Site<'_>) -> Option<Lack> {
    if site.source.fits(&site.open) {
        return None;
    }
    let spec = site.source.spec;
    let zeroth = zeroth_order(site);
    let Some(least) = least(site, &site.open) else {
        let detail = format!("it measured no first-order training that the job allows{zeroth}");
        return Some(Lack::new(Trouble::OutOfMemory, detail));
    };
    let rank = site.source.space.least_rank();
    let smallest = format!(
        "the smallest choice the job allows (rank {rank}, {} records a step of up to {} tokens)",
        least.batch, spec.training.sequence_length,
    );
    if least.needed > site.memory() {
        let detail = format!(
            "{smallest} needs {}{} of memory and it may use {}: {} are missing{zeroth}",
            bytes(least.needed),
            side_term(site),
            bytes(site.memory()),
            bytes(least.needed - site.memory()),
        );
        return Some(Lack::new(Trouble::OutOfMemory, detail));
    }
    let detail = format!(
        "{smallest} takes {} a round and the job's deadlines leave {}: {} are missing{zeroth}",
        seconds(least.seconds),
        seconds(least.longest),
        seconds(least.seconds - least.longest),
    );
    Some(Lack::new(Trouble::TooLate, detail))
}

/// What of it is the side term's, as words between the figure and what it is of.
fn side_term(site: &Site<'_>) -> String {
    let side = site.source.conditions.side_bytes;
    if side == 0 {
        return String::new();
    }
    let strategy = site.source.spec.aggregation.strategy.name();
    let side = bytes(side as f64);
    format!(" ({side} of it for the side term that strategy {strategy} may grow to)")
}

/// What is nearest to fitting: of those that fit memory the fastest, else the smallest.
fn least(site: &Site<'_>, lanes: &Lanes<'_>) -> Option<Least> {
    let parameters = site.source.space.frontier.least();
    let needs = lanes
        .lanes
        .iter()
        .zip(&lanes.choices)
        .map(|(lane, choice)| {
            let training = site.source.conditions.training_bytes(lane.mode, lane.batch);
            Least {
                batch: lane.batch,
                needed: training.of(parameters).max(lane.scoring),
                seconds: choice.seconds.of(parameters),
                longest: choice.longest.min(most_seconds(site.source.spec)),
            }
        });
    needs.min_by(|left, right| {
        let missing = |least: &Least| (least.needed - site.memory()).max(0.0);
        let late = |least: &Least| least.seconds - least.longest;
        let order = missing(left).total_cmp(&missing(right));
        order.then(late(left).total_cmp(&late(right)))
    })
}

/// What zeroth-order training would have taken here, as the end of a sentence.
fn zeroth_order(site: &Site<'_>) -> String {
    let Some(least) = least(site, &site.shown) else {
        return String::new();
    };
    let fits = if least.needed > site.memory() {
        format!(
            ", {} more than it may use",
            bytes(least.needed - site.memory())
        )
    } else {
        ", which it has".to_owned()
    };
    let but = if site.source.spec.takes_zeroth_order() {
        String::new()
    } else {
        let strategy = site.source.spec.aggregation.strategy.name();
        format!(", but not under strategy {strategy}, so the site cannot take part")
    };
    format!(
        "; zeroth-order training would take {} of memory{fits}, and {} a round{but}",
        bytes(least.needed),
        seconds(least.seconds),
    )
}

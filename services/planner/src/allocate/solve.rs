//! Which solver decides a worker's program, and its decision as something to train.

use domain::job::planner::Solver;

use super::lane::Lane;
use super::program::exact::{self, Budget};
use super::program::{Choice, Solution, fast};
use super::site::Site;

/// Binary variables of the exact program of one choice up to which `auto` solves it exactly. 64 weights of 6
/// ranks are as many, and were all decided within the limit of nodes (`program::tests`).
const VARIABLES: usize = 384;

/// Variables of the whole fleet's up to which `auto` does: some seconds of branch and bound.
const FLEET_VARIABLES: usize = 40_000;

/// What a site is to train.
pub(super) struct Decision<'a> {
    pub lane: Lane<'a>,
    pub choice: Choice,
    pub solution: Solution,
    /// Whether it is known to be the best.
    pub proven: bool,
    /// Share of the most that any choice can be worth by which it may be below the best.
    pub gap: f64,
}

/// What the job's solver means for these sites.
pub(super) fn solver(asked: Solver, sites: &[Site<'_>]) -> Solver {
    let variables = sites.first().map_or(0, |site| {
        let items = site.source.space.frontier.items().iter();
        items.map(|item| item.levels().len()).sum()
    });
    let small = variables <= VARIABLES && variables * sites.len() <= FLEET_VARIABLES;
    match asked {
        Solver::Auto if small => Solver::Exact,
        Solver::Auto => Solver::Fast,
        fixed => fixed,
    }
}

/// The site's best choice for a round of so many seconds, by what the plan's budget still has.
pub(super) fn decide<'a>(
    solver: Solver,
    site: &Site<'a>,
    seconds: f64,
    budget: &mut Budget,
) -> Option<Decision<'a>> {
    let instance = site.instance(seconds);
    let (solution, proven) = match solver {
        Solver::Exact => {
            let exact = exact::solve(&instance, budget)?;
            (exact.solution, exact.proven)
        }
        Solver::Fast | Solver::Auto => (fast::solve(&instance)?, false),
    };
    let bound = instance.bound().unwrap_or(solution.value);
    let gap = if proven || bound <= 0.0 {
        0.0
    } else {
        ((bound - solution.value) / bound).max(0.0)
    };
    Some(Decision {
        lane: *site.open.lanes.get(solution.choice)?,
        choice: *site.open.choices.get(solution.choice)?,
        solution,
        proven,
        gap,
    })
}

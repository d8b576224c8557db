//! The program solved exactly, by branch and bound (microlp, through good_lp).
//!
//! What is one program on paper is solved as one for each choice of batch and mode, from the most
//! promising bound on, until no other choice can be better: with the choice fixed, no product of variables is
//! left, and most choices are never opened. The number of nodes is limited, never the time, so that the same
//! instance gives the same solution everywhere.

use ::microlp::{SolutionStatus, SolveOptions};
use good_lp::{Expression, SolverModel, Variable, constraint, microlp, variable, variables};

use super::fast;
use super::frontier::{Frontier, Selection};
use super::instance::{Instance, Solution};

/// Nodes that are opened for one choice at most.
pub const NODES: u64 = 20_000;

/// What all choices of all sites of a plan may take together: as much as ten that are never decided, of the largest program
/// that `auto` has solved exactly.
const WORK: u64 = 10 * NODES * 384;

/// What branch and bound may still take for a plan, or one job would keep every other from being planned. In nodes times
/// variables, as a node of more variables takes longer.
#[derive(Debug)]
pub struct Budget(pub u64);

impl Default for Budget {
    fn default() -> Self {
        Self(WORK)
    }
}

impl Budget {
    /// Nodes that one choice may open in a program of so many variables.
    fn nodes(&self, variables: u64) -> u64 {
        NODES.min(self.0 / variables.max(1))
    }

    fn spend(&mut self, nodes: u64, variables: u64) {
        // To set a program up takes as long as a node.
        self.0 = self.0.saturating_sub((nodes + 1) * variables);
    }
}

/// A solution, and whether it is known to be the best.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    /// The best that was found.
    pub solution: Solution,
    /// Whether every choice was decided within [`NODES`] and the budget.
    pub proven: bool,
}

/// Solves an instance; `None` if no choice has room for the smallest adapter. What the budget has no nodes for is left to
/// the fast search.
#[must_use]
pub fn solve(instance: &Instance<'_>, budget: &mut Budget) -> Option<Exact> {
    let mut proven = true;
    let solution = instance.best(|room| match branch(instance.frontier, room, budget) {
        Some(selection) => Some(selection),
        None => {
            proven = false;
            fast::spend(instance.frontier, room)
        }
    })?;
    Some(Exact { solution, proven })
}

/// The ranks that gain most in `room`; `None` if that was not decided.
fn branch(frontier: &Frontier, room: u64, budget: &mut Budget) -> Option<Selection> {
    let items = frontier.items();
    let variables: u64 = items.iter().map(|item| item.levels().len() as u64).sum();
    let limit = budget.nodes(variables);
    if limit == 0 {
        return None;
    }
    // Whole units and gains about 1 keep the solver's tolerances far below what counts.
    let unit = items.iter().flat_map(|item| {
        let levels = item.levels().iter();
        levels.map(|level| item.parameters(*level))
    });
    let unit = unit.fold(0, greatest_divisor).max(1);
    let scale = frontier.most_gain();
    let scale = if scale > 0.0 { scale } else { 1.0 };
    let mut program = variables!();
    let rows: Vec<Vec<Variable>> = items
        .iter()
        .map(|item| program.add_vector(variable().binary(), item.levels().len()))
        .collect();
    let (mut gain, mut size, mut trains) = (
        Expression::from(0.0),
        Expression::from(0.0),
        Expression::from(0.0),
    );
    for (item, row) in items.iter().zip(&rows) {
        for (level, variable) in item.levels().iter().zip(row) {
            gain += level.gain / scale * *variable;
            size += (item.parameters(*level) / unit) as f64 * *variable;
            trains += f64::from(u8::from(level.rank > 0)) * *variable;
        }
    }
    let mut model = program.maximise(gain).using(microlp);
    for row in &rows {
        let one: Expression = row.iter().sum();
        model.add_constraint(constraint!(one == 1.0));
    }
    let most = room.min(frontier.most());
    model.add_constraint(constraint!(size <= (most / unit) as f64));
    model.add_constraint(constraint!(trains >= 1.0));
    let mut options = SolveOptions::default();
    options.node_limit = Some(limit);
    let solved = model.as_inner().solve_with(options);
    let nodes = solved.as_ref().map(|outcome| outcome.stats().nodes_solved);
    budget.spend(nodes.unwrap_or(limit), variables);
    let solution = solved.ok()?.into_solution().ok()?;
    if solution.status() != SolutionStatus::Optimal {
        return None;
    }
    let mut values = solution.iter().map(|(_, value)| value);
    let chosen = rows.iter().map(|row| {
        let row: Vec<f64> = values.by_ref().take(row.len()).collect();
        row.iter().position(|value| *value > 0.5)
    });
    let levels: Vec<usize> = chosen.collect::<Option<_>>()?;
    let selection = frontier.selection(levels)?;
    // The solver's tolerance must not have bought more than there is.
    (selection.parameters <= room).then_some(selection)
}

fn greatest_divisor(left: u64, right: u64) -> u64 {
    let (mut left, mut right) = (left, right);
    while right > 0 {
        (left, right) = (right, left % right);
    }
    left
}

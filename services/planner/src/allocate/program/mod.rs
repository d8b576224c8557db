//! The plan of one worker as a mixed-integer program over numbers alone: it knows no job and no profile.
//!
//! \[recon\] ALGORITHMS.md 1.2. Rows of one-hot variables `x[m][r]` (the rank r of weight m) and one
//! choice of batch and mode `c`, so that
//!
//! ```text
//! max  factor(c) · Σ_m φ_m(r_m) + constant(c)
//! s.t. memory(c) + memory_per_parameter(c) · Σ_m r_m·(in_m + out_m) ≤ memory
//!      time(c)   + time_per_parameter(c)   · Σ_m r_m·(in_m + out_m) ≤ T
//!      Σ_m r_m > 0
//! ```
//!
//! Both costs grow with the same number, the adapter's parameters. So for one choice the two budgets are
//! one, the smaller [`Choice::room`], without any approximation; and what that room is best spent on is
//! the same question for every choice and every worker of a job. [`Frontier`] is prepared for it once.
//!
//! [`fast::solve`] and [`exact::solve`] both look at the choices from the most promising bound down, and
//! spend the room of each: one by marginal gain per parameter, the other by branch and bound.

pub mod dynamic;
pub mod exact;
pub mod fast;
pub mod frontier;
pub mod instance;

#[cfg(test)]
mod tests;

pub use frontier::{Frontier, Selection};
pub use instance::{Affine, Choice, Instance, Item, Level, Solution};

//! The fast search against the exact one, and both against trying everything. Every instance follows from
//! its seed, which a failure names.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::exact::Budget;
use super::*;

/// An instance that owns its parts.
struct Owned {
    frontier: Frontier,
    choices: Vec<Choice>,
    memory: f64,
    seconds: f64,
}

impl Owned {
    fn instance(&self) -> Instance<'_> {
        Instance {
            frontier: &self.frontier,
            choices: &self.choices,
            memory: self.memory,
            seconds: self.seconds,
        }
    }
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// From `low` to below `high`.
    fn within(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        low + unit * (high - low)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.0.next_u64() % of.len() as u64) as usize]
    }
}

/// Levels 0, 2, 4, … of a spectrum whose energies fall like `j^-decay`, unevenly.
fn item(dice: &mut Dice, rank_max: u16) -> Item {
    let (energy, decay) = (10f64.powf(dice.within(-2.0, 0.0)), dice.within(0.3, 2.0));
    let mut energies: Vec<f64> = (1..=rank_max)
        .map(|j| energy * f64::from(j).powf(-decay) * dice.within(0.8, 1.2))
        .collect();
    energies.sort_by(|left, right| right.total_cmp(left));
    let ranks = [0, 2, 4, 8, 16, 32]
        .into_iter()
        .filter(|rank| *rank <= rank_max);
    let levels = ranks.map(|rank| Level {
        rank,
        gain: energies.iter().take(usize::from(rank)).sum(),
    });
    let side = [64, 192, 576, 768, 960, 1536];
    let size = dice.pick(&side) + dice.pick(&side);
    Item::new(size, levels.collect()).expect("legal")
}

/// Batches and modes whose budgets admit 10 to 90 % of full rank, by memory and by time.
fn random(seed: u64, weights: std::ops::RangeInclusive<u64>, choices: usize) -> Owned {
    let mut dice = Dice::new(seed);
    let span =
        (weights.start() + dice.0.next_u64() % (weights.end() - weights.start() + 1)) as usize;
    let rank_max = dice.pick(&[8, 16, 32]);
    let items: Vec<Item> = (0..span).map(|_| item(&mut dice, rank_max)).collect();
    let frontier = Frontier::new(items).expect("legal");
    let full = frontier.most() as f64;
    let whole = frontier.most_gain();
    let (memory, seconds) = (1e9, 60.0);
    let cost = |dice: &mut Dice, limit: f64| {
        let fixed = limit * dice.within(0.2, 0.8);
        let admitted = full * dice.within(0.1, 0.9);
        Affine {
            fixed,
            per_parameter: (limit - fixed) / admitted,
        }
    };
    let choices = (0..choices).map(|_| Choice {
        factor: dice.within(0.2, 1.0),
        constant: -whole * dice.within(0.0, 0.02),
        memory: cost(&mut dice, memory),
        seconds: cost(&mut dice, seconds),
        longest: f64::INFINITY,
    });
    let choices = choices.collect();
    Owned {
        frontier,
        choices,
        memory,
        seconds,
    }
}

/// What a solution says of itself is true, and it fits.
fn check(seed: u64, owned: &Owned, solution: &Solution) {
    let bound = owned.instance().bound().expect("a choice has room");
    // The bound is a sum in another order.
    assert!(
        solution.value <= bound * (1.0 + 1e-9) + 1e-12,
        "{seed}: {bound}"
    );
    let choice = owned.choices[solution.choice];
    let items = owned.frontier.items().iter().zip(&solution.levels);
    let levels: Vec<(u64, f64)> = items
        .map(|(item, level)| {
            (
                item.parameters(item.levels()[*level]),
                item.levels()[*level].gain,
            )
        })
        .collect();
    let parameters: u64 = levels.iter().map(|(parameters, _)| parameters).sum();
    let gain: f64 = levels.iter().map(|(_, gain)| gain).sum();
    assert_eq!(parameters, solution.parameters, "seed {seed}");
    assert!(parameters > 0, "seed {seed}: it trains nothing");
    assert!(
        (choice.value(gain) - solution.value).abs() < 1e-9,
        "seed {seed}"
    );
    assert!(
        choice.memory.of(parameters) <= owned.memory,
        "seed {seed}: memory"
    );
    assert!(
        choice.seconds.of(parameters) <= owned.seconds,
        "seed {seed}: time"
    );
}

/// The best value by trying every combination.
fn exhaustive(owned: &Owned) -> Option<f64> {
    let mut best: Option<f64> = None;
    for choice in &owned.choices {
        let mut states = vec![(0u64, 0.0)];
        for item in owned.frontier.items() {
            let grown = states.iter().flat_map(|(parameters, gain)| {
                let levels = item.levels().iter();
                levels.map(move |level| (parameters + item.parameters(*level), gain + level.gain))
            });
            states = grown.collect();
        }
        for (parameters, gain) in states {
            let fits = choice.memory.of(parameters) <= owned.memory
                && choice.seconds.of(parameters) <= owned.seconds;
            let value = choice.value(gain);
            if fits && parameters > 0 && best.is_none_or(|best| value > best) {
                best = Some(value);
            }
        }
    }
    best
}

#[test]
fn both_find_what_trying_everything_finds() {
    for seed in 0..60 {
        let owned = random(seed, 1..=4, 3);
        let expected = exhaustive(&owned);
        let exact = exact::solve(&owned.instance(), &mut Budget::default());
        let fast = fast::solve(&owned.instance());
        let values = [
            exact.as_ref().map(|exact| exact.solution.value),
            fast.as_ref().map(|fast| fast.value),
        ];
        for found in values {
            match (expected, found) {
                (Some(expected), Some(found)) => {
                    assert!(
                        (expected - found).abs() < 1e-9,
                        "seed {seed}: {found}, not {expected}"
                    );
                }
                (expected, found) => assert_eq!(expected, found, "seed {seed}"),
            }
        }
        assert!(exact.is_none_or(|exact| exact.proven), "seed {seed}");
        if let Some(fast) = fast {
            check(seed, &owned, &fast);
        }
    }
}

#[test]
fn what_a_plan_has_no_nodes_left_for_the_fast_search_decides_and_nothing_is_called_proven() {
    let owned = random(1000, 8..=64, 4);
    let fast = fast::solve(&owned.instance()).expect("budgets admit 10 %");
    let exact = exact::solve(&owned.instance(), &mut Budget(0)).expect("budgets admit 10 %");
    assert_eq!((exact.solution, exact.proven), (fast, false));
    let mut budget = Budget::default();
    let all = budget.0;
    let decided = exact::solve(&owned.instance(), &mut budget);
    assert!(decided.is_some_and(|exact| exact.proven));
    assert!(budget.0 < all, "what one site took, the next has not");
}

/// The 500 instances: seeds 1000 to 1499.
#[test]
fn the_fast_search_is_within_one_percent_of_the_exact_one_never_infeasible_and_never_better() {
    let (mut worst, mut nodes_ended) = (0.0f64, 0);
    for seed in 1000..1500 {
        let owned = random(seed, 8..=64, 4);
        let fast = fast::solve(&owned.instance()).expect("budgets admit 10 %");
        let exact =
            exact::solve(&owned.instance(), &mut Budget::default()).expect("budgets admit 10 %");
        check(seed, &owned, &fast);
        check(seed, &owned, &exact.solution);
        nodes_ended += usize::from(!exact.proven);
        let (fast, exact) = (fast.value, exact.solution.value);
        assert!(exact > 0.0, "seed {seed}: nothing to compare");
        assert!(
            fast <= exact + 1e-9,
            "seed {seed}: {fast} is better than {exact}"
        );
        worst = worst.max(1.0 - fast / exact);
        assert!(fast >= 0.99 * exact, "seed {seed}: {fast} of {exact}");
    }
    assert_eq!(nodes_ended, 0, "the comparison is with what is proven");
    println!(
        "the fast search is at most {:.4} % below the exact one",
        100.0 * worst
    );
}

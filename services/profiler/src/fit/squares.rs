//! Least squares with a few unknowns that must not be negative, solved exactly by trying every set of
//! unknowns that may be above zero.

/// Share of a column that the others must leave unexplained for it to count as separate. Samples that
/// differ by less than a few percent say nothing about the rest of the range.
const SEPARATE: f64 = 0.02;

/// Share under which a column is a combination of the others as far as rounding can tell.
const DEPENDENT: f64 = 1e-9;

/// The columns' coefficients of the least squares solution with no coefficient below 0. An absent
/// column has the coefficient 0. All columns are as long as `target`, and there are at most 8.
pub(super) fn nonnegative<const N: usize>(
    columns: &[Option<Vec<f64>>; N],
    target: &[f64],
) -> [f64; N] {
    let mut best = [0.0; N];
    let mut least = f64::INFINITY;
    for mask in 0u16..1 << N {
        let chosen = (0..N)
            .zip(columns)
            .filter(|(bit, _)| mask & (1 << bit) != 0);
        let Some(chosen) = chosen
            .map(|(_, column)| column.as_deref())
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let Some(solution) = solve(&chosen, target) else {
            continue;
        };
        if solution.iter().any(|coefficient| *coefficient < 0.0) {
            continue;
        }
        let residual = residual(&chosen, &solution, target);
        if residual < least {
            least = residual;
            let mut values = solution.into_iter();
            best = std::array::from_fn(|bit| {
                let on = mask & (1 << bit) != 0;
                if on {
                    values.next().unwrap_or(0.0)
                } else {
                    0.0
                }
            });
        }
    }
    best
}

/// Which of the columns after the first can be told from those before it; one that cannot is left out
/// of what the next is compared with.
pub(super) fn separable<const N: usize, const M: usize>(columns: &[Vec<f64>; N]) -> [bool; M] {
    let mut columns = columns.iter();
    let first = columns.next().cloned().unwrap_or_default();
    let mut basis = vec![unit(first)];
    std::array::from_fn(|_| {
        let Some(column) = columns.next() else {
            return false;
        };
        let rest = without(&basis, without(&basis, column.clone()));
        let separate = norm(&rest) / norm(column).max(f64::MIN_POSITIVE) > SEPARATE;
        if separate {
            basis.push(unit(rest));
        }
        separate
    })
}

/// `|found − expected| / expected`.
pub(super) fn relative_error(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected
}

/// Plain least squares by Gram and Schmidt; `None` if the columns depend on each other.
fn solve(columns: &[&[f64]], target: &[f64]) -> Option<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for column in columns {
        let rest = without(&basis, without(&basis, column.to_vec()));
        if norm(&rest) <= DEPENDENT * norm(column) {
            return None;
        }
        basis.push(unit(rest));
    }
    // Back substitution, last column first: what it explains is taken off the target.
    let mut rest = target.to_vec();
    let mut solution = Vec::with_capacity(columns.len());
    for (column, direction) in columns.iter().zip(&basis).rev() {
        let coefficient = dot(direction, &rest) / dot(direction, column);
        for (value, entry) in rest.iter_mut().zip(*column) {
            *value -= coefficient * entry;
        }
        solution.push(coefficient);
    }
    solution.reverse();
    Some(solution)
}

fn residual(columns: &[&[f64]], solution: &[f64], target: &[f64]) -> f64 {
    let mut rest = target.to_vec();
    for (column, coefficient) in columns.iter().zip(solution) {
        for (value, entry) in rest.iter_mut().zip(*column) {
            *value -= coefficient * entry;
        }
    }
    dot(&rest, &rest)
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

fn unit(vector: Vec<f64>) -> Vec<f64> {
    let length = norm(&vector).max(f64::MIN_POSITIVE);
    vector.into_iter().map(|value| value / length).collect()
}

fn without(basis: &[Vec<f64>], mut vector: Vec<f64>) -> Vec<f64> {
    for direction in basis {
        let along = dot(direction, &vector);
        for (value, entry) in vector.iter_mut().zip(direction) {
            *value -= along * entry;
        }
    }
    vector
}

//! An axis: which part of the numbers it shows, and where it is marked.

/// Marks of an axis, about.
const MARKS: f64 = 5.0;

/// What two ways to compute the same number differ by at most.
const ROUNDING: f64 = 1e-9;

/// A range of numbers with marks at round ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// The lowest.
    pub from: f64,
    /// The highest, above the lowest.
    pub to: f64,
    step: f64,
}

impl Axis {
    /// An axis that shows all of these, from one mark to another. `whole`: marks at whole numbers only.
    pub fn over(numbers: impl Iterator<Item = f64> + Clone, whole: bool) -> Self {
        let low = numbers.clone().fold(f64::INFINITY, f64::min);
        let high = numbers.fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        // A curve that does not move has a place too.
        let width = if high > low {
            high - low
        } else {
            low.abs().max(1.0)
        };
        let mut step = nice(width / MARKS);
        if whole {
            step = step.max(1.0);
        }
        // Rounding is no reason for one more mark.
        let from = (low / step + ROUNDING).floor() * step;
        let to = (high / step - ROUNDING).ceil() * step;
        let to = if to > from { to } else { from + step };
        Self { from, to, step }
    }

    /// The share of the axis that lies below this number.
    pub fn share(&self, number: f64) -> f64 {
        ((number - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    /// Its marks, from the lowest to the highest, as they are written.
    pub fn marks(&self) -> Vec<(f64, String)> {
        let count = ((self.to - self.from) / self.step).round() as u32;
        let decimals = (-self.step.log10().floor()).clamp(0.0, 12.0) as usize;
        let mark = |place: u32| {
            // The lowest mark is a multiple of the step: so are all, without sums of roundings.
            let number = ((self.from / self.step).round() + f64::from(place)) * self.step;
            let text = format!("{number:.decimals$}");
            (
                number,
                if text
                    .trim_start_matches('-')
                    .chars()
                    .all(|c| matches!(c, '0' | '.'))
                {
                    "0".to_owned()
                } else {
                    text
                },
            )
        };
        (0..=count).map(mark).collect()
    }
}

/// 1, 2 or 5 times a power of ten: the next from here on.
fn nice(width: f64) -> f64 {
    let power = 10f64.powf(width.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= width * (1.0 - ROUNDING));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[f64], whole: bool, marks: &[&str]) {
        let axis = Axis::over(numbers.iter().copied(), whole);
        let found: Vec<String> = axis.marks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(found, marks, "{numbers:?}");
        for number in numbers {
            let share = axis.share(*number);
            assert!((0.0..=1.0).contains(&share), "{number} at {share}");
        }
    }

    #[test]
    fn marks_are_round_and_hold_all_numbers() {
        check(&[0.0, 10.0], true, &["0", "2", "4", "6", "8", "10"]);
        check(&[0.0, 2.0], true, &["0", "1", "2"]);
        check(
            &[0.52, 0.94],
            false,
            &["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"],
        );
        check(
            &[1.234, 3.01],
            false,
            &["1.0", "1.5", "2.0", "2.5", "3.0", "3.5"],
        );
        check(
            &[-0.2, 0.3],
            false,
            &["-0.2", "-0.1", "0", "0.1", "0.2", "0.3"],
        );
        check(
            &[1.0, 100_000.0],
            true,
            &["0", "20000", "40000", "60000", "80000", "100000"],
        );
        check(
            &[1e-4, 3e-4],
            false,
            &["0.00010", "0.00015", "0.00020", "0.00025", "0.00030"],
        );
    }

    #[test]
    fn one_number_or_none_has_an_axis_too() {
        check(&[2.0], false, &["2.0", "2.5"]);
        check(&[1.0], true, &["1", "2"]);
        check(&[], false, &["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }
}

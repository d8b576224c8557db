//! Series that come and go: what is to be seen of jobs and workers at one moment, within a bound.

use std::collections::BTreeMap;

use super::{Kind, Metric};

/// Jobs that are shown at most.
pub const JOBS_SHOWN: usize = 16;

/// Workers that are shown at most, in all and of each job.
pub const WORKERS_SHOWN: usize = 256;

/// Series of one metric at most: every shown worker of every shown job.
pub const SERIES_SHOWN: usize = JOBS_SHOWN * WORKERS_SHOWN;

/// The values of a metric's labels, in the order in which it declares them.
type Values = Vec<String>;

/// What is shown of jobs and workers at one moment. The next picture replaces all of it, so what has
/// gone is gone from the metrics too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    series: BTreeMap<Metric, BTreeMap<Values, f64>>,
    left_out: usize,
}

impl Picture {
    /// Adds a value; one that is no finite number is left out. Beyond [`SERIES_SHOWN`] of a metric, series
    /// are counted and not kept.
    pub fn add(&mut self, metric: Metric, values: &[&str], value: f64) {
        debug_assert_eq!(metric.kind(), Kind::Shown, "{metric:?} is of another kind");
        debug_assert_eq!(values.len(), metric.labels().len(), "{metric:?}");
        if !value.is_finite() {
            return;
        }
        let series = self.series.entry(metric).or_default();
        let values: Values = values.iter().map(|value| (*value).to_owned()).collect();
        if series.len() < SERIES_SHOWN || series.contains_key(&values) {
            series.insert(values, value);
        } else {
            self.left_out += 1;
        }
    }

    /// Counts what was left out before it came here: jobs or workers beyond the bound.
    pub fn leave_out(&mut self, count: usize) {
        self.left_out += count;
    }

    /// How much was left out.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// A value, if it is in the picture.
    #[must_use]
    pub fn get(&self, metric: Metric, values: &[&str]) -> Option<f64> {
        let values: Values = values.iter().map(|value| (*value).to_owned()).collect();
        self.series.get(&metric)?.get(&values).copied()
    }

    /// All series of a metric.
    pub fn of(&self, metric: Metric) -> impl Iterator<Item = (&[String], f64)> {
        let series = self.series.get(&metric).into_iter().flatten();
        series.map(|(values, value)| (values.as_slice(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_no_more_series_than_its_bound_and_the_rest_is_counted() {
        let mut picture = Picture::default();
        for number in 0..SERIES_SHOWN + 3 {
            picture.add(Metric::WorkerUp, &[&format!("site-{number}")], 1.0);
        }
        picture.add(Metric::WorkerUp, &["site-0"], 0.0);
        assert_eq!(picture.of(Metric::WorkerUp).count(), SERIES_SHOWN);
        assert_eq!(picture.left_out(), 3);
        assert_eq!(picture.get(Metric::WorkerUp, &["site-0"]), Some(0.0));
    }

    #[test]
    fn what_is_no_number_is_not_shown() {
        let mut picture = Picture::default();
        picture.add(Metric::JobLoss, &["job_1"], f64::NAN);
        assert_eq!(picture, Picture::default());
    }
}

//! What an examination and the site's link amount to: the measurement that leaves the site.

use contract::message::task::{ModelRef, Probe};
use domain::fleet::DatasetSummary;
use domain::job::spec::Base;
use domain::profile::Measurement;
use engine::kernel::{Compute, Kernel};

use super::examination::Examined;
use crate::compute::Key;
use crate::machine::Machine;

/// The site's way to the others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Link {
    /// Upload to object storage; 0 where it was not measured.
    pub upload_bytes_per_second: f64,
    /// Download from object storage; 0 where it was not measured.
    pub download_bytes_per_second: f64,
    /// Round trip to the message bus.
    pub round_trip_ms: f64,
}

/// The model as measured is the model as trained: the worker's best where the job leaves it open.
#[must_use]
pub fn key(threads: u16, task: &Probe) -> Key {
    let base = match task.base {
        // As it came: the least memory, and decoded to the same numbers.
        Base::Auto => Base::Source,
        fixed => fixed,
    };
    Key {
        model: task.head.model.clone(),
        base,
        kernel: Kernel::best(Compute::F32),
        threads,
    }
}

impl Examined {
    /// The measurement of a data set of which this was examined.
    #[must_use]
    pub fn measurement(
        self,
        site: &Machine,
        task: &Probe,
        summary: &DatasetSummary,
        link: Link,
    ) -> Measurement {
        let model = match &task.head.model {
            ModelRef::Digest(digest) => Some(digest.clone()),
            ModelRef::Path(_) => None,
        };
        Measurement {
            model,
            weights: self.weights,
            encoder: self.encoder,
            layers: self.layers,
            memory_limit_bytes: site.memory_limit_bytes,
            threads: site.threads,
            modes: self.modes,
            noise: self.noise,
            importance: self.importance,
            forward_tokens_per_second: self.forward_tokens_per_second,
            upload_bytes_per_second: link.upload_bytes_per_second,
            download_bytes_per_second: link.download_bytes_per_second,
            round_trip_ms: link.round_trip_ms,
            records: summary.records,
            held_out: summary.held_out,
            skipped: summary.skipped,
            mean_tokens: self.lengths.mean,
            mean_squares: self.lengths.mean_square,
        }
    }
}

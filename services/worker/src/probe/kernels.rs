//! Which kernels a probe tries.

use domain::job::spec::Compute;
use engine::kernel::{self, Kernel, Unit};

/// The kernels of this machine that the job leaves open. Where it fixes the arithmetic there is one: the
/// machine's best. `auto` is `f32`, and bf16 beside it where the machine has instructions for it: what
/// is rounded there trains as well, but not zeroth-order: a slope is a small difference of two losses, which
/// bf16 rounds by a tenth and more (`engine::train::Gate`). 8-bit products are for jobs that ask for them.
#[must_use]
pub fn candidates(asked: Compute, zeroth_order: bool) -> Vec<Kernel> {
    let best = Kernel::best;
    match asked {
        Compute::Auto if zeroth_order => vec![best(kernel::Compute::F32)],
        Compute::F32 => vec![best(kernel::Compute::F32)],
        Compute::Bf16 => vec![best(kernel::Compute::Bf16)],
        Compute::Int8 => vec![best(kernel::Compute::Int8)],
        Compute::Auto => {
            let words = best(kernel::Compute::Bf16);
            let mut all = vec![best(kernel::Compute::F32)];
            if words.unit() >= Unit::Avx512Dot {
                // Last: it is likely the fastest, and then loaded already.
                all.push(words);
            }
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_job_fixes_is_the_only_candidate_and_auto_never_means_integers() {
        for (asked, compute) in [
            (Compute::F32, kernel::Compute::F32),
            (Compute::Bf16, kernel::Compute::Bf16),
            (Compute::Int8, kernel::Compute::Int8),
        ] {
            let found: Vec<_> = candidates(asked, false)
                .into_iter()
                .map(Kernel::compute)
                .collect();
            assert_eq!(found, [compute]);
        }
        let exact = candidates(Compute::Auto, true);
        assert_eq!(exact, [Kernel::best(kernel::Compute::F32)]);
        let auto = candidates(Compute::Auto, false);
        assert!(auto.contains(&Kernel::best(kernel::Compute::F32)));
        assert!(
            auto.iter()
                .all(|one| one.compute() != kernel::Compute::Int8)
        );
    }
}

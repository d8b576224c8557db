//! Which precisions of the base a probe measures. Pure.

use domain::job::spec::Base;

/// By how much a base must differ from the source in bytes to count as another.
const OTHER: f64 = 1.1;

/// Share of the memory that a base wider than the source may take to be looked at.
const WIDE_SHARE: f64 = 1.0 / 3.0;

/// The bases that are not the source.
const MADE: [Base; 4] = [Base::Nf4, Base::Int8, Base::Bf16, Base::F32];

/// The base that is measured first, and with which everything is compared: the job's, or with `auto` the
/// source. Where nothing can be trained on that for want of memory, those after it, which are ever narrower.
#[must_use]
pub fn first(asked: Base, bytes: impl Fn(Base) -> u64) -> Vec<Base> {
    if asked != Base::Auto {
        return vec![asked];
    }
    let mut all = vec![Base::Source];
    all.extend(further(asked, Base::Source, true, 0, bytes));
    all
}

/// The bases that are measured after `first`, if the job leaves them open:
/// - where memory is `tight` (the largest step that the job allows does not fit beside the first), those
///   that are narrower, the widest first;
/// - otherwise the widest that takes at most a third of the memory, because what is decoded once needs not
///   be decoded at each use. Those between save neither.
#[must_use]
pub fn further(
    asked: Base,
    first: Base,
    tight: bool,
    limit_bytes: u64,
    bytes: impl Fn(Base) -> u64,
) -> Vec<Base> {
    if asked != Base::Auto {
        return Vec::new();
    }
    let own = bytes(first) as f64;
    let mut others: Vec<Base> = MADE.into_iter().filter(|base| *base != first).collect();
    others.sort_by_key(|base| std::cmp::Reverse(bytes(*base)));
    if tight {
        others.retain(|base| bytes(*base) as f64 * OTHER < own);
        return others;
    }
    others.retain(|base| {
        let taken = bytes(*base) as f64;
        taken > own * OTHER && taken <= WIDE_SHARE * limit_bytes as f64
    });
    others.truncate(1);
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a model of 100 weights whose file has so many bytes.
    fn of(source: u64) -> impl Fn(Base) -> u64 {
        move |base| match base {
            Base::Auto | Base::Source => source,
            Base::F32 => 400,
            Base::Bf16 => 200,
            Base::Int8 => 101,
            Base::Nf4 => 52,
        }
    }

    fn check(source: u64, tight: bool, limit: u64, expected: &[Base]) {
        let found = further(Base::Auto, Base::Source, tight, limit, of(source));
        assert_eq!(
            found, expected,
            "source {source} tight {tight} limit {limit}"
        );
    }

    #[test]
    fn narrower_bases_are_measured_where_memory_is_tight_only() {
        check(400, true, 500, &[Base::Bf16, Base::Int8, Base::Nf4]);
        check(60, true, 500, &[Base::Nf4]);
        check(55, true, 500, &[]);
        check(400, false, 5000, &[]);
    }

    #[test]
    fn with_room_the_widest_that_leaves_two_thirds_is() {
        check(60, false, 5000, &[Base::F32]);
        check(60, false, 700, &[Base::Bf16]);
        check(60, false, 200, &[]);
        check(200, false, 5000, &[Base::F32]);
    }

    #[test]
    fn what_the_job_fixes_is_the_only_base() {
        assert_eq!(first(Base::Nf4, of(60)), [Base::Nf4]);
        assert_eq!(further(Base::Nf4, Base::Nf4, true, 500, of(60)), []);
    }

    #[test]
    fn where_the_source_does_not_fit_narrower_bases_come_first() {
        let narrower = [Base::Source, Base::Bf16, Base::Int8, Base::Nf4];
        assert_eq!(first(Base::Auto, of(400)), narrower);
        assert_eq!(first(Base::Auto, of(52)), [Base::Source]);
    }
}

//! Peaks of memory that a line can be drawn through.
//!
//! Beside the heap whole stacks of threads count against a limit, which come and go. One is as large as all that the
//! buffers of a small step grow by, and a plan may ask for steps many times as large: what chance adds to one round,
//! the line through all would multiply. So each round is told with the most that stood beside the heap in any.

use chassis::memory;

/// What a round had at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peak {
    /// Bytes that counted against the limit.
    counted: u64,
    /// Bytes of the heap among them; 0 where the program does not count them.
    heap: u64,
}

impl Peak {
    /// Since the last [`memory::reset_peak`].
    pub(super) fn seen() -> Self {
        Self {
            counted: memory::peak_data_bytes(),
            heap: memory::peak_bytes(),
        }
    }

    /// Of what stands now, at work or not: threads that ended and arenas that grew since a round count in the rounds to come.
    pub(super) fn now() -> Self {
        Self {
            counted: memory::data_bytes(),
            heap: memory::current_bytes(),
        }
    }

    /// The most of this and what came after it.
    pub(super) fn or(self, later: Self) -> Self {
        Self {
            counted: self.counted.max(later.counted),
            heap: self.heap.max(later.heap),
        }
    }

    /// Bytes of the heap, in which no thread's stack comes and goes; all that counted where the heap is not known.
    pub(super) const fn heap(self) -> u64 {
        match self.heap {
            0 => self.counted,
            heap => heap,
        }
    }

    /// As it counted.
    pub(super) const fn counted(self) -> u64 {
        self.counted
    }

    /// With so many bytes beside the heap: never less than what counted.
    pub(super) fn told(self, beside: u64) -> u64 {
        match self.heap {
            0 => self.counted,
            heap => self.counted.max(heap.saturating_add(beside)),
        }
    }

    const fn beside(self) -> u64 {
        match self.heap {
            0 => 0,
            heap => self.counted.saturating_sub(heap),
        }
    }
}

/// The most that stood beside the heap.
pub(super) fn beside(peaks: impl Iterator<Item = Peak>) -> u64 {
    peaks.map(Peak::beside).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 2 << 20;
    const BASE: u64 = 20 << 20;
    const PER_TOKEN: u64 = 2300;

    /// Of a step of so many tokens while so many threads wait that will soon be gone.
    fn peak(tokens: u64, waiting: u64) -> Peak {
        let heap = BASE / 2 + PER_TOKEN * tokens;
        let counted = heap + BASE / 2 + STACK * waiting;
        Peak { counted, heap }
    }

    #[test]
    fn threads_that_come_and_go_are_no_part_of_what_a_token_takes() {
        let (small, large) = (peak(60, 1), peak(1920, 0));
        let drawn = |small: u64, large: u64| large.saturating_sub(small) / (1920 - 60);
        let seen = drawn(small.counted(), large.counted());
        assert!(seen < PER_TOKEN * 6 / 10, "chance halves it: {seen}");
        let beside = beside([small, large].into_iter());
        let [small, large] = [small, large].map(|peak| peak.told(beside));
        assert_eq!(drawn(small, large), PER_TOKEN);
        assert_eq!(small, peak(60, 1).counted(), "and none is told with less");
    }

    #[test]
    fn where_the_heap_is_not_counted_a_peak_is_what_counted() {
        let all = [5, 7].map(|counted| Peak { counted, heap: 0 });
        let beside = beside(all.into_iter());
        assert_eq!(all.map(|peak| peak.told(beside)), [5, 7]);
    }
}

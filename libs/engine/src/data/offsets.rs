//! Where the records of a file begin: four bytes for each, however large the file is.

/// Ascending offsets.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// The lower half of each.
    low: Vec<u32>,
    /// How many begin before each further 4 GiB of the file, as far as the last of them.
    parts: Vec<usize>,
}

impl Offsets {
    pub(super) fn len(&self) -> usize {
        self.low.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.low.is_empty()
    }

    /// Adds one, which is beyond all others.
    pub(super) fn push(&mut self, offset: u64) {
        let part = usize::try_from(offset >> 32).unwrap_or(usize::MAX);
        if part > self.parts.len() {
            self.parts.resize(part, self.low.len());
        }
        let low = u32::try_from(offset & u64::from(u32::MAX));
        self.low.push(low.unwrap_or_default());
    }

    /// Where a record begins.
    pub(super) fn get(&self, record: usize) -> Option<u64> {
        let low = self.low.get(record)?;
        let part = self.parts.partition_point(|before| *before <= record);
        Some((u64::try_from(part).ok()? << 32) | u64::from(*low))
    }

    /// Gives back what was held for more.
    pub(super) fn shrink_to_fit(&mut self) {
        self.low.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_beyond_four_gibibytes_are_those_that_were_added() {
        const PART: u64 = 1 << 32;
        let all = [
            0,
            5,
            PART - 1,
            PART,
            PART + 7,
            // Nothing begins in the third part.
            3 * PART + 1,
            3 * PART + 2,
            9 * PART,
        ];
        let mut offsets = Offsets::default();
        assert!(offsets.is_empty());
        all.iter().for_each(|offset| offsets.push(*offset));
        let read: Vec<u64> = (0..all.len()).map_while(|one| offsets.get(one)).collect();
        assert_eq!(read, all);
        assert_eq!((offsets.len(), offsets.get(all.len())), (all.len(), None));

        let mut beyond = Offsets::default();
        beyond.push(2 * PART + 3);
        assert_eq!(beyond.get(0), Some(2 * PART + 3));
    }
}

//! The words of ChaCha12 with a block in each lane, so that a vector unit computes as many blocks at once as it is wide.
//!
//! Promises: the words that `rand_chacha` gives for the same key, stream and place; it computes four blocks at a time
//! with the narrowest vectors, which took as long as all else that a number needs.
#![expect(
    clippy::indexing_slicing,
    reason = "words and lanes are indices of arrays of fixed size"
)]

/// Words of a block.
pub(super) const WORDS: usize = 16;

/// Blocks that are computed together.
pub(super) const LANES: usize = 16;

/// Of so many blocks each word, block by block.
pub(super) type Blocks = [[u32; LANES]; WORDS];

const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646E, 0x7962_2D32, 0x6B20_6574];

/// Leaves the blocks `first`, `first + 2`, `first + 4`, … of a stream in `into`; what `spare` holds then means nothing.
#[inline(always)]
pub(super) fn every_other(
    key: &[u32; 8],
    stream: u64,
    first: u64,
    (into, spare): (&mut Blocks, &mut Blocks),
) {
    let mut start = [[0; LANES]; WORDS];
    let fixed = CONSTANTS.iter().chain(key);
    for (row, word) in start.iter_mut().zip(fixed) {
        *row = [*word; LANES];
    }
    let [.., low, high, stream_low, stream_high] = &mut start;
    let mut block = first;
    for (low, high) in low.iter_mut().zip(high) {
        (*low, *high) = (block as u32, (block >> 32) as u32);
        block = block.wrapping_add(2);
    }
    *stream_low = [stream as u32; LANES];
    *stream_high = [(stream >> 32) as u32; LANES];
    // Twelve rounds, from one buffer to the other: a copy would take as long as a round.
    two_rounds(spare, &start);
    for _ in 0..2 {
        two_rounds(into, spare);
        two_rounds(spare, into);
    }
    two_rounds(into, spare);
    for (row, start) in into.iter_mut().zip(&start) {
        for (word, start) in row.iter_mut().zip(start) {
            *word = word.wrapping_add(*start);
        }
    }
}

/// A round down the columns of each block, and one along its diagonals.
#[inline(always)]
fn two_rounds(to: &mut Blocks, from: &Blocks) {
    for lane in 0..LANES {
        let mut x = [0; WORDS];
        for (word, row) in x.iter_mut().zip(from) {
            *word = row[lane];
        }
        quarter(&mut x, 0, 4, 8, 12);
        quarter(&mut x, 1, 5, 9, 13);
        quarter(&mut x, 2, 6, 10, 14);
        quarter(&mut x, 3, 7, 11, 15);
        quarter(&mut x, 0, 5, 10, 15);
        quarter(&mut x, 1, 6, 11, 12);
        quarter(&mut x, 2, 7, 8, 13);
        quarter(&mut x, 3, 4, 9, 14);
        for (word, row) in x.iter().zip(to.iter_mut()) {
            row[lane] = *word;
        }
    }
}

#[inline(always)]
fn quarter(x: &mut [u32; WORDS], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn the_words_are_those_of_rand_chacha() {
        for (seed, stream, first) in [
            (0u8, 0, 0),
            (1, 7, 3),
            (2, u64::MAX, 1 << 20),
            // The counter has two words.
            (3, 1 << 33, (1 << 32) - 9),
        ] {
            let bytes: [u8; 32] = std::array::from_fn(|i| seed.wrapping_mul(41) ^ i as u8);
            let (words, _) = bytes.as_chunks::<4>();
            let key: [u32; 8] = std::array::from_fn(|i| u32::from_le_bytes(words[i]));
            let mut reference = ChaCha12Rng::from_seed(bytes);
            reference.set_stream(stream);
            let mut got = [[0; LANES]; WORDS];
            every_other(&key, stream, first, (&mut got, &mut [[0; LANES]; WORDS]));
            for lane in 0..LANES {
                reference.set_word_pos(u128::from(first + 2 * lane as u64) * WORDS as u128);
                let want: [u32; WORDS] = std::array::from_fn(|_| reference.next_u32());
                assert_eq!(got.map(|row| row[lane]), want, "{seed} {lane}");
            }
        }
    }
}

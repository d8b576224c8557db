//! The order of rows of queries and keys.
//!
//! llama.cpp rotates adjacent pairs where Hugging Face pairs the halves of a head, so its converter puts row
//! `half·size/2 + j` of a head at `2·j + half`. Whole rows move: quantized blocks stay as they are.

/// Hugging Face's order to llama.cpp's. `data` holds rows of `row` items each; heads have `size` rows, an even
/// number.
pub(crate) fn reorder<T: Copy>(data: &[T], row: usize, size: usize) -> Vec<T> {
    moved(data, row, size, |at| {
        let (j, half) = (at / 2, at % 2);
        half * (size / 2) + j
    })
}

/// llama.cpp's order to Hugging Face's.
pub(crate) fn restore<T: Copy>(data: &[T], row: usize, size: usize) -> Vec<T> {
    moved(data, row, size, |at| {
        let (half, j) = (at / (size / 2), at % (size / 2));
        2 * j + half
    })
}

/// The rows, each from where `from` says within its head.
fn moved<T: Copy>(data: &[T], row: usize, size: usize, from: impl Fn(usize) -> usize) -> Vec<T> {
    let mut out = Vec::with_capacity(data.len());
    for to in 0..data.len() / row.max(1) {
        let (head, at) = (to / size, to % size);
        let from = (head * size + from(at)) * row;
        out.extend_from_slice(data.get(from..from + row).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_in_pairs_and_back() {
        // Two heads of four rows of two items.
        let rows: Vec<u8> = (0..16).collect();
        let pairs = reorder(&rows, 2, 4);
        assert_eq!(
            pairs,
            [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
        );
        assert_eq!(restore(&pairs, 2, 4), rows);
        let wider: Vec<u16> = (0..12).collect();
        assert_eq!(restore(&reorder(&wider, 1, 6), 1, 6), wider);
        assert_eq!(restore(&wider, 1, 6)[..6], [0, 2, 4, 1, 3, 5]);
    }
}

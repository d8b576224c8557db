//! Token ids to rows of the embedding table.
//!
//! The table is frozen, so there is no backward: the gradient stops at the first block.

use super::Table;

/// `out` `[ids, width]` ← the rows of `table` that `ids` name.
///
/// # Errors
/// The table cannot be decoded.
///
/// # Panics
/// The slices' lengths do not match, or an id lies beyond the table.
pub fn forward<T: Table>(out: &mut [f32], table: &T, ids: &[u32]) -> Result<(), T::Error> {
    let width = table.width();
    assert!(out.len() == ids.len() * width, "one row per id");
    let mut scratch = Vec::new();
    for (out, id) in out.chunks_exact_mut(width).zip(ids) {
        let id = *id as usize;
        out.copy_from_slice(table.rows(id..id + 1, &mut scratch)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Dense;

    #[test]
    fn each_id_gives_its_row_as_often_as_it_is_named() {
        let table = Dense {
            data: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            width: 2,
        };
        for (ids, want) in [
            (&[1][..], &[3.0, 4.0][..]),
            (&[2, 0, 2], &[5.0, 6.0, 1.0, 2.0, 5.0, 6.0]),
        ] {
            let mut out = vec![9.0; want.len()];
            forward(&mut out, &table, ids).unwrap();
            assert_eq!(out, want);
        }
    }
}

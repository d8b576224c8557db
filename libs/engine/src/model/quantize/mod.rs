//! Frozen matrices in fewer bits: bf16, int8 and NF4.
//!
//! Each format is a file with its encoding, its decoding into `f32` and its measured speed.
//! Encoding takes a matrix strip by strip, so that it is never in memory as a whole in `f32`.
//! Decoding any range of rows gives the same bits, whatever the range, the threads and the
//! instructions of the machine.
//!
//! Does not: refuse what is not a number; who loads a tensor knows its name and does.

mod bf16;
mod int8;
mod nf4;

use std::ops::Range;

use rayon::prelude::*;

pub(crate) use bf16::Bf16;
pub(crate) use int8::Int8;
pub(crate) use nf4::{Magnitudes, Nf4};

/// Values of a strip, about: half a MiB in `f32`, and some tasks for each thread.
const STRIP: usize = 1 << 17;

/// Rows that one task encodes or decodes.
const ROWS: usize = 64;

/// Gives the values of some rows, `[rows, cols]`; every one is a number that bf16 can hold.
pub(crate) type Read<'a, E> = dyn FnMut(Range<usize>, &mut [f32]) -> Result<(), E> + 'a;

/// Calls `read` for one strip of rows after another and hands each to `take` with its first row.
fn strips<E>(
    rows: usize,
    cols: usize,
    read: &mut Read<'_, E>,
    mut take: impl FnMut(usize, &[f32]),
) -> Result<(), E> {
    let step = (STRIP / cols.max(1)).next_multiple_of(ROWS).max(1);
    let mut strip = vec![0.0; step.min(rows) * cols];
    for first in (0..rows).step_by(step) {
        let count = step.min(rows - first);
        let values = strip.get_mut(..count * cols).unwrap_or_default();
        read(first..first + count, values)?;
        take(first, values);
    }
    Ok(())
}

/// Decodes rows into `out` `[_, cols]`, on all threads of the pool if there are many: `decode` gets
/// the index of a row in `out` and some rows from there on.
fn by_rows(out: &mut [f32], cols: usize, decode: impl Fn(usize, &mut [f32]) + Sync) {
    let task = ROWS * cols;
    if out.len() <= task {
        decode(0, out);
        return;
    }
    let tasks = out.par_chunks_mut(task).enumerate();
    tasks.for_each(|(index, rows)| decode(index * ROWS, rows));
}

#[cfg(test)]
mod check;
#[cfg(test)]
mod speed;

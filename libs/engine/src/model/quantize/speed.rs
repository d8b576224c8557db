//! How fast matrices are encoded and decoded on this machine.
//!
//!     cargo test -p engine --lib -- --ignored --nocapture speed_of_the_formats

use std::time::Instant;

use super::check::{encoded, values};
use super::*;

/// The shape of gate and up together in SmolLM2-135M.
const ROWS: usize = 3072;
const COLS: usize = 576;
const STRIP_ROWS: usize = 64;

#[expect(
    clippy::disallowed_methods,
    reason = "it measures; nothing depends on it"
)]
fn best_seconds(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

#[test]
#[ignore = "a measurement, not a test"]
fn speed_of_the_formats() {
    let x = values(ROWS * COLS, 1);
    let mut out = vec![0.0; x.len()];
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut say = |name, bytes: usize, decode: &dyn Fn(usize, &mut [f32])| {
                let whole = best_seconds(|| decode(0, &mut out));
                // As a matrix product takes them: a few rows into a buffer that stays in the cache.
                let strip = best_seconds(|| {
                    for first in (0..ROWS).step_by(STRIP_ROWS) {
                        decode(first, &mut out[..STRIP_ROWS * COLS]);
                    }
                });
                let speed = |bytes: usize, seconds: f64| bytes as f64 / seconds * 1e-9;
                println!(
                    "{name}, {threads} threads: {:.1} GB/s of f32 written, {:.1} of codes read; {:.1} written {STRIP_ROWS} rows at a time",
                    speed(4 * x.len(), whole),
                    speed(bytes, whole),
                    speed(4 * x.len(), strip),
                );
            };
            say("copy", 4 * x.len(), &|first, out| {
                by_rows(out, COLS, |row, out| {
                    out.copy_from_slice(&x[(first + row) * COLS..][..out.len()]);
                });
            });
            let bf16 = encoded(&x, COLS, Bf16::encode);
            say("bf16", bf16.bytes(), &|first, out| bf16.decode(first, out));
            let int8 = encoded(&x, COLS, Int8::encode);
            say("int8", int8.bytes(), &|first, out| int8.decode(first, out));
            let nf4 = encoded(&x, COLS, Nf4::encode);
            say("nf4", nf4.bytes(), &|first, out| nf4.decode(first, out));
            say("nf4 portable", nf4.bytes(), &|first, out| {
                nf4.decode_portable(first, out);
            });
            let encode = best_seconds(|| drop(encoded(&x, COLS, Nf4::encode)));
            println!(
                "nf4, {threads} threads: {:.0} Mweights/s encoded",
                x.len() as f64 / encode * 1e-6
            );
        });
    }
}

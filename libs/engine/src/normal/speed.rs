//! How fast numbers are made on this machine.
//!
//!     cargo test -p engine --lib -- --ignored --nocapture speed_of_the_numbers

use std::time::Instant;

use super::*;

/// The tensors of a block of SmolLM2-135M with rank 16 on all of its weights.
const BLOCK: [usize; 14] = [
    9216, 9216, 9216, 3072, 9216, 3072, 9216, 9216, 9216, 24576, 9216, 24576, 24576, 9216,
];

#[expect(
    clippy::disallowed_methods,
    reason = "it measures; nothing depends on it"
)]
fn best_seconds(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..300 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

#[test]
#[ignore = "a measurement, not a test"]
fn speed_of_the_numbers() {
    let from = BLOCK.map(|len| vec![0.5f32; len]);
    let mut into = from.clone();
    let each = 1e9 / BLOCK.iter().sum::<usize>() as f64;
    for (name, direction) in [
        ("normal", Normals::direction(1, 2, 0)),
        ("signs", Normals::signs(1, 2, 0)),
    ] {
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let apart = best_seconds(|| {
                    for (tensor, (into, from)) in (0..).zip(into.iter_mut().zip(&from)) {
                        into.copy_from_slice(from);
                        direction.add(tensor, into, 1e-3);
                    }
                });
                let together = best_seconds(|| {
                    let all = (0..).zip(into.iter_mut().zip(&from));
                    let all = all.map(|(tensor, (values, from))| Moving {
                        tensor,
                        values,
                        from: Some(from),
                        scale: None,
                    });
                    Normals::move_all(&[(direction, 1e-3)], all);
                });
                println!(
                    "{name}, {threads} threads: {:.2} ns a number tensor by tensor, {:.2} all tensors of a block at once",
                    apart * each,
                    together * each,
                );
            });
        }
    }
}

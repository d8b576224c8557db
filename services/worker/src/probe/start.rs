//! The file of an untrained adapter of the job's highest rank, as rounds will find one: written layer by
//! layer, because a site that cannot hold it whole may still train a part of it.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::tensors::{self, TensorWriter};
use domain::adapter::{Projection, RankTable, WeightShape};
use domain::cause::Trouble;
use engine::adapter::{Adapter, Head};

use crate::failure::Failure;

/// Writes it: every weight of `targets` at `rank`, A random, B zero; and the head, if there is one.
///
/// # Errors
/// If the model lacks a target, or the file cannot be written.
pub fn write(
    path: &Path,
    shapes: &[WeightShape],
    (targets, rank): (&[Projection], u16),
    head: Option<&Head>,
    seed: u64,
) -> Result<(), Failure> {
    let wanted: Vec<WeightShape> = shapes
        .iter()
        .filter(|shape| targets.contains(&shape.name.projection()))
        .copied()
        .collect();
    let width = usize::from(rank);
    let declared = wanted.iter().flat_map(|shape| {
        let a = (shape.name.peft_a(), vec![width, shape.inp]);
        [a, (shape.name.peft_b(), vec![shape.out, width])]
    });
    let of_head = head.into_iter().flat_map(|head| head.shape().tensors());
    let of_head = of_head.map(|tensor| (tensor.key.to_owned(), tensor.shape));
    let declared = of_head.chain(declared);
    let format = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let disk = |error: tensors::Error| Failure::of(Trouble::DiskFull, &error);
    if let Some(folder) = path.parent() {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Failure::of(Trouble::DiskFull, &error))?;
    }
    let mut file = TensorWriter::create(path, declared, format).map_err(disk)?;
    // The writer takes tensors in the order of their names: a head comes first.
    if let Some(head) = head {
        for tensor in head.shape().tensors() {
            let values = head.part(tensor.part);
            file.write(tensor.key, values).map_err(disk)?;
        }
    }
    let mut keys: Vec<(String, WeightShape, bool)> = wanted
        .into_iter()
        .flat_map(|shape| {
            let (a, b) = (shape.name.peft_a(), shape.name.peft_b());
            [(a, shape, true), (b, shape, false)]
        })
        .collect();
    keys.sort_by(|(left, ..), (right, ..)| left.cmp(right));
    for (key, shape, is_a) in keys {
        let values = if is_a {
            fresh_a(shape, rank, seed)?
        } else {
            vec![0.0; shape.out * width]
        };
        file.write(&key, &values).map_err(disk)?;
    }
    file.finish().map_err(disk)
}

fn fresh_a(shape: WeightShape, rank: u16, seed: u64) -> Result<Vec<f32>, Failure> {
    let ranks = RankTable::only(shape.name, rank);
    // The scale is the reader's.
    let fresh = Adapter::initialize(&[shape], &ranks, 1.0, seed)
        .map_err(|error| Failure::of(Trouble::PlanUnsupported, &error))?;
    let factors = fresh.get(shape.name);
    Ok(factors.map(|own| own.a().to_vec()).unwrap_or_default())
}

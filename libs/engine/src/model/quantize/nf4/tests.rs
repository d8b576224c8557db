use super::codebook::{NF4, dynamic_map};
use super::*;
use crate::model::quantize::check::{encoded, values};

fn decoded(matrix: &Nf4) -> Vec<f32> {
    let mut out = vec![9.0; matrix.rows() * matrix.cols()];
    matrix.decode(0, &mut out);
    out
}

/// Quantizes as the definition says, value by value, without packing: the decoded values.
fn plain(x: &[f32], cols: usize) -> Vec<f32> {
    let map: Vec<f32> = (0..=255).map(|code| dynamic_map().value(code)).collect();
    let nearest = |table: &[f32], value: f32| {
        let distance = |entry: &&f32| f64::from((**entry - value).abs());
        let best = table
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        *best.unwrap()
    };
    let blocks: Vec<&[f32]> = x.chunks(cols).flat_map(|row| row.chunks(BLOCK)).collect();
    let size = |block: &&[f32]| block.iter().fold(0f32, |most, v| most.max(v.abs()));
    let sizes: Vec<f32> = blocks.iter().map(size).collect();
    let offset = (sizes.iter().copied().map(f64::from).sum::<f64>() / sizes.len() as f64) as f32;
    let mut out = Vec::new();
    for (group, own) in sizes.chunks(GROUP).enumerate() {
        let scale = own
            .iter()
            .fold(0f32, |most, v| most.max((v - offset).abs()));
        for (i, size) in own.iter().enumerate() {
            let relative = if scale > 0.0 {
                (size - offset) / scale
            } else {
                0.0
            };
            let coded = (nearest(&map, relative) * scale + offset).max(0.0);
            for value in blocks[group * GROUP + i] {
                let relative = if *size > 0.0 { value / size } else { 0.0 };
                out.push(nearest(&NF4, relative) * coded);
            }
        }
    }
    out
}

#[test]
fn packing_and_rows_change_nothing_of_the_definition() {
    for (rows, cols) in [
        (1, 1),
        (1, 64),
        (3, 65),
        (2, 33),
        (300, 576),
        (70, 95),
        (9, 2049),
    ] {
        let x = values(rows * cols, 3);
        let (got, want) = (decoded(&encoded(&x, cols, Nf4::encode)), plain(&x, cols));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got, want, "{rows}×{cols}, value {i} ({})", x[i]);
        }
    }
}

#[test]
fn every_value_is_within_the_bound_of_its_block() {
    let cols = 200;
    let x = values(cols * 500, 4);
    let matrix = encoded(&x, cols, Nf4::encode);
    let got = decoded(&matrix);
    let blocks = |all: &[f32]| -> Vec<Vec<f32>> {
        let rows = all.chunks(cols).flat_map(|row| row.chunks(BLOCK));
        rows.map(<[f32]>::to_vec).collect()
    };
    for (i, (got, x)) in blocks(&got).iter().zip(&blocks(&x)).enumerate() {
        let magnitude = x.iter().fold(0f32, |most, v| most.max(v.abs()));
        let bound = 0.152 * magnitude + 0.0071 * matrix.magnitudes().scales[i / GROUP];
        for (got, x) in got.iter().zip(x) {
            assert!((got - x).abs() <= bound, "block {i}: {got} {x} ± {bound}");
        }
    }
}

#[test]
fn any_range_of_rows_gives_the_bits_of_the_whole() {
    let (rows, cols) = (200, 97);
    let matrix = encoded(&values(rows * cols, 5), cols, Nf4::encode);
    let whole = decoded(&matrix);
    for (first, count) in [(0, 1), (199, 1), (3, 64), (63, 130), (17, 0)] {
        let mut out = vec![9.0; count * cols];
        matrix.decode(first, &mut out);
        assert_eq!(out, whole[first * cols..(first + count) * cols]);
    }
}

#[test]
fn the_machines_instructions_give_the_bits_of_the_portable_way() {
    for cols in [1, 31, 32, 33, 63, 64, 96, 576, 1000] {
        let matrix = encoded(&values(cols * 3, 6), cols, Nf4::encode);
        let mut want = vec![9.0; cols * 3];
        matrix.decode_portable(0, &mut want);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&decoded(&matrix)), bits(&want));
    }
}

#[test]
fn zeros_stay_zeros_and_constants_stay_constant() {
    let cols = 70;
    let zeros = vec![0.0; cols * 2];
    assert_eq!(decoded(&encoded(&zeros, cols, Nf4::encode)), zeros);

    // The rows differ by a thousand, so the small ones' magnitudes are coded coarsely.
    let mut rows = vec![0.25; cols];
    rows.extend(vec![-250.0; cols]);
    rows.extend(vec![0.0; cols]);
    let matrix = encoded(&rows, cols, Nf4::encode);
    let got = decoded(&matrix);
    let scale = matrix.magnitudes().scales[0];
    for (got, want) in got.iter().zip(&rows) {
        assert!((got - want).abs() <= 0.0071 * scale, "{got} {want}");
    }
    assert_eq!(got[2 * cols..], rows[2 * cols..], "a row of zeros");

    let same = vec![-0.3; cols * 5];
    let got = decoded(&encoded(&same, cols, Nf4::encode));
    assert!(got.iter().all(|v| (v + 0.3).abs() < 1e-7), "{}", got[0]);
}

#[test]
fn a_weight_takes_half_a_byte_and_a_little() {
    let (rows, cols) = (512, 1024);
    let matrix = encoded(&values(rows * cols, 7), cols, Nf4::encode);
    let bits = 8.0 * matrix.bytes() as f64 / (rows * cols) as f64;
    assert!((4.125..4.128).contains(&bits), "{bits}");
}

#[test]
fn the_codebooks_are_in_order_and_hold_zero_and_one() {
    assert!(NF4.is_sorted() && NF4[7] == 0.0 && NF4[15] == 1.0 && NF4[0] == -1.0);
    let values: Vec<f32> = (0..=255).map(|code| dynamic_map().value(code)).collect();
    assert!(values.is_sorted());
    assert_eq!((values[127], values[255]), (0.0, 1.0));
    for (code, value) in (0..=255u8).zip(&values) {
        assert_eq!(dynamic_map().nearest(*value), code);
    }
}

#[derive(serde::Deserialize)]
struct Reference {
    rows: usize,
    columns: usize,
    codes: String,
    magnitudes: Vec<f32>,
}

/// `tests/reference/make_reference.py nf4`.
#[test]
fn codes_and_magnitudes_are_those_of_bitsandbytes() {
    let text = include_str!("../../../../tests/reference/nf4.json");
    let want: Reference = serde_json::from_str(text).unwrap();
    let value = |i: usize| {
        let wave = 0.02 * (0.37 * i as f64).sin();
        (wave * (1 + i / BLOCK % 7) as f64) as f32
    };
    let x: Vec<f32> = (0..want.rows * want.columns).map(value).collect();
    let matrix = encoded(&x, want.columns, Nf4::encode);
    for (i, want) in want.magnitudes.iter().enumerate() {
        let got = matrix.magnitude(i);
        assert!((got - want).abs() <= 1e-6, "block {i}: {got} {want}");
    }
    // Theirs are in order, the first in the high half of a byte.
    let theirs = want
        .codes
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8);
    let ours = matrix.codes().chunks(RUN / 2).flat_map(|run| {
        let low = run.iter().map(|byte| byte & 15);
        low.chain(run.iter().map(|byte| byte >> 4))
    });
    assert!(ours.eq(theirs));
}

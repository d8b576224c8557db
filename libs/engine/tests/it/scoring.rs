//! Loss and choices agree with the logits they come from.

use engine::adapter::Adapter;
use engine::data::{Batch, Row};
use engine::evaluate::{Choice, Evaluator, Loss};
use engine::train::{Options, Trainer};

use crate::support::{control, reference, tiny};

/// `ln p(token)` after position `position`, from the logits in f64.
fn log_probability(logits: &[f32], position: usize, token: u32) -> f64 {
    let row: Vec<f64> = logits[position * 64..(position + 1) * 64]
        .iter()
        .map(|v| f64::from(*v))
        .collect();
    row[token as usize] - row.iter().map(|v| v.exp()).sum::<f64>().ln()
}

#[test]
fn the_loss_is_the_mean_of_the_labelled_tokens_alone() {
    let model = tiny();
    let mut evaluator = Evaluator::new(&model, None).unwrap();
    let tokens = vec![4, 9, 33, 7, 2];
    let logits = evaluator.logits(&tokens, &control()).unwrap();
    let row = |labelled: [bool; 5]| Row {
        tokens: tokens.clone(),
        labelled: labelled.to_vec(),
        class: None,
        record: 0,
    };
    let batch = Batch {
        rows: vec![
            row([true, false, true, false, false]),
            row([false, false, false, false, true]),
        ],
    };
    let loss = evaluator.loss(&batch, &control()).unwrap();
    let want = -log_probability(&logits, 1, 33) - log_probability(&logits, 3, 2);
    assert_eq!((loss.labelled_tokens, loss.tokens), (2, 10));
    assert!((loss.sum - want).abs() < 1e-5, "{} {want}", loss.sum);
    assert!((loss.perplexity().unwrap() - (want / 2.0).exp()).abs() < 1e-3);
    assert_eq!(loss.merge(loss).mean(), loss.mean());
}

#[test]
fn choices_are_the_summed_log_probabilities_of_the_completions() {
    let model = tiny();
    let mut evaluator = Evaluator::new(&model, None).unwrap();
    let prompt = vec![4, 9, 33];
    let one = Choice {
        prompt: prompt.clone(),
        candidates: vec![vec![7], vec![50]],
    };
    let short = Choice {
        prompt: vec![1],
        candidates: vec![vec![2], vec![3]],
    };
    let many = Choice {
        prompt: prompt.clone(),
        candidates: vec![vec![7], vec![50, 2, 60]],
    };
    let single = evaluator.choices(&[one, short], &control()).unwrap();
    let general = evaluator.choices(&[many], &control()).unwrap();

    let logits = evaluator.logits(&[4, 9, 33, 50, 2], &control()).unwrap();
    let p = |position, token| log_probability(&logits, position, token);
    assert_eq!((single.len(), single[1].len()), (2, 2));
    assert!((single[0][0] - p(2, 7)).abs() < 1e-5 && (single[0][1] - p(2, 50)).abs() < 1e-5);
    assert!((general[0][0] - p(2, 7)).abs() < 1e-5);
    assert!((general[0][1] - p(2, 50) - p(3, 2) - p(4, 60)).abs() < 1e-5);
}

#[test]
fn rows_of_a_batch_do_not_see_each_other() {
    let model = tiny();
    let mut evaluator = Evaluator::new(&model, None).unwrap();
    let choice = |prompt: &[u32]| Choice {
        prompt: prompt.to_vec(),
        candidates: vec![vec![7]],
    };
    let (a, b) = (choice(&[4, 9, 33, 60, 61]), choice(&[5]));
    let together = evaluator
        .choices(&[a.clone(), b.clone()], &control())
        .unwrap();
    let alone = [
        evaluator.choices(&[a], &control()).unwrap(),
        evaluator.choices(&[b], &control()).unwrap(),
    ]
    .concat();
    for (together, alone) in together.iter().zip(&alone) {
        assert!((together[0] - alone[0]).abs() < 1e-5);
    }
}

/// Rows of a batch lie one after another without padding. Each has positions of its own and sees nothing of the
/// others, so the loss of all is that of each alone; and so are the losses of training steps.
#[test]
fn the_packed_loss_equals_that_of_each_row_alone() {
    let model = tiny();
    let row = |record: usize, len: usize| Row {
        tokens: (0..len)
            .map(|i| ((i * 11 + record * 7 + 1) % 63) as u32)
            .collect(),
        labelled: (0..len)
            .map(|i| i > 0 && (i + record).is_multiple_of(2))
            .collect(),
        class: None,
        record,
    };
    let lengths = [1, 2, 9, 64, 65, 100, 3];
    let rows: Vec<Row> = lengths
        .into_iter()
        .enumerate()
        .map(|(record, len)| row(record, len))
        .collect();
    let mut evaluator = Evaluator::new(&model, None).unwrap();
    let of = |rows: &[Row]| Batch {
        rows: rows.to_vec(),
    };
    let packed = evaluator.loss(&of(&rows), &control()).unwrap();
    let mut apart = Loss::default();
    for one in &rows {
        apart = apart.merge(
            evaluator
                .loss(&of(std::slice::from_ref(one)), &control())
                .unwrap(),
        );
    }
    assert_eq!(
        (packed.tokens, packed.labelled_tokens),
        (apart.tokens, apart.labelled_tokens)
    );
    let (packed, apart) = (packed.mean().unwrap(), apart.mean().unwrap());
    assert!((packed - apart).abs() < 1e-4 * apart, "{packed} {apart}");

    let adapter = Adapter::load(&reference("tiny-adapter"), &model.weights()).unwrap();
    let mut together = Trainer::new(&model, &adapter, Options::default()).unwrap();
    let mut alone = Trainer::new(&model, &adapter, Options::default()).unwrap();
    let each: Vec<Batch> = rows.chunks(1).map(of).collect();
    for _ in 0..3 {
        let want = alone.step_over(&each, 1e-2, &control()).unwrap().loss;
        let got = together.step(&of(&rows), 1e-2, &control()).unwrap().loss;
        assert!((got - want).abs() < 1e-4 * want, "{got} {want}");
    }
}

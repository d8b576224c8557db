//! The loss of an answer among a few tokens.

use super::*;
use crate::data::Class;

/// Prompts whose next token is one of three.
fn asked() -> Batch {
    let class = |number| Class {
        number,
        words: [40, 7, 61].into(),
    };
    let row = |seed: u32, len: u32, number| Row {
        tokens: (0..len).map(|i| (i * 7 + seed) % 63).collect(),
        labelled: vec![false; len as usize],
        class: Some(class(number)),
        record: 0,
    };
    Batch {
        rows: vec![row(1, 9, 2), row(5, 1, 0), row(11, 13, 1)],
    }
}

/// Loss, gradient and slope of an answer among a few are of one function, which the evaluator's choices say too.
#[test]
fn an_answer_among_a_few_has_one_loss_whoever_computes_it() {
    let model = tiny();
    let adapter = uneven(&model);
    let (batch, control) = (asked(), Control::new());
    let mut evaluator = Evaluator::new(&model, Some(&adapter)).unwrap();
    let loss = evaluator.loss(&batch, &control).unwrap();
    assert_eq!((loss.labelled_tokens, loss.tokens), (3, 23));
    let mut want = 0.0;
    for row in &batch.rows {
        let class = row.class.as_ref().unwrap();
        let choice = crate::evaluate::Choice {
            prompt: row.tokens.clone(),
            candidates: class.words.iter().map(|word| vec![*word]).collect(),
        };
        let logs = evaluator.choices(&[choice], &control).unwrap().remove(0);
        let total: f64 = logs.iter().map(|log| log.exp()).sum();
        want += total.ln() - logs[class.number as usize];
    }
    assert!((loss.sum - want).abs() < 1e-4, "{} for {want}", loss.sum);

    let (told, same) = evaluator.classes(&batch, &control).unwrap();
    assert_eq!((told.len(), same.labelled_tokens), (3, 3));
    assert!((same.sum - want).abs() < 1e-4, "{} for {want}", same.sum);

    let mut trainer = Trainer::new(&model, &adapter, Options::default()).unwrap();
    let gradient = trainer.gradient_of(&batch).unwrap();
    let mut walker = ZerothTrainer::new(&model, &adapter, how(9, 1e-3), 4).unwrap();
    let slope = walker.slope(&batch, &control).unwrap();
    let along = along_gradient(&gradient, Normals::direction(9, 4, 0));
    assert!((slope.loss - want / 3.0).abs() < 1e-3, "{slope:?}");
    assert!(
        (slope.along - along).abs() < 2e-2 * along.abs().max(0.1),
        "{slope:?} for {along}"
    );
    let before = trainer.step(&batch, 1e-2, &control).unwrap().loss;
    let after = trainer.step(&batch, 1e-2, &control).unwrap().loss;
    assert!(
        (before - want / 3.0).abs() < 1e-5 && after < before,
        "{before} {after}"
    );

    let mut other = asked();
    other.rows[0].class.as_mut().unwrap().number = 3;
    let refused = evaluator.loss(&other, &control).unwrap_err();
    assert!(matches!(
        refused,
        compute::Error::Class {
            class: 3,
            classes: 3,
            ..
        }
    ));
}

//! Greedy generation with its cache equals taking the best token of the whole text every time.

use engine::adapter::Adapter;
use engine::evaluate::Evaluator;
use engine::generate::{Request, greedy};

use crate::support::{control, reference, tiny};

#[test]
fn generation_equals_the_best_next_token_of_the_whole_text() {
    let model = tiny();
    let adapter = Adapter::load(&reference("tiny-adapter"), &model.weights()).unwrap();
    let mut evaluator = Evaluator::new(&model, Some(&adapter)).unwrap();
    let prompt = [4, 9, 33];
    let mut text = prompt.to_vec();
    for _ in 0..12 {
        let logits = evaluator.logits(&text, &control()).unwrap();
        let last = &logits[(text.len() - 1) * 64..];
        let best = (0..64)
            .max_by(|a, b| last[*a].total_cmp(&last[*b]))
            .unwrap();
        text.push(best as u32);
    }
    let mut seen = Vec::new();
    let request = Request {
        prompt: &prompt,
        limit: 12,
        stop: &[],
    };
    let made = greedy(&model, Some(&adapter), request, &control(), |token| {
        seen.push(token)
    })
    .unwrap();
    assert_eq!(made, text[3..]);
    assert_eq!(seen, made);

    let stop = made[5];
    let end = made.iter().position(|token| *token == stop).unwrap();
    let stopped = greedy(
        &model,
        Some(&adapter),
        Request {
            stop: &[stop],
            ..request
        },
        &control(),
        |_| (),
    )
    .unwrap();
    assert_eq!(stopped, made[..end]);
}

#[test]
fn generation_ends_where_the_context_does() {
    let model = tiny();
    let prompt = vec![4; 126];
    let request = Request {
        prompt: &prompt,
        limit: 50,
        stop: &[],
    };
    assert_eq!(
        greedy(&model, None, request, &control(), |_| ())
            .unwrap()
            .len(),
        3
    );
}

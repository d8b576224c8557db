use super::*;
use crate::data::{Balance, Batch, Loader, Order, Refusals, Sampler, SamplerOptions, Seed};

/// Records whose answers have 1 to 7 words.
fn uneven(count: usize) -> Dataset {
    let line = |n: usize| {
        let answer = " yes".repeat(1 + (n * n) % 7);
        format!("{{\"prompt\":\"mail {n}\",\"completion\":\"{answer}\"}}\n")
    };
    open("a.jsonl", (0..count).map(line).collect::<String>())
}

fn sampler(dataset: &Dataset, batch: usize, order: Order) -> Sampler {
    let options = SamplerOptions {
        batch,
        order,
        balance: Balance::None,
    };
    let seed = Seed {
        seed: 7,
        round: 0,
        worker: "site-a".to_owned(),
    };
    Sampler::new(dataset, None, options, &seed).unwrap()
}

fn tokens(batch: &Batch) -> usize {
    batch.rows.iter().map(|row| row.tokens.len()).sum()
}

fn records(batches: &[Batch]) -> Vec<usize> {
    let rows = batches.iter().flat_map(|batch| &batch.rows);
    rows.map(|row| row.record).collect()
}

/// The first batches that fill this budget, from a draw on.
fn filled(
    dataset: &Dataset,
    (batch, order): (usize, Order),
    first: u64,
    count: usize,
) -> Vec<Batch> {
    let (encoder, sampler) = (encoder(64), sampler(dataset, batch, order));
    let mut filler = Loader::new(dataset, &encoder, &sampler).filled(64, first);
    (0..count).map(|_| filler.batch().unwrap().batch).collect()
}

#[test]
fn batches_fill_their_budget_and_leave_no_record_out() {
    let dataset = uneven(40);
    let batches = filled(&dataset, (1, Order::File), 0, 12);
    let drawn = records(&batches);
    let expected: Vec<usize> = (0..drawn.len()).map(|draw| draw % 40).collect();
    assert_eq!(drawn, expected);
    for pair in batches.windows(2) {
        let next = pair[1].rows[0].tokens.len();
        assert!(tokens(&pair[0]) <= 64 && tokens(&pair[0]) + next > 64);
    }
    let sizes: std::collections::BTreeSet<usize> =
        batches.iter().map(|batch| batch.rows.len()).collect();
    assert!(sizes.len() > 1, "as many as fit, not a number: {sizes:?}");
}

#[test]
fn a_round_begins_wherever_it_is_told_to_whatever_the_samplers_batch() {
    let dataset = uneven(40);
    let whole = filled(&dataset, (1, Order::Shuffled), 0, 12);
    let begun = whole[0].rows.len() as u64;
    let later = filled(&dataset, (1, Order::Shuffled), begun, 11);
    assert_eq!(later, whole[1..]);
    assert_eq!(filled(&dataset, (3, Order::Shuffled), 0, 12), whole);
}

#[test]
fn a_record_longer_than_the_budget_has_a_batch_of_its_own() {
    let dataset = uneven(8);
    let (encoder, sampler) = (encoder(64), sampler(&dataset, 1, Order::File));
    let mut filler = Loader::new(&dataset, &encoder, &sampler).filled(2, 0);
    for record in 0..8 {
        assert_eq!(records(&[filler.batch().unwrap().batch]), [record]);
    }
}

#[test]
fn what_is_refused_is_counted_by_reason_with_the_longest_answer() {
    let dataset = uneven(40);
    let (encoder, sampler) = (encoder(6), sampler(&dataset, 1, Order::File));
    let mut filler = Loader::new(&dataset, &encoder, &sampler).filled(16, 0);
    let mut refusals = Refusals::default();
    let mut new = 0;
    for _ in 0..20 {
        let loaded = filler.batch().unwrap();
        new += usize::from(refusals.add(&loaded.refused));
        assert!(loaded.batch.rows.iter().all(|row| row.tokens.len() <= 6));
    }
    assert_eq!(new, 1, "one reason, told once");
    let counts: Vec<_> = refusals.counts().collect();
    assert_eq!(counts, [("answer_too_long", refusals.total())]);
    let told = refusals.to_string();
    assert!(
        told.contains("answer_too_long") && told.contains("never cut: use a longer sequence"),
        "{told}"
    );
}

#[test]
fn streams_of_random_numbers_are_apart() {
    let seed = |round, worker: &str| Seed {
        seed: 7,
        round,
        worker: worker.to_owned(),
    };
    let number = |round, worker| seed(round, worker).number("dropout");
    assert_eq!(number(1, "a"), number(1, "a"));
    let all = [
        number(1, "a"),
        number(2, "a"),
        number(1, "b"),
        seed(1, "a").number("other"),
    ];
    let distinct: std::collections::BTreeSet<u64> = all.into();
    assert_eq!(distinct.len(), all.len());
}

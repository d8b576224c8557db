use std::collections::BTreeSet;

use super::*;
use crate::data::{Balance, Error, Loader, Order, Refusal, Sampler, SamplerOptions, Seed};

fn seed(seed: u64, round: u32, worker: &str) -> Seed {
    Seed {
        seed,
        round,
        worker: worker.to_owned(),
    }
}

fn options(batch: usize) -> SamplerOptions {
    SamplerOptions {
        batch,
        order: Order::Shuffled,
        balance: Balance::None,
    }
}

/// `no` for every fourth record, else `yes`.
fn mails(count: usize) -> Dataset {
    let line = |n: usize| {
        let answer = if n.is_multiple_of(4) { " no" } else { " yes" };
        format!("{{\"prompt\":\"mail {n}\",\"completion\":\"{answer}\"}}\n")
    };
    open("a.jsonl", (0..count).map(line).collect::<String>())
}

fn sampler(dataset: &Dataset, options: SamplerOptions) -> Sampler {
    Sampler::new(dataset, None, options, &seed(7, 0, "site-a")).unwrap()
}

#[test]
fn every_record_is_seen_once_before_any_is_seen_twice() {
    let dataset = mails(20);
    let sampler = sampler(&dataset, options(3));
    let drawn: Vec<usize> = (0..40).flat_map(|step| sampler.batch(step)).collect();
    for pass in drawn.chunks_exact(20) {
        assert_eq!(pass.iter().collect::<BTreeSet<_>>().len(), 20);
    }
    assert_ne!(drawn[..20], drawn[20..40]);
    let passes: Vec<u64> = (0..7)
        .flat_map(|step| sampler.draws(step))
        .map(|draw| draw.pass)
        .collect();
    assert_eq!(passes, [vec![0; 20], vec![1]].concat());
}

#[test]
fn a_step_is_the_same_whenever_it_is_asked_for() {
    let dataset = mails(20);
    let forward = sampler(&dataset, options(8));
    let steps: Vec<_> = (0..10).map(|step| forward.batch(step)).collect();
    let backward = sampler(&dataset, options(8));
    for step in (0..10).rev() {
        assert_eq!(backward.batch(step), steps[usize::try_from(step).unwrap()]);
    }
    // Frozen: the order is part of what makes a run repeatable on every machine.
    assert_eq!(steps[0], FIRST_BATCH);
}

const FIRST_BATCH: [usize; 8] = [4, 7, 1, 19, 13, 16, 10, 11];

#[test]
fn seed_round_and_worker_each_change_the_order() {
    let dataset = mails(64);
    let seeds = [
        seed(7, 0, "a"),
        seed(8, 0, "a"),
        seed(7, 1, "a"),
        seed(7, 0, "b"),
    ];
    let orders = seeds.map(|seed| {
        let sampler = Sampler::new(&dataset, None, options(64), &seed).unwrap();
        sampler.batch(0)
    });
    assert_eq!(orders.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn each_order_of_three_records_is_about_as_likely() {
    let dataset = mails(3);
    let mut counts = std::collections::BTreeMap::new();
    let sampler = sampler(&dataset, options(3));
    for step in 0..1200 {
        *counts.entry(sampler.batch(step)).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(
        counts.values().all(|count| (140..260).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn file_order_is_the_order_of_the_file_and_wraps() {
    let dataset = mails(5);
    let options = SamplerOptions {
        order: Order::File,
        ..options(2)
    };
    let sampler = sampler(&dataset, options);
    let drawn: Vec<usize> = (0..4).flat_map(|step| sampler.batch(step)).collect();
    assert_eq!(drawn, [0, 1, 2, 3, 4, 0, 1, 2]);
}

#[test]
fn balance_gives_each_class_an_equal_share_of_every_batch() {
    let dataset = mails(40);
    let options = SamplerOptions {
        balance: Balance::Label,
        ..options(8)
    };
    let sampler = sampler(&dataset, options);
    let mut seen = BTreeSet::new();
    for step in 0..30 {
        let batch = sampler.batch(step);
        let rare = batch
            .iter()
            .filter(|record| record.is_multiple_of(4))
            .count();
        assert_eq!(rare, 4, "step {step}");
        seen.extend(batch);
    }
    assert_eq!(seen.len(), 40);
    // A batch that the classes do not divide: equal over time.
    let odd = SamplerOptions {
        balance: Balance::Label,
        ..self::options(3)
    };
    let odd = self::sampler(&dataset, odd);
    let rare = (0..10)
        .flat_map(|step| odd.batch(step))
        .filter(|record| record.is_multiple_of(4));
    assert_eq!(rare.count(), 15);
}

#[test]
fn twenty_labels_are_balanced() {
    // Label 0 has 21 records, each other one.
    let line = |n: usize| {
        let label = n.saturating_sub(20);
        format!("{{\"text\":\"mail {n}\",\"label\":\"l{label:02}\"}}\n")
    };
    let dataset = open("a.jsonl", (0..40).map(line).collect::<String>());
    let balanced = SamplerOptions {
        balance: Balance::Label,
        ..options(20)
    };
    let sampler = sampler(&dataset, balanced);
    for step in 0..3 {
        let mut drawn = sampler.batch(step);
        drawn.sort_unstable();
        let of: Vec<_> = drawn
            .iter()
            .filter_map(|record| dataset.class_of(*record))
            .collect();
        assert_eq!(of, (0..20).collect::<Vec<_>>(), "step {step}");
    }
}

#[test]
fn balance_needs_few_distinct_completions() {
    let lines = (0..9).map(|n| format!("{{\"prompt\":\"p\",\"completion\":\"{n}\"}}\n"));
    let many = open("a.jsonl", lines.collect::<String>());
    let balanced = SamplerOptions {
        balance: Balance::Label,
        ..options(4)
    };
    for dataset in [many, open("a.jsonl", "{\"text\":\"a\"}")] {
        let made = Sampler::new(&dataset, None, balanced, &seed(7, 0, "a"));
        assert!(matches!(made, Err(Error::NoClasses)));
    }
}

#[test]
fn only_selected_records_are_drawn() {
    let dataset = mails(40);
    let selection = [4, 5, 6, 39];
    for balance in [Balance::None, Balance::Label] {
        let options = SamplerOptions {
            balance,
            ..options(4)
        };
        let sampler = Sampler::new(&dataset, Some(&selection), options, &seed(7, 0, "a")).unwrap();
        let drawn: BTreeSet<usize> = (0..20).flat_map(|step| sampler.batch(step)).collect();
        assert!(drawn.iter().eq(&selection));
    }
    let made = |selection: &[usize], batch| {
        Sampler::new(&dataset, Some(selection), options(batch), &seed(7, 0, "a"))
    };
    assert!(matches!(made(&[], 4), Err(Error::NothingToDraw { .. })));
    assert!(matches!(made(&[1], 0), Err(Error::NothingToDraw { .. })));
    assert!(matches!(
        made(&[40], 4),
        Err(Error::NoSuchRecord {
            record: 40,
            records: 40
        })
    ));
}

#[test]
fn a_loader_makes_the_rows_that_the_sampler_draws() {
    let dataset = mails(20);
    let (encoder, sampler) = (encoder(64), sampler(&dataset, options(4)));
    let loader = Loader::new(&dataset, &encoder, &sampler);
    let loaded = loader.batch(3).unwrap();
    let records: Vec<usize> = loaded.batch.rows.iter().map(|row| row.record).collect();
    assert_eq!(records, sampler.batch(3));
    assert!(loaded.refused.is_empty());
    let row = &loaded.batch.rows[0];
    let record = dataset.record(row.record).unwrap();
    assert_eq!(row, &encoder.row(row.record, &record).unwrap());
}

#[test]
fn a_refused_record_is_told_and_one_of_its_class_takes_its_place() {
    let long = "x".repeat(100);
    let lines = (0..24).map(|n| match n {
        3 => format!("{{\"text\":\"a {n}\",\"label\":\"{long}\"}}\n"),
        n => format!("{{\"text\":\"a {n}\",\"label\":\"{}\"}}\n", n % 2),
    });
    let dataset = open("a.jsonl", lines.collect::<String>());
    let names = ["0".to_owned(), "1".to_owned()];
    let verbalizer = Some(crate::data::Verbalizer::plain(" Kind:", &names));
    let encoder = with_options(EncodeOptions {
        verbalizer,
        ..EncodeOptions::new(64)
    });
    for order in [Order::Shuffled, Order::File] {
        let options = SamplerOptions {
            order,
            ..options(24)
        };
        let sampler = sampler(&dataset, options);
        let loader = Loader::new(&dataset, &encoder, &sampler);
        let loaded = loader.batch(0).unwrap();
        assert_eq!(loaded.batch.rows.len(), 24);
        assert!(loaded.refused.iter().all(|refused| refused.record == 3));
        assert!(!loaded.refused.is_empty());
        assert_eq!(loader.batch(0).unwrap().batch, loaded.batch);
    }
}

#[test]
fn when_no_record_fits_the_loader_says_so() {
    let dataset = mails(20);
    let (encoder, sampler) = (encoder(2), sampler(&dataset, options(4)));
    match Loader::new(&dataset, &encoder, &sampler).batch(0) {
        Err(Error::Encode(Refusal::AnswerTooLong { .. })) => {}
        other => panic!("{other:?}"),
    }
}

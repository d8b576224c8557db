//! Released messages are frozen: today's program reads yesterday's bytes, and writes them.
//!
//! `golden/<kind>.v<version>[.<variant>].msgpack` holds the bytes, `.json` beside it the same for
//! people. A missing file is written only with `UPDATE_GOLDEN=1`; one that differs is never written:
//! a change of the layout is a new version.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use contract::message::job::{Event, JobEvent};
use contract::message::report::{Evaluated, Probed, Updated, Walked};
use contract::message::task::{Evaluate, Probe, Train};
use contract::{DecodeError, Message};
use domain::adapter::{Encoder, RankTable};
use domain::energy::EnergyTable;
use domain::fleet::Beat;
use domain::job::Strategy;
use domain::job::spec::{Compute, Importance, Training};

use crate::samples;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Where this message's bytes lie, without the ending.
fn stem<M: Message>(variant: &str) -> String {
    let dot = if variant.is_empty() { "" } else { "." };
    format!("{}.v{}{dot}{variant}", M::KIND, M::VERSION)
}

/// The file's content; with `UPDATE_GOLDEN=1` a missing one is written first.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = folder().join(name);
    if !path.exists() && std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, now).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{name}: {error}; a new kind or version is written with UPDATE_GOLDEN=1")
    })
}

fn check<M: Message + PartialEq + Debug>(message: &M, variant: &str) {
    let stem = stem::<M>(variant);
    let bytes = contract::encode(message).unwrap();
    let json = format!("{}\n", serde_json::to_string_pretty(message).unwrap());
    let released = golden(&format!("{stem}.msgpack"), &bytes);
    let readable = golden(&format!("{stem}.json"), json.as_bytes());

    let version = M::VERSION.to_string();
    let read: M = contract::decode(Some(M::KIND), Some(&version), &released).unwrap();
    assert_eq!(&read, message, "{stem}: old bytes mean something else now");
    assert_eq!(
        bytes, released,
        "{stem}: today's bytes differ from the released ones"
    );
    let read: M = serde_json::from_slice(&readable).unwrap();
    assert_eq!(&read, message, "{stem}.json is not the same message");
}

#[test]
fn events_are_as_released() {
    for event in samples::events() {
        check(&event, event.event.name());
    }
}

#[test]
fn tasks_are_as_released() {
    let [full, automatic] = samples::probes();
    check(&full, "");
    check(&automatic, "automatic");
    check(&samples::train(), "");
    let mut beyond = samples::train();
    beyond.walk = Some(samples::walk_beyond());
    check(&beyond, "beyond");
    check(&samples::evaluate(), "");
}

#[test]
fn reports_are_as_released() {
    check(&samples::probed(), "");
    check(&samples::updated(), "");
    check(&samples::walked(), "");
    check(&samples::evaluated(), "");
    check(&samples::failed(), "");
}

/// A round of 30 steps is 120 bytes of scalars; what stands around them has its limit, whatever it says.
#[test]
fn scalars_travel_in_4_bytes_each_and_an_envelope_of_at_most_512() {
    let scalars = samples::walked().scalars.values().len();
    assert_eq!(scalars, 30);
    for walked in [samples::walked(), samples::longest_walked()] {
        let bytes = contract::encode(&walked).unwrap().len();
        assert!(bytes <= 4 * scalars + 512, "{bytes}");
    }
}

#[test]
fn orders_beats_and_dead_letters_are_as_released() {
    let [cancel, ping] = samples::controls();
    check(&cancel, "cancel");
    check(&ping, "ping");
    check(&samples::reply(), "");
    check(&samples::ask(), "");
    let [granted, refused, away] = samples::answers();
    check(&granted, "granted");
    check(&refused, "refused");
    check(&away, "away");
    let [working, idle] = samples::beats();
    check(&working, "working");
    check(&idle, "idle");
    check(&samples::dead_letter(), "");
}

/// Bytes of an earlier version, read by today's program.
fn read_old<M: Message>(version: u16) -> M {
    read_variant(version, "")
}

/// As [`read_old`], of a message with variants.
fn read_variant<M: Message>(version: u16, dot_variant: &str) -> M {
    let name = format!("{}.v{version}{dot_variant}.msgpack", M::KIND);
    let bytes = fs::read(folder().join(&name)).unwrap();
    contract::decode(Some(M::KIND), Some(&version.to_string()), &bytes).unwrap()
}

#[test]
fn earlier_versions_are_read_and_what_they_lack_has_its_meaning() {
    let mut probed = samples::probed();
    probed.measurement.encoder = Encoder::Bert;
    assert_eq!(read_old::<Probed>(3), probed);
    probed.measurement.modes.clear();
    probed.measurement.importance = None;
    probed.measurement.mean_squares = 0.0;
    assert_eq!(read_old::<Probed>(2), probed);
    probed.measurement.noise = None;
    assert_eq!(read_old::<Probed>(1), probed);
    let mut evaluated = samples::evaluated();
    evaluated.score.answers = None;
    assert_eq!(read_old::<Evaluated>(2), evaluated);
    evaluated.score.bytes_down = 0;
    assert_eq!(read_old::<Evaluated>(1), evaluated);
    let [mut probe, _] = samples::probes();
    probe.training.choices.clear();
    assert_eq!(read_old::<Probe>(4), probe);
    probe.training = plain(probe.training);
    assert_eq!(read_old::<Probe>(3), probe);
    probe.importance = Importance::Uniform;
    assert_eq!(read_old::<Probe>(2), probe);
    probe.compute = Compute::Auto;
    assert_eq!(read_old::<Probe>(1), probe);
    let mut train = samples::train();
    train.training.choices.clear();
    assert_eq!(read_old::<Train>(4), train);
    (train.training, train.rounds) = (plain(train.training), 0);
    train.plan.accumulate = 1;
    assert_eq!(read_old::<Train>(3), train);
    train.walk = None;
    assert_eq!(read_old::<Train>(2), train);
    train.strategy = Strategy::Product;
    train.live = RankTable::default();
    assert_eq!(read_old::<Train>(1), train);
    for (mut beat, variant) in samples::beats().into_iter().zip([".working", ".idle"]) {
        beat.retries = 0;
        assert_eq!(read_variant::<Beat>(1, variant), beat);
    }
    let mut walked = samples::walked();
    assert_eq!(read_old::<Walked>(2), walked);
    walked.metrics.refused_records = 0;
    assert_eq!(read_old::<Walked>(1), walked);
    let mut updated = samples::updated();
    updated.update.metrics.refused_records = 0;
    assert_eq!(read_old::<Updated>(2), updated);
    updated.update.metrics.energies = EnergyTable::default();
    assert_eq!(read_old::<Updated>(1), updated);
    for mut event in samples::events() {
        if matches!(event.event, Event::PlanKept { .. }) {
            continue;
        }
        let variant = format!(".{}", event.event.name());
        assert_eq!(read_variant::<JobEvent>(4, &variant), event);
        if let Event::Evaluated { figure, .. } = &mut event.event {
            *figure = None;
        }
        assert_eq!(read_variant::<JobEvent>(3, &variant), event);
        if !matches!(event.event, Event::ImportanceMoved { .. }) {
            assert_eq!(read_variant::<JobEvent>(2, &variant), event);
        }
    }
    let mut evaluate = samples::evaluate();
    evaluate.among = false;
    assert_eq!(read_old::<Evaluate>(3), evaluate);
    evaluate.answers = None;
    evaluate.plan.accumulate = 1;
    assert_eq!(read_old::<Evaluate>(2), evaluate);
    evaluate.walk = None;
    assert_eq!(read_old::<Evaluate>(1), evaluate);
    for mut event in samples::events() {
        match &mut event.event {
            Event::Opened { asked, .. } => asked.clear(),
            Event::Closed { credited, .. } => credited.clear(),
            Event::Finished { kept, .. } => *kept = None,
            Event::Drifted { by, .. } => *by = None,
            Event::Evaluated { figure, .. } => *figure = None,
            Event::Stopped { .. }
            | Event::Reused { .. }
            | Event::ImportanceMoved { .. }
            | Event::PlanKept { .. } => continue,
            _ => {}
        }
        let variant = format!(".{}", event.event.name());
        assert_eq!(read_variant::<JobEvent>(1, &variant), event);
    }
}

/// The settings that tasks had before schedules.
fn plain(training: Training) -> Training {
    let Training {
        optimizer,
        local_steps,
        batch,
        sequence_length,
        learning_rate,
        weight_decay,
        clip_norm,
        order,
        seed,
        ..
    } = training;
    Training {
        optimizer,
        local_steps,
        batch,
        sequence_length,
        learning_rate,
        weight_decay,
        clip_norm,
        order,
        seed,
        ..Training::default()
    }
}

#[test]
fn a_version_before_the_oldest_or_after_the_newest_is_refused() {
    let bytes = contract::encode(&samples::probed()).unwrap();
    for version in ["0", "5", "x"] {
        let read = contract::decode::<Probed>(Some(Probed::KIND), Some(version), &bytes);
        assert!(
            matches!(read, Err(DecodeError::Version { .. })),
            "{version}"
        );
    }
}

#[test]
fn every_kind_of_the_table_has_a_golden_file_and_no_file_is_left_over() {
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    for (kind, version) in contract::table::kinds() {
        let current = format!("{kind}.v{version}.");
        let earlier = (1..version).map(|earlier| format!("{kind}.v{earlier}."));
        let stems: Vec<String> = earlier.collect();
        // Earlier versions stay as long as they are read.
        files.retain(|file| !stems.iter().any(|stem| file.starts_with(stem)));
        let (of_kind, others) = files
            .into_iter()
            .partition(|file| file.starts_with(&current));
        let of_kind: Vec<String> = of_kind;
        assert!(
            !of_kind.is_empty(),
            "{kind} version {version} has no golden file"
        );
        files = others;
    }
    assert_eq!(files, Vec::<String>::new(), "of no kind");
}

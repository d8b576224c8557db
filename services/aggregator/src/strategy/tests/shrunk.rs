//! What a new plan's lower ranks leave out.

use std::path::Path;

use domain::id::JobId;
use domain::plan::{Plan, Shrunk};
use domain::round::ShrunkSite;
use serde_json::json;

use super::super::shrunk::{left_out, of};
use super::*;

const Q: WeightName = WeightName::new(0, Projection::Q);
const V: WeightName = WeightName::new(1, Projection::V);

/// A site's name and ranks, and those that fell, as they were.
type Shrinking<'a> = (&'a str, RankTable, &'a [(WeightName, u16)]);

/// Version 2, from round 3 on: what each site trains now, and which of its ranks were how high.
fn plan(global: &RankTable, sites: &[Shrinking<'_>]) -> Plan {
    let (mut workers, mut shrunk) = (serde_json::Map::new(), Vec::new());
    for (name, ranks, before) in sites {
        let worker = json!({
            "ranks": ranks, "base": "source", "kernel": "k", "threads": 1, "batch": 1,
            "local_steps": 1, "sequence_length": 8, "checkpoint": false, "optimizer": "adamw",
            "predicted": {"step_seconds": 1.0, "round_seconds": 1.0, "peak_memory_bytes": 1,
                          "upload_bytes": 1},
            "why": {"text": "", "binding": "nothing", "rejected": []},
        });
        workers.insert((*name).to_owned(), worker);
        shrunk.extend(before.iter().map(|(weight, from)| Shrunk {
            worker: name.parse().expect("legal"),
            weight: *weight,
            from: *from,
            to: ranks.rank(*weight),
        }));
    }
    let plan = json!({
        "job": JobId::from_bits(1), "version": 2, "parent": 1, "from_round": 3,
        "replayed_from": null, "round_seconds": 1.0, "deadline_seconds": 60, "global": global,
        "workers": workers, "excluded": [], "shrunk": shrunk,
    });
    serde_json::from_value(plan).expect("a plan")
}

fn table(q: u16, v: u16) -> RankTable {
    [(Q, q), (V, v)].into_iter().collect()
}

/// Slices of these energies, at right angles to each other.
fn known(memory: &mut Memory, name: WeightName, energies: &[f64]) {
    let mut all = weights().into_iter();
    let weight = all.find(|weight| weight.name == name).expect("a weight");
    let rank = energies.len();
    let mut a = vec![0.0f32; rank * weight.inp];
    let mut b = vec![0.0f32; weight.out * rank];
    for (j, energy) in energies.iter().enumerate() {
        a[j * weight.inp + j] = 0.5;
        b[(j + 7) * rank + j] = (energy.sqrt() / (0.5 * SCALE)) as f32;
    }
    put(memory, weight, rank, a, b);
}

fn check(found: &[ShrunkSite], expected: &[(&str, f64, f64)]) {
    let names: Vec<&str> = found.iter().map(|site| site.worker.as_str()).collect();
    let wanted: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, wanted);
    for (site, (name, dropped, withheld)) in found.iter().zip(expected) {
        let off = (site.dropped_energy - dropped).abs() + (site.withheld_energy - withheld).abs();
        assert!(off < 1e-6, "{name}: {site:?}");
    }
}

#[test]
fn a_site_drops_the_slices_between_its_old_and_its_new_ranks_and_is_without_all_beyond() {
    let mut global = Memory::default();
    // The last slice of Q is a side term's: every site applies it, whatever its rank.
    known(&mut global, Q, &[16.0, 9.0, 4.0, 1.0, 100.0]);
    known(&mut global, V, &[10.0, 5.0, 3.0, 2.0]);
    let plan = plan(
        &table(4, 4),
        &[
            ("a", table(2, 4), &[(Q, 4)]),
            // Had never all of Q, and has more of V than before.
            ("b", table(1, 2), &[(Q, 3)]),
            ("c", table(1, 1), &[]),
            ("d", table(0, 4), &[(Q, 4)]),
        ],
    );
    let expected = [
        ("a", 5.0 / 50.0, 5.0 / 50.0),
        ("b", 13.0 / 50.0, 19.0 / 50.0),
        ("d", 30.0 / 50.0, 30.0 / 50.0),
    ];
    check(&left_out(&plan, &global).expect("reads"), &expected);
}

#[test]
fn where_slices_are_not_orthogonal_it_is_what_their_product_leaves_out() {
    let ranks = uniform(8);
    let global = random(&ranks, 400);
    let all: Vec<WeightName> = weights().iter().map(|weight| weight.name).collect();
    let before: Vec<(WeightName, u16)> = all.iter().map(|name| (*name, 8)).collect();
    let plan = plan(&ranks, &[("a", uniform(3), &before)]);
    let (mut whole, mut out) = (0.0, 0.0);
    for weight in weights() {
        let live = dense(&global, weight, 8);
        whole += live.squared_norm_l2();
        out += (live - dense(&global, weight, 3)).squared_norm_l2();
    }
    let share = out / whole;
    assert!(share > 0.1, "{share}");
    let found = left_out(&plan, &global).expect("reads");
    check(&found, &[("a", share, share)]);
}

#[test]
fn an_adapter_that_changes_nothing_yet_loses_nothing() {
    let mut global = Memory::default();
    super::super::fresh(&uniform(4), &weights(), SEED, &mut global).expect("writes");
    let plan = plan(&uniform(4), &[("a", uniform(2), &[(Q, 4)])]);
    check(
        &left_out(&plan, &global).expect("reads"),
        &[("a", 0.0, 0.0)],
    );
}

#[test]
fn it_is_told_with_the_plan_s_first_round_alone() {
    let plan = plan(&uniform(4), &[("a", uniform(2), &[(Q, 4)])]);
    let absent = Path::new("/nowhere/at-all");
    for round in [2, 4] {
        let told = of(&plan, round, absent).expect("nothing is read");
        assert!(told.is_empty(), "{told:?}");
    }
    assert!(of(&plan, 3, absent).is_err(), "the adapter is looked at");
}

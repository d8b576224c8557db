//! What the weights are worth becomes another order while a job trains: it is found out by what the sites report of
//! their gradients, told, and the plan is looked at again. The reports are made up, so that the order is known.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use domain::adapter::{RankTable, WeightName};
use domain::energy::EnergyTable;
use reqwest::Method;
use serde_json::{Value, json};
use tests::forger::{self, Forger};
use tests::job::{job, with};
use tests::points::Fate;
use tests::tensors::{self, Adapter, Factors};
use tests::{Fleet, Setup, Wire, archive};

const END: Duration = Duration::from_secs(60);
const SITES: [&str; 2] = ["a", "b"];

/// The adapter of a finished job: which weights there are, and how wide.
async fn widths(fleet: &Fleet, job: &Value) -> Adapter {
    let mut once = with(job.clone(), "rounds", json!({"count": 1}));
    // All weights, whichever a plan would leave out.
    once["adapter"]["rank"] = once["adapter"]["rank_max"].clone();
    let id = fleet.api().submit(&once).await;
    fleet.api().succeeded(&id, END).await;
    let path = format!("/v1/jobs/{id}/adapter");
    let (_, tar) = fleet.api().bytes(Method::GET, &path, None).await.unwrap();
    tensors::read(&archive::files(&tar)["adapter_model.safetensors"])
}

/// An update that changes nothing, of the ranks that a site was planned.
fn still(widths: &Adapter, ranks: &RankTable) -> Vec<u8> {
    let weights = widths.iter().filter_map(|(key, widths)| {
        let (name, _) = WeightName::from_peft(key)?;
        let rank = usize::from(ranks.rank(name));
        (rank > 0).then(|| (key.clone(), Factors::made(rank, widths, || 0.0)))
    });
    tensors::write(&weights.collect())
}

/// Energies that grow from weight to weight, or fall.
fn energies(ranks: &RankTable, grow: bool) -> EnergyTable {
    let names: Vec<WeightName> = ranks.trained().map(|(name, _)| name).collect();
    let place = |at: usize| if grow { at + 1 } else { names.len() - at };
    let named = names.iter().enumerate();
    named.map(|(at, name)| (*name, place(at) as f32)).collect()
}

/// φ of each weight in a site's profile.
async fn worth(wire: &Wire, id: &str, site: &str) -> Vec<f64> {
    let profile = wire
        .value("fedpipe_profiles", &format!("{id}.{site}"))
        .await;
    let weights = profile["measurement"]["importance"]["weights"].as_array();
    let worth = |weight: &Value| {
        let energies = weight["energies"].as_array().unwrap().iter();
        energies.filter_map(Value::as_f64).sum()
    };
    weights.unwrap().iter().map(worth).collect()
}

#[tokio::test]
async fn an_order_of_weights_that_turned_round_is_told_and_planned_by() {
    let patient = Setup {
        idle: Duration::from_secs(8),
        ..Setup::sites(2)
    };
    let fleet = Fleet::start(&patient).await;
    let (api, points) = (fleet.api(), fleet.points());
    let wire = Wire::tap(&fleet).await;
    let asked = job(&fleet.model());
    let widths = widths(&fleet, &asked).await;

    let hold = Failpoint::PlannerPlanAfterPlanStored;
    points.arm(hold, Fate::Halted);
    let id = api
        .submit(&with(asked, "rounds", json!({"count": 4, "quorum": "all"})))
        .await;
    points.reached(hold, Fate::Halted, END).await;
    let plan = wire.value("fedpipe_plans", &format!("{id}.1")).await;
    SITES
        .iter()
        .for_each(|site| fleet.halt(&format!("worker-{site}")));
    let before = worth(&wire, &id, "a").await;
    fleet.go_on("planner");
    for round in 1..=3 {
        let open = |job: &Value| job["phase"] == "training" && job["round"] == round;
        let job = api.until(&id, "the round is open", END, open).await;
        let epoch = job["epoch"].as_u64().unwrap();
        for site in SITES {
            let ranks = plan["workers"][site]["ranks"].clone();
            let ranks: RankTable = serde_json::from_value(ranks).unwrap();
            let forger = Forger::of(&fleet, site).await;
            let stored = forger.store(&id, round, &still(&widths, &ranks)).await;
            let mut update = forger::update(stored);
            update.metrics.energies = energies(&ranks, round == 1);
            forger.report(&id, epoch, round, update).await;
        }
    }
    let last = |job: &Value| job["phase"] == "training" && job["round"] == 4;
    api.until(&id, "the last round is open", END, last).await;
    fleet.all_go_on();
    api.succeeded(&id, END).await;

    let events = api.events(&id).await;
    let moved: Vec<&Value> = events
        .iter()
        .filter(|event| event.name == "importance-moved")
        .map(|event| &event.detail)
        .collect();
    assert_eq!(moved, [&json!({"since": 1, "agreement": -1.0})]);
    // The look that followed made another plan, or it was said why this one stays.
    if api.job(&id).await["plan_version"] == 1 {
        let mut kept = events.iter().filter(|event| event.name == "plan-kept");
        let kept = &kept.next().unwrap().detail;
        assert_eq!(kept["version"], 1, "{kept:#}");
        assert!(kept["why"].as_str().unwrap().len() > 10, "{kept:#}");
    }
    // What grew is worth more in the profiles that the plan was looked at by, and what fell is worth less.
    let after = worth(&wire, &id, "a").await;
    let ranks: RankTable = serde_json::from_value(plan["workers"]["a"]["ranks"].clone()).unwrap();
    let (first, last) = (energies(&ranks, true), energies(&ranks, false));
    let summary = wire.value("fedpipe_jobs", &format!("{id}.round.3")).await;
    let seen: EnergyTable = serde_json::from_value(summary["energies"].clone()).unwrap();
    assert_eq!(seen, last, "the fleet's mean of two that say the same");
    let profile = wire.value("fedpipe_profiles", &format!("{id}.a")).await;
    let weights = profile["measurement"]["importance"]["weights"].as_array();
    let mut compared = 0;
    for ((weight, before), after) in weights.unwrap().iter().zip(before).zip(after) {
        let name: WeightName = weight["name"].as_str().unwrap().parse().unwrap();
        let both = last.both(&first);
        if let Some((_, now, then)) = both.iter().find(|(of, ..)| *of == name) {
            let off = after / before / (now / then) - 1.0;
            assert!(off.abs() < 1e-4, "{name}: {before}, then {after}");
            compared += 1;
        }
    }
    assert!(compared > 2, "{compared}");
}

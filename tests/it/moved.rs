//! What the weights are worth becomes another order while a job trains: it is found out by what the sites report of
//! their gradients, told, and the plan is looked at again. The reports are made up, so that the order is known, and so
//! are the costs of ranks, so that it is known what comes of the look.

use std::time::Duration;

use chassis::failpoint::Failpoint;
use domain::adapter::{RankTable, WeightName, WeightShape};
use domain::energy::EnergyTable;
use reqwest::Method;
use serde_json::{Value, json};
use tests::api::Event;
use tests::forger::{self, Forger};
use tests::job::{job, with};
use tests::points::Fate;
use tests::tensors::{self, Adapter, Factors};
use tests::{Fleet, Setup, Wire, archive};

const END: Duration = Duration::from_secs(60);
const SITES: [&str; 2] = ["a", "b"];

/// Bytes that a site may use, as its profile says: beside them all that is not an adapter is nothing.
const MEMORY: u64 = 1 << 40;

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

/// Has a profile know one way to train, that of the site's plan, in which ranks take memory and no time, and memory has
/// room for so many parameters. The weights of the first block are worth a little more than the others.
fn make_up(profile: &mut Value, plan: &Value, parameters: f64) {
    let fields = ["base", "kernel", "checkpoint", "optimizer"];
    for modes in ["/measurement/modes", "/modes"] {
        let modes = profile.pointer_mut(modes).unwrap().as_array_mut().unwrap();
        modes.retain(|one| {
            fields
                .iter()
                .all(|field| one["mode"][*field] == plan[*field])
        });
        assert_eq!(modes.len(), 1, "{plan:#}");
    }
    let fitted = &mut profile["modes"][0];
    fitted["memory_error"] = json!(0.0);
    fitted["cost"]["seconds_per_token_parameter"] = json!(0.0);
    fitted["cost"]["memory_per_parameter"] = json!(MEMORY as f64 / parameters);
    let measured = &mut profile["measurement"];
    measured["memory_limit_bytes"] = json!(MEMORY);
    // Of a rate that was not measured no transfer counts.
    measured["upload_bytes_per_second"] = json!(0.0);
    let importance = &mut measured["importance"];
    importance["agreement"] = json!(1.0);
    for weight in importance["weights"].as_array_mut().unwrap() {
        let name: WeightName = weight["name"].as_str().unwrap().parse().unwrap();
        let first = if name.layer() == 0 { 1.25 } else { 1.0 };
        weight["energies"] = (1..=8).map(|j| first / f64::from(j)).collect();
    }
}

/// A fleet, and a job whose adapter's widths are known.
struct Turned {
    fleet: Fleet,
    wire: Wire,
    job: Value,
    widths: Adapter,
}

impl Turned {
    async fn prepare() -> Self {
        let patient = Setup {
            idle: Duration::from_secs(8),
            ..Setup::sites(2)
        };
        let fleet = Fleet::start(&patient).await;
        let wire = Wire::tap(&fleet).await;
        let job = job(&fleet.model());
        let widths = widths(&fleet, &job).await;
        Self {
            fleet,
            wire,
            job,
            widths,
        }
    }

    /// Runs the job. Its first plan is the highest rank everywhere, and from then on sites have room for this share of such
    /// an adapter. Three rounds are answered in their place: by the first the later weights are worth least, by the others
    /// most. Checks that this is told, and reaches the profiles; returns the job.
    async fn run(&self, room: f64) -> String {
        let (fleet, wire) = (&self.fleet, &self.wire);
        let (api, points) = (fleet.api(), fleet.points());
        let hold = Failpoint::PlannerPlanAfterPlanStored;
        points.arm(hold, Fate::Halted);
        let rounds = json!({"count": 4, "quorum": "all"});
        let id = api.submit(&with(self.job.clone(), "rounds", rounds)).await;
        points.reached(hold, Fate::Halted, END).await;
        SITES
            .iter()
            .for_each(|site| fleet.halt(&format!("worker-{site}")));
        let ranks = self.overwrite(&id, room).await;
        let before = worth(wire, &id, "a").await;
        fleet.go_on("planner");
        for round in 1..=3 {
            let open = |job: &Value| job["phase"] == "training" && job["round"] == round;
            let job = api.until(&id, "the round is open", END, open).await;
            let epoch = job["epoch"].as_u64().unwrap();
            for site in SITES {
                let forger = Forger::of(fleet, site).await;
                let stored = still(&self.widths, &ranks);
                let stored = forger.store(&id, round, &stored).await;
                let mut update = forger::update(stored);
                update.metrics.energies = energies(&ranks, round > 1);
                forger.report(&id, epoch, round, update).await;
            }
        }
        let last = |job: &Value| job["phase"] == "training" && job["round"] == 4;
        api.until(&id, "the last round is open", END, last).await;
        fleet.all_go_on();
        api.succeeded(&id, END).await;

        let events = api.events(&id).await;
        let moved = json!({"since": 1, "agreement": -1.0});
        assert_eq!(details(&events, "importance-moved"), [&moved]);
        self.check_worth(&id, &ranks, &before).await;
        id
    }

    /// Overwrites the job's plan and its profiles. Returns the ranks that every site trains at.
    async fn overwrite(&self, id: &str, room: f64) -> RankTable {
        let wire = &self.wire;
        let key = format!("{id}.1");
        let mut plan = wire.value("fedpipe_plans", &key).await;
        let planned = plan["workers"]["a"]["ranks"].clone();
        let planned: RankTable = serde_json::from_value(planned).unwrap();
        let most = self.job["adapter"]["rank_max"].as_u64().unwrap();
        let most = u16::try_from(most).unwrap();
        let ranks: RankTable = planned.trained().map(|(name, _)| (name, most)).collect();
        for site in SITES {
            let own = format!("{id}.{site}");
            let mut profile = wire.value("fedpipe_profiles", &own).await;
            let weights = profile["measurement"]["weights"].clone();
            let weights: Vec<WeightShape> = serde_json::from_value(weights).unwrap();
            let parameters = room * ranks.parameters(&weights) as f64;
            make_up(&mut profile, &plan["workers"][site], parameters);
            wire.overwrite("fedpipe_profiles", &own, &profile).await;
            plan["workers"][site]["ranks"] = json!(ranks);
        }
        wire.overwrite("fedpipe_plans", &key, &plan).await;
        ranks
    }

    /// What grew is worth more in the profiles that the plan was looked at by, and what fell is worth less.
    async fn check_worth(&self, id: &str, ranks: &RankTable, before: &[f64]) {
        let wire = &self.wire;
        let after = worth(wire, id, "a").await;
        let (first, last) = (energies(ranks, false), energies(ranks, true));
        let summary = wire.value("fedpipe_jobs", &format!("{id}.round.3")).await;
        let seen: EnergyTable = serde_json::from_value(summary["energies"].clone()).unwrap();
        assert_eq!(seen, last, "the fleet's mean of two that say the same");
        let profile = wire.value("fedpipe_profiles", &format!("{id}.a")).await;
        let weights = profile["measurement"]["importance"]["weights"].as_array();
        let both = last.both(&first);
        let mut compared = 0;
        for ((weight, before), after) in weights.unwrap().iter().zip(before).zip(after) {
            let name: WeightName = weight["name"].as_str().unwrap().parse().unwrap();
            if let Some((_, now, then)) = both.iter().find(|(of, ..)| *of == name) {
                let off = after / before / (now / then) - 1.0;
                assert!(off.abs() < 1e-4, "{name}: {before}, then {after}");
                compared += 1;
            }
        }
        assert!(compared > 2, "{compared}");
    }
}

/// What the events of this name say.
fn details<'a>(events: &'a [Event], name: &str) -> Vec<&'a Value> {
    let named = events.iter().filter(|event| event.name == name);
    named.map(|event| &event.detail).collect()
}

#[tokio::test]
async fn an_order_of_weights_that_turned_round_is_told_and_planned_by() {
    let turned = Turned::prepare().await;
    let api = turned.fleet.api();

    // Where all of it has room, no order makes another plan better.
    let id = turned.run(2.0).await;
    assert_eq!(api.job(&id).await["plan_version"], 1);
    let events = api.events(&id).await;
    let kept = details(&events, "plan-kept");
    let [kept] = kept.as_slice() else {
        panic!("{kept:#?}");
    };
    assert_eq!(kept["version"], 1, "{kept:#}");
    let why = kept["why"].as_str().unwrap();
    assert!(why.ends_with("which is not more than 7 %"), "{why}");

    // Where half of it has, what grew has the higher ranks.
    let id = turned.run(0.5).await;
    assert_eq!(api.job(&id).await["plan_version"], 2);
    let events = api.events(&id).await;
    assert_eq!(details(&events, "plan-kept"), Vec::<&Value>::new());
    let plan = turned.wire.value("fedpipe_plans", &format!("{id}.2")).await;
    let from = (&plan["parent"], &plan["from_round"]);
    assert_eq!(from, (&json!(1), &json!(4)), "{plan:#}");
    for site in SITES {
        let why = plan["replaces"].as_array().unwrap().iter();
        let words = format!("what {site} trains needs ");
        let mut why = why.filter_map(Value::as_str);
        assert!(why.any(|why| why.starts_with(&words)), "{plan:#}");
        let ranks = plan["workers"][site]["ranks"].clone();
        let ranks: RankTable = serde_json::from_value(ranks).unwrap();
        // Of weights as wide as each other the first block's were worth more before, and are worth less now.
        let pairs = ranks.targets().map(|projection| {
            let rank = |layer| ranks.rank(WeightName::new(layer, projection));
            (rank(0), rank(1))
        });
        let pairs: Vec<(u16, u16)> = pairs.collect();
        assert!(
            pairs.iter().all(|(first, second)| first <= second),
            "{pairs:?}"
        );
        assert!(
            pairs.iter().any(|(first, second)| first < second),
            "{pairs:?}"
        );
    }
}

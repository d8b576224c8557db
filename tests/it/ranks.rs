//! Sites of different rank in one job, their updates made up so that the right merge is known.

use std::ops::Range;
use std::time::Duration;

use artifacts::Transfer;
use chassis::failpoint::Failpoint;
use domain::adapter::RankTable;
use domain::artifact::ArtifactRef;
use domain::plan::Shrunk;
use reqwest::Method;
use serde_json::{Value, json};
use tests::forger::{self, Forger};
use tests::job::{job, with};
use tests::points::Fate;
use tests::tensors::{self, Adapter, Factors};
use tests::{Fleet, Setup, Wire, archive};

const END: Duration = Duration::from_secs(60);
/// Largest adapter file here.
const LIMIT: u64 = 16 << 20;

/// A fleet and a job whose plan gives these ranks to sites a, b, …
struct Uneven {
    fleet: Fleet,
    wire: Wire,
    job: Value,
    /// The widths of every weight.
    widths: Adapter,
    ranks: Vec<usize>,
}

impl Uneven {
    /// Runs a first job at the largest rank, then gives its plan the other ranks.
    async fn prepare(ranks: &[usize], rank_max: usize, change: impl Fn(Value) -> Value) -> Self {
        let count = u8::try_from(ranks.len()).unwrap();
        let fleet = Fleet::start(&Setup::sites(count)).await;
        let asked = json!({"targets": ["q", "down"], "rank": rank_max, "rank_max": rank_max, "alpha": 16.0});
        let first = change(with(job(&fleet.model()), "adapter", asked));
        let once = with(first.clone(), "rounds", json!({"count": 1}));
        let id = fleet.api().submit(&once).await;
        fleet.api().succeeded(&id, END).await;
        let widths = adapter(&fleet, &id).await;

        // No planner would be this uneven on machines that are alike.
        let wire = Wire::tap(&fleet).await;
        let key = format!("{id}.1");
        let mut plan = wire.value("fedpipe_plans", &key).await;
        for (site, rank) in sites(ranks.len()).zip(ranks) {
            let of_site = &mut plan["workers"][site.as_str()]["ranks"];
            for row in of_site.as_object_mut().unwrap().values_mut() {
                let cells = row.as_array_mut().unwrap();
                cells.iter_mut().for_each(|cell| *cell = json!(rank));
            }
        }
        wire.overwrite("fedpipe_plans", &key, &plan).await;
        Self {
            fleet,
            wire,
            job: with(first, "plan_from", json!(id)),
            widths,
            ranks: ranks.to_vec(),
        }
    }

    /// Runs the job for so many rounds. The first is answered for every site with an update of its
    /// rank from `make(site's number, weight)`; the sites answer the others themselves. Returns the
    /// job and the shares that the updates had.
    async fn run(
        &self,
        rounds: u32,
        make: impl Fn(usize, &Factors) -> Factors,
    ) -> (String, Vec<f64>, Vec<Adapter>) {
        let Self { fleet, .. } = self;
        let hold = Failpoint::PlannerPlanAfterPlanStored;
        fleet.points().arm(hold, Fate::Halted);
        let asked = with(self.job.clone(), "rounds", json!({"count": rounds}));
        let id = fleet.api().submit(&asked).await;
        fleet.points().reached(hold, Fate::Halted, END).await;
        sites(self.ranks.len()).for_each(|site| fleet.halt(&format!("worker-{site}")));
        fleet.go_on("planner");
        let open = fleet.api().phase(&id, "training", END).await;
        let epoch = open["epoch"].as_u64().unwrap();
        let mut made = Vec::new();
        for (number, site) in sites(self.ranks.len()).enumerate() {
            let weights = self.widths.iter();
            let update: Adapter = weights
                .map(|(name, widths)| (name.clone(), make(number, widths)))
                .collect();
            let forger = Forger::of(fleet, &site).await;
            let stored = forger.store(&id, 1, &tensors::write(&update)).await;
            forger.report(&id, epoch, 1, forger::update(stored)).await;
            made.push(update);
        }
        if rounds == 1 {
            fleet.api().succeeded(&id, END).await;
        }
        fleet.all_go_on();
        fleet.api().succeeded(&id, END).await;
        let round = fleet.api().rounds(&id).await[1].clone();
        let workers = round["workers"].as_array().unwrap();
        let ranks: Vec<u64> = workers.iter().filter_map(|w| w["rank"].as_u64()).collect();
        let asked: Vec<u64> = self.ranks.iter().map(|rank| *rank as u64).collect();
        assert_eq!(ranks, asked);
        let shares = workers.iter().map(|w| w["weight"].as_f64().unwrap());
        (id, shares.collect(), made)
    }

    /// Gives the job that is replayed a second plan, which begins with round 2 and in which this site has a lower rank.
    async fn falls(&self, site: &str, to: u16) {
        let other = self.job["plan_from"].as_str().unwrap();
        let first = format!("{other}.1");
        let mut plan = self.wire.value("fedpipe_plans", &first).await;
        let of_site = &mut plan["workers"][site]["ranks"];
        let before: RankTable = serde_json::from_value(of_site.clone()).unwrap();
        let lower: RankTable = before.trained().map(|(name, _)| (name, to)).collect();
        *of_site = json!(lower);
        let shrunk = before.trained().map(|(weight, from)| Shrunk {
            worker: site.parse().unwrap(),
            weight,
            from,
            to,
        });
        plan["shrunk"] = json!(shrunk.collect::<Vec<_>>());
        plan["version"] = json!(2);
        plan["parent"] = json!(1);
        plan["from_round"] = json!(2);
        let second = format!("{other}.2");
        self.wire.overwrite("fedpipe_plans", &second, &plan).await;
    }

    /// The merged adapter of a round.
    async fn merged(&self, id: &str, round: u32) -> Adapter {
        let key = format!("{id}.round.{round}");
        let summary = self.wire.value("fedpipe_jobs", &key).await;
        let global: ArtifactRef = serde_json::from_value(summary["global"].clone()).unwrap();
        let transfer = Transfer::default();
        let store = self.fleet.objects();
        let bytes = store.get_bytes(&global, LIMIT, &transfer).await;
        tensors::read(&bytes.unwrap())
    }
}

fn sites(count: usize) -> impl Iterator<Item = String> {
    ('a'..='z').take(count).map(String::from)
}

/// A finished job's adapter.
async fn adapter(fleet: &Fleet, id: &str) -> Adapter {
    let path = format!("/v1/jobs/{id}/adapter");
    let (_, tar) = fleet.api().bytes(Method::GET, &path, None).await.unwrap();
    tensors::read(&archive::files(&tar)["adapter_model.safetensors"])
}

/// Even numbers from -1 to 1, the same every time.
fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[tokio::test]
async fn updates_of_ranks_4_8_and_16_are_merged_as_the_dense_formula_says_and_each_once() {
    // 4 + 8 + 16 slices: nothing has to be dropped.
    let uneven = Uneven::prepare(&[4, 8, 16], 28, |job| job).await;
    let random = |number: usize, widths: &Factors| {
        let seed = 7 + number as u64 + (widths.inp * widths.out) as u64;
        Factors::made(uneven.ranks[number], widths, numbers(seed))
    };
    let (id, shares, updates) = uneven.run(1, random).await;
    assert!(
        (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9,
        "{shares:?}"
    );
    let mut squares = 0;
    for (name, merged) in adapter(&uneven.fleet, &id).await {
        let mut expected = vec![0.0; merged.out * merged.inp];
        for (update, share) in updates.iter().zip(&shares) {
            let entries = expected.iter_mut().zip(update[&name].product());
            entries.for_each(|(sum, entry)| *sum += share * entry);
        }
        let found = merged.product();
        let off = tensors::off(&found, &expected);
        assert!(off < 1e-5, "{name}: {off}");
        if merged.out == merged.inp {
            squares += 1;
            let side = merged.out;
            let turned = (0..side * side).map(|at| found[at % side * side + at / side]);
            let off = tensors::off(&turned.collect::<Vec<_>>(), &expected);
            assert!(off > 0.5, "{name}: the transpose would have passed");
        }
    }
    assert!(squares > 0, "no square weight, so no transpose was tried");

    // Site i sets entry (i, i) alone, to the inverse of its share: 2 is double counting, 0 a loss.
    let one_hot = |number: usize, widths: &Factors| {
        let rank = uneven.ranks[number];
        let mut factors = Factors::made(rank, widths, || 0.0);
        factors.a[(rank - 1) * widths.inp + number] = 1.0;
        factors.b[number * rank + rank - 1] = (1.0 / shares[number]) as f32;
        factors
    };
    let (id, again, _) = uneven.run(1, one_hot).await;
    assert_eq!(again, shares);
    for (name, merged) in adapter(&uneven.fleet, &id).await {
        for (at, found) in merged.product().into_iter().enumerate() {
            let (row, column) = (at / merged.inp, at % merged.inp);
            let hot = row == column && row < uneven.ranks.len();
            let expected = f64::from(u8::from(hot));
            let close = (found - expected).abs() < 1e-5;
            assert!(close, "{name} ({row}, {column}): {found}");
        }
    }
}

#[tokio::test]
async fn ranks_4_and_16_without_learning_leave_the_global_as_it_is_for_ten_rounds() {
    let still = |mut job: Value| {
        job["training"]["learning_rate"] = json!(0.0);
        job
    };
    let uneven = Uneven::prepare(&[4, 16], 16, still).await;
    let random = |number: usize, widths: &Factors| {
        let seed = 70 + number as u64 + (widths.inp * widths.out) as u64;
        Factors::made(uneven.ranks[number], widths, numbers(seed))
    };
    let (id, _, _) = uneven.run(11, random).await;
    let first = uneven.merged(&id, 1).await;
    let last = adapter(&uneven.fleet, &id).await;
    let none: Adapter = first
        .iter()
        .map(|(name, widths)| (name.clone(), Factors::made(16, widths, || 0.0)))
        .collect();
    assert!(
        tensors::difference(&none, &first) > 0.9,
        "the global is zero, so nothing was tested"
    );
    let off = tensors::difference(&last, &first);
    eprintln!("after ten rounds without learning the global is off by {off:.1e}");
    assert!(off < 1e-6, "{off}");
    let rounds = uneven.fleet.api().rounds(&id).await;
    assert_eq!(rounds.len(), 12);
    for round in &rounds[2..] {
        assert_eq!(round["missing"], json!([]), "{round:#}");
    }
}

/// What these slices of an adapter add up to, squared.
fn energy(adapter: &Adapter, slices: &Range<usize>) -> f64 {
    let of = |factors: &Factors| -> f64 {
        let Factors { rank, inp, out, .. } = *factors;
        let rows = factors.b.chunks(rank);
        let part = Factors {
            rank: slices.len(),
            inp,
            out,
            a: factors.a[slices.start * inp..slices.end * inp].to_vec(),
            b: rows
                .flat_map(|row| row[slices.clone()].iter().copied())
                .collect(),
        };
        part.product().iter().map(|entry| entry * entry).sum()
    };
    adapter.values().map(of).sum()
}

/// Rank 4 becomes 2 with round 2: what that drops is of the adapter of round 1, before anything was merged at rank 2.
#[tokio::test]
async fn a_site_whose_rank_falls_is_told_with_what_it_drops_of_the_adapter_that_it_goes_on_from() {
    let uneven = Uneven::prepare(&[4, 4], 8, |job| job).await;
    uneven.falls("b", 2).await;
    let random = |number: usize, widths: &Factors| {
        let seed = 40 + number as u64 + (widths.inp * widths.out) as u64;
        Factors::made(uneven.ranks[number], widths, numbers(seed))
    };
    let (id, _, _) = uneven.run(2, random).await;
    let rounds = uneven.fleet.api().rounds(&id).await;
    let workers = rounds[2]["workers"].as_array().unwrap();
    let ranks: Vec<&Value> = workers.iter().map(|worker| &worker["rank"]).collect();
    assert_eq!(ranks, [&json!(4), &json!(2)]);
    assert_eq!(rounds[1]["shrunk"], json!([]));
    let told = rounds[2]["shrunk"].as_array().unwrap();
    let names: Vec<&Value> = told.iter().map(|site| &site["worker"]).collect();
    assert_eq!(names, ["b"]);

    let start = uneven.merged(&id, 1).await;
    let whole = energy(&start, &(0..8));
    for (name, slices) in [("dropped_energy", 2..4), ("withheld_energy", 2..8)] {
        let (found, expected) = (told[0][name].as_f64().unwrap(), energy(&start, &slices));
        assert!(expected > 0.0, "{name}: nothing was tested");
        let off = (found - expected / whole).abs();
        assert!(off < 1e-5, "{name}: {found}, not {expected} of {whole}");
    }
}

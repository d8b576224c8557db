//! Every merging rule through the real services: real updates, real merges, an adapter for PEFT.

use std::collections::BTreeMap;
use std::time::Duration;

use artifacts::Transfer;
use chassis::failpoint::Failpoint;
use domain::artifact::ArtifactRef;
use serde_json::{Value, json};
use tests::job::{job, with};
use tests::points::Fate;
use tests::tensors::{self, Adapter};
use tests::{Fleet, Setup, Site, Wire, archive};

const END: Duration = Duration::from_secs(90);
/// Largest adapter file here.
const LIMIT: u64 = 16 << 20;
/// `alpha / rank_max` of these jobs.
const SCALE: f64 = 2.0;

/// A fleet on which jobs of one rank run under several rules.
struct Rules {
    fleet: Fleet,
    wire: Wire,
}

impl Rules {
    fn job(&self, aggregation: &Value) -> Value {
        let adapter = json!({"targets": ["q", "v"], "rank": 4, "rank_max": 8, "alpha": 16.0});
        let asked = with(job(&self.fleet.model()), "adapter", adapter);
        let asked = with(asked, "aggregation", aggregation.clone());
        with(asked, "retention", json!({"keep_updates": true}))
    }

    async fn summary(&self, id: &str, round: u32) -> Value {
        let key = format!("{id}.round.{round}");
        self.wire.value("fedpipe_jobs", &key).await
    }

    async fn object(&self, reference: &Value) -> Vec<u8> {
        let reference: ArtifactRef = serde_json::from_value(reference.clone()).unwrap();
        let (store, transfer) = (self.fleet.objects(), Transfer::default());
        let bytes = store.get_bytes(&reference, LIMIT, &transfer).await;
        bytes.unwrap().to_vec()
    }

    async fn merged(&self, id: &str, round: u32) -> Adapter {
        let summary = self.summary(id, round).await;
        tensors::read(&self.object(&summary["global"]).await)
    }

    /// The digest of a job's adapter whose aggregator died with a merge in storage that is not committed.
    async fn killed_in_its_fold(&self, job: &Value) -> String {
        let (points, stored) = (self.fleet.points(), Failpoint::AggregatorFoldAfterArtifact);
        points.arm(stored, Fate::Killed);
        let id = self.fleet.api().submit(job).await;
        let digest = self.fleet.api().succeeded(&id, END).await;
        assert!(!points.disarm(stored, Fate::Killed), "not reached");
        digest
    }

    /// A job with the plan of another, but `steps` steps of its first site.
    async fn uneven_steps(&self, job: &Value, steps: u32) -> Value {
        let first = self.fleet.api().submit(job).await;
        self.fleet.api().succeeded(&first, END).await;
        let key = format!("{first}.1");
        let mut plan = self.wire.value("fedpipe_plans", &key).await;
        let workers = plan["workers"].as_object_mut().unwrap();
        workers.values_mut().next().unwrap()["local_steps"] = json!(steps);
        self.wire.overwrite("fedpipe_plans", &key, &plan).await;
        with(job.clone(), "plan_from", json!(first))
    }

    /// How far the sites of the first round went from where they started, each, in all weights.
    async fn distances(&self, id: &str) -> Vec<f64> {
        let start = self.merged(id, 0).await;
        let mut all = Vec::new();
        for worker in self.summary(id, 1).await["workers"].as_array().unwrap() {
            let sent = tensors::read(&self.object(&worker["update"]).await);
            let weights = start.iter().map(|(name, start)| {
                let rows = |of: &tensors::Factors| [of.a.clone(), of.b.clone()].concat();
                let both = rows(&sent[name]).into_iter().zip(rows(start));
                both.map(|(now, before)| f64::from(now - before).powi(2))
                    .sum::<f64>()
            });
            all.push(weights.sum::<f64>().sqrt());
        }
        all
    }

    /// The steps of the two sites of the first round, if each moved the merge as if it had made the mean of them: half
    /// of it each.
    async fn normalized(&self, id: &str) -> Vec<f64> {
        let summary = self.summary(id, 1).await;
        let sites = summary["workers"].as_array().unwrap();
        let steps: Vec<f64> = sites
            .iter()
            .map(|site| site["metrics"]["steps"].as_f64().unwrap())
            .collect();
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        let (start, merged) = (self.merged(id, 0).await, self.merged(id, 1).await);
        for (name, start) in &start {
            let mut expected: Vec<f64> = start.a.iter().map(|&value| f64::from(value)).collect();
            for (site, steps) in sites.iter().zip(&steps) {
                let sent = tensors::read(&self.object(&site["update"]).await);
                let share = 0.5 * mean / steps;
                let moved = expected.iter_mut().zip(&sent[name].a).zip(&start.a);
                moved.for_each(|((sum, now), before)| *sum += share * f64::from(now - before));
            }
            let found: Vec<f64> = merged[name]
                .a
                .iter()
                .map(|&value| f64::from(value))
                .collect();
            let off = tensors::off(&found, &expected);
            assert!(off < 1e-6, "{name}: {off}");
        }
        steps
    }

    /// `Σ p·(A − A₀)` of one round for one weight: what the server's optimizer takes as its gradient.
    async fn change_of_a(
        &self,
        id: &str,
        round: u32,
        name: &str,
        start: &tensors::Factors,
    ) -> Vec<f64> {
        let mut change = vec![0.0; start.a.len()];
        for worker in self.summary(id, round).await["workers"].as_array().unwrap() {
            let sent = tensors::read(&self.object(&worker["update"]).await);
            let share = worker["weight"].as_f64().unwrap();
            let sums = change.iter_mut().zip(&sent[name].a).zip(&start.a);
            sums.for_each(|((sum, now), before)| *sum += share * f64::from(now - before));
        }
        change
    }

    /// `ΔW + Σ p·(s·B·A − S)` of one round for one weight, from what the sites really sent.
    async fn expected(&self, id: &str, round: u32, name: &str) -> Vec<f64> {
        let start = self.merged(id, round - 1).await.remove(name).unwrap();
        let mut whole: Vec<f64> = start.product().iter().map(|v| v * SCALE).collect();
        let loaded = leading(&start, 4);
        for worker in self.summary(id, round).await["workers"].as_array().unwrap() {
            let bytes = self.object(&worker["update"]).await;
            let share = worker["weight"].as_f64().unwrap() * SCALE;
            let sent = sent(&bytes, name, &loaded);
            let change = sent.product().into_iter().zip(loaded.product());
            let sums = whole.iter_mut().zip(change);
            sums.for_each(|(sum, (now, before))| *sum += share * (now - before));
        }
        whole
    }
}

/// The moments by name, as numbers.
fn moments(bytes: &[u8]) -> BTreeMap<String, Vec<f64>> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let read = |four: &[u8]| f64::from(f32::from_le_bytes(four.try_into().unwrap()));
    let all = file.tensors().into_iter();
    all.map(|(name, tensor)| {
        let values = tensor.data().chunks_exact(4).map(read).collect();
        (name, values)
    })
    .collect()
}

fn leading(of: &tensors::Factors, rank: usize) -> tensors::Factors {
    let b = of.b.chunks(of.rank);
    tensors::Factors {
        rank,
        a: of.a[..rank * of.inp].to_vec(),
        b: b.flat_map(|row| row[..rank].to_vec()).collect(),
        ..*of
    }
}

/// A site's factors of one weight; A is what it loaded where it sent B alone.
fn sent(bytes: &[u8], name: &str, loaded: &tensors::Factors) -> tensors::Factors {
    let both = tensors::read(bytes);
    if let Some(both) = both.get(name) {
        return both.clone();
    }
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let b = file.tensor(&name.replace("lora_A", "lora_B")).unwrap();
    let read = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    tensors::Factors {
        b: b.data().chunks_exact(4).map(read).collect(),
        ..loaded.clone()
    }
}

/// The tensors of the finished job, and its configuration.
async fn exported(fleet: &Fleet, id: &str) -> (Adapter, Value) {
    let path = format!("/v1/jobs/{id}/adapter");
    let (_, tar) = fleet
        .api()
        .bytes(reqwest::Method::GET, &path, None)
        .await
        .unwrap();
    let files = archive::files(&tar);
    let config = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
    (tensors::read(&files["adapter_model.safetensors"]), config)
}

#[tokio::test]
async fn a_job_of_each_rule_ends_with_the_merge_that_the_rule_promises() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let wire = Wire::tap(&fleet).await;
    let rules = Rules { fleet, wire };
    for rule in ["stack", "ffa", "slice", "fedit", "residual", "sum"] {
        let asked = rules.job(&json!({"strategy": rule}));
        let id = rules.fleet.api().submit(&asked).await;
        let undisturbed = rules.fleet.api().succeeded(&id, END).await;
        let again = with(asked, "plan_from", json!(id));
        assert_eq!(
            rules.killed_in_its_fold(&again).await,
            undisturbed,
            "{rule}"
        );
        let (adapter, config) = exported(&rules.fleet, &id).await;
        let exact = ["stack", "ffa", "residual"].contains(&rule);
        for (name, factors) in &adapter {
            // PEFT computes `alpha / rank` of each weight: it must be the job's one scale.
            let module = name
                .trim_start_matches("base_model.model.")
                .trim_end_matches(".lora_A.weight");
            let of = |pattern: &str, all: &str| {
                let own = &config[pattern][module];
                own.as_f64().or_else(|| config[all].as_f64()).unwrap()
            };
            let rank = of("rank_pattern", "r");
            assert_eq!(rank, factors.rank as f64, "{rule} {name}");
            assert_eq!(of("alpha_pattern", "lora_alpha") / rank, SCALE);
            let side = factors.rank - 8;
            assert_eq!(
                side > 0,
                ["stack", "residual"].contains(&rule),
                "{rule} {side}"
            );

            for round in [1, 2] {
                let expected = rules.expected(&id, round, name).await;
                let merged = rules.merged(&id, round).await.remove(name).unwrap();
                let found: Vec<f64> = merged.product().iter().map(|v| v * SCALE).collect();
                let off = tensors::off(&found, &expected);
                assert_eq!(off < 1e-5, exact, "{rule} {name} round {round}: {off}");
                if rule == "ffa" {
                    assert_eq!(merged.a, factors.a, "A is frozen");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_optimizer_s_moments_go_from_round_to_round_and_only_where_they_may() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let wire = Wire::tap(&fleet).await;
    let rules = Rules { fleet, wire };
    let asked = rules.job(&json!({"strategy": "slice", "optimizer": {"kind": "fedadam"}}));
    // Killed in the second round, when that round's moments are in storage and not yet committed.
    let (opened, stored) = (
        Failpoint::AggregatorOpenAfterTasks,
        Failpoint::AggregatorFoldAfterArtifact,
    );
    let points = rules.fleet.points();
    points.arm(opened, Fate::Halted);
    let id = rules.fleet.api().submit(&asked).await;
    points.reached(opened, Fate::Halted, END).await;
    points.arm(opened, Fate::Halted);
    rules.fleet.go_on("aggregator");
    points.reached(opened, Fate::Halted, END).await;
    points.arm(stored, Fate::Killed);
    rules.fleet.go_on("aggregator");
    rules.fleet.api().succeeded(&id, END).await;
    assert!(!points.disarm(stored, Fate::Killed), "not reached");

    let mut before: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in [1, 2] {
        let summary = rules.summary(&id, round).await;
        let bytes = rules.object(&summary["optimizer"]).await;
        let moments = moments(&bytes);
        for (name, start) in rules.merged(&id, round - 1).await {
            let change = rules.change_of_a(&id, round, &name, &start).await;
            let (first, second) = (
                &moments[&format!("{name}.m")],
                &moments[&format!("{name}.v")],
            );
            // m starts at 0 and v at τ².
            let old = |which: &str, fresh: f64| {
                let kept = before.get(&format!("{name}.{which}")).cloned();
                kept.unwrap_or_else(|| vec![fresh; change.len()])
            };
            let (old_m, old_v) = (old("m", 0.0), old("v", 1e-6));
            for (at, change) in change.iter().enumerate() {
                let off_m = first[at] - (0.9 * old_m[at] + 0.1 * change);
                let off_v = second[at] - (0.99 * old_v[at] + 0.01 * change * change);
                let off = off_m.abs().max(off_v.abs());
                assert!(off < 1e-7, "{name} round {round} at {at}: {off}");
            }
        }
        before = moments;
    }

    // What the table does not allow is refused at submission, with the row and what would be legal.
    for (aggregation, field, legal) in [
        (
            json!({"optimizer": {"kind": "fedadam"}}),
            "aggregation.optimizer.kind",
            "kind fedavg",
        ),
        (
            json!({"strategy": "stack", "optimizer": {"kind": "fedyogi"}}),
            "aggregation.optimizer.kind",
            "strategy ffa, slice, fedit, sum",
        ),
    ] {
        let refused = rules
            .fleet
            .api()
            .try_submit(&rules.job(&aggregation), "refused")
            .await;
        let text = refused.body.to_string();
        assert!(text.contains(field) && text.contains(legal), "{text}");
    }
    let mut uneven = rules.job(&json!({"strategy": "fedit"}));
    uneven["adapter"]["rank"] = json!("auto");
    let refused = rules.fleet.api().try_submit(&uneven, "uneven").await;
    let text = refused.body.to_string();
    assert!(
        text.contains("row fedit") && text.contains("a number for adapter.rank"),
        "{text}"
    );
}

#[tokio::test]
async fn with_fednova_a_site_of_more_steps_moves_the_merge_no_further() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let wire = Wire::tap(&fleet).await;
    let rules = Rules { fleet, wire };
    let asked = json!({"strategy": "fedit", "weights": "equal", "normalize": "fednova"});
    let asked = with(
        rules.job(&asked),
        "rounds",
        json!({"count": 1, "quorum": "all"}),
    );
    let asked = rules.uneven_steps(&asked, 6).await;
    let id = rules.fleet.api().submit(&asked).await;
    rules.fleet.api().succeeded(&id, END).await;

    assert_eq!(rules.normalized(&id).await, [6.0, 2.0]);
}

#[tokio::test]
async fn steps_that_are_left_open_are_fewer_at_a_slow_site_and_fednova_makes_up_for_it() {
    let mut setup = Setup::sites(2);
    setup.sites[1] = Site::new("b").line("throttle_tokens_per_second = 400");
    let fleet = Fleet::start(&setup).await;
    let wire = Wire::tap(&fleet).await;
    let rules = Rules { fleet, wire };
    let open = |normalize: &str| {
        let asked = json!({"strategy": "fedit", "weights": "equal", "normalize": normalize});
        let rounds = json!({"count": 1, "quorum": "all"});
        let mut asked = with(rules.job(&asked), "rounds", rounds);
        asked["training"]["local_steps"] = json!("auto");
        // Of one record each, so that 24 records allow several numbers of steps.
        asked["training"]["batch"] = json!(1);
        asked
    };
    let refused = rules.fleet.api().try_submit(&open("none"), "plain").await;
    let text = refused.body.to_string();
    assert!(
        text.contains("training.local_steps") && text.contains("normalize to fednova"),
        "{text}"
    );

    let id = rules.fleet.api().submit(&open("fednova")).await;
    rules.fleet.api().succeeded(&id, END).await;
    let path = format!("/v1/jobs/{id}/plan");
    let plan = rules.fleet.api().get(&path).await.body;
    let planned = ["a", "b"].map(|site| plan["workers"][site]["local_steps"].as_f64().unwrap());
    assert!(planned[0] > planned[1] && planned[1] >= 8.0, "{plan:#}");
    assert_eq!(rules.normalized(&id).await, planned);
}

#[tokio::test]
async fn a_proximal_term_keeps_every_site_nearer_to_its_start() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let wire = Wire::tap(&fleet).await;
    let rules = Rules { fleet, wire };
    let mut distances = Vec::new();
    for proximal in [0.0, 10.0] {
        let mut asked = rules.job(&json!({"strategy": "fedit"}));
        asked["adapter"]["rank_max"] = json!(4);
        asked["adapter"]["alpha"] = json!(8.0);
        asked["rounds"]["count"] = json!(1);
        asked["training"]["local_steps"] = json!(8);
        asked["training"]["proximal"] = json!(proximal);
        let id = rules.fleet.api().submit(&asked).await;
        rules.fleet.api().succeeded(&id, END).await;
        distances.push(rules.distances(&id).await);
    }
    for (free, held) in distances[0].iter().zip(&distances[1]) {
        assert!(*held > 0.0 && *held < 0.9 * free, "{held} beside {free}");
    }
}

#[tokio::test]
async fn an_update_that_moved_too_far_is_refused_with_its_norm() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let asked = job(&fleet.model());
    let mut asked = with(asked, "aggregation", json!({"norm_bound": 1e-6}));
    asked["rounds"] = json!({"count": 1, "quorum": 1, "deadline": 20});
    let id = fleet.api().submit(&asked).await;
    let ended = fleet.api().ended(&id, END).await;
    assert_eq!(ended["phase"], "failed", "{ended:#}");
    let refusals = fleet.api().events(&id).await;
    let refused: Vec<_> = refusals
        .iter()
        .filter(|event| event.detail.to_string().contains("aggregation.norm_bound"))
        .collect();
    assert!(refused.len() >= 2, "{} of two refused", refused.len());

    asked["aggregation"] = json!({"norm_bound": 1e6});
    let id = fleet.api().submit(&asked).await;
    fleet.api().succeeded(&id, END).await;
}

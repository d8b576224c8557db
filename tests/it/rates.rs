//! Zeroth-order sites with rates of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Message as Heard;
use contract::message::task::Train;
use futures::StreamExt;
use serde_json::{Value, json};
use tests::job::{walking, with};
use tests::{Fleet, Setup, Wire};

const END: Duration = Duration::from_secs(90);
const RATE: f64 = 1e-3;

/// A figure of each site of a round.
fn of_sites(round: &Value, figure: impl Fn(&Value) -> &Value) -> BTreeMap<String, f64> {
    let workers = round["workers"].as_array().unwrap().iter();
    let pair = |one: &Value| {
        let name = one["worker"].as_str().unwrap().to_owned();
        (name, figure(one).as_f64().unwrap_or(f64::NAN))
    };
    workers.map(pair).collect()
}

/// η·(1 + ½·Φ), written out.
fn expected(statistics: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let mean = statistics.values().sum::<f64>() / statistics.len() as f64;
    let largest = statistics
        .values()
        .map(|one| (one - mean).abs())
        .fold(0.0, f64::max);
    let rate = |one: &f64| RATE * (1.0 + 0.5 * (one - mean) / largest);
    statistics
        .iter()
        .map(|(name, one)| (name.clone(), rate(one)))
        .collect()
}

fn assert_close(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>) {
    assert_eq!(found.len(), expected.len());
    for (name, one) in found {
        let off = (one - expected[name]).abs();
        assert!(off < 1e-9 * RATE, "{found:?}, not {expected:?}");
    }
}

/// What the rates of a round go by, from the rounds before it.
type Statistic = fn(&[Value]) -> BTreeMap<String, f64>;

fn losses(round: &Value) -> BTreeMap<String, f64> {
    of_sites(round, |one| &one["metrics"]["loss"])
}

fn last_loss(past: &[Value]) -> BTreeMap<String, f64> {
    losses(past.last().unwrap())
}

fn last_difference(past: &[Value]) -> BTreeMap<String, f64> {
    of_sites(past.last().unwrap(), |one| &one["difference"])
}

fn mean_of_five(past: &[Value]) -> BTreeMap<String, f64> {
    let last = &past[past.len().saturating_sub(5)..];
    let mut means = BTreeMap::new();
    for (name, loss) in last.iter().flat_map(losses) {
        *means.entry(name).or_insert(0.0) += loss / last.len() as f64;
    }
    means
}

/// The rounds of a job, the first of which trained nobody, and what its rates go by.
struct Course {
    rounds: Vec<Value>,
    statistic: Statistic,
}

impl Course {
    fn rates(&self, number: usize) -> BTreeMap<String, f64> {
        of_sites(&self.rounds[number], |one| &one["rate"])
    }

    fn statistics(&self, number: usize) -> BTreeMap<String, f64> {
        (self.statistic)(&self.rounds[1..number])
    }

    /// Each site's rate is what the rounds before make it.
    fn check_rates(&self) {
        let first = self.rates(1);
        assert!(first.values().all(|rate| *rate == RATE), "{first:?}");
        for number in 2..self.rounds.len() {
            let statistics = self.statistics(number);
            assert_eq!(statistics.len(), 3, "{statistics:?}");
            assert_close(&self.rates(number), &expected(&statistics));
        }
    }

    /// A task tells its site's rate, and of the others neither theirs nor what they follow from.
    fn check_told(&self, message: &Heard) {
        let headers = message.headers.as_ref().unwrap();
        let header = |name| headers.get(name).map(|value| value.as_str());
        let task: Train = contract::decode(
            header(contract::envelope::KIND_HEADER),
            header(contract::envelope::VERSION_HEADER),
            &message.payload,
        )
        .unwrap();
        let (own, number) = (task.head.worker.to_string(), task.round as usize);
        let rates = self.rates(number);
        assert_eq!(task.walk.unwrap().rate, Some(rates[&own]));
        if number == 1 {
            return;
        }
        let told = |figure: f64| {
            let bytes = figure.to_be_bytes();
            message.payload.windows(8).any(|window| window == bytes)
        };
        assert!(told(rates[&own]), "where a figure would be found");
        let before = losses(&self.rounds[number - 1]);
        for figures in [&rates, &before, &self.statistics(number)] {
            for (name, figure) in figures {
                let others = *name != own && told(*figure);
                assert!(!others, "{own} is told {figure} of {name}");
            }
        }
    }
}

#[tokio::test]
async fn each_site_is_told_its_own_rate_and_nothing_of_the_others() {
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let wire = Wire::tap(&fleet).await;
    let statistics: [(&str, usize, Statistic); 3] = [
        ("round-loss", 3, last_loss),
        ("model-difference", 3, last_difference),
        // The rates of the seventh round are the first that the first does not count in.
        ("five-round-loss", 7, mean_of_five),
    ];
    for (rates, count, statistic) in statistics {
        let mut heard = wire.hear("fedpipe.v1.task.*.*.*.train").await;
        let rounds = json!({"count": count, "quorum": "all"});
        let asked = walking(&fleet.model(), &json!({"rates": rates}), 2, &rounds);
        let id = fleet.api().submit(&asked).await;
        fleet.api().succeeded(&id, END).await;
        let rounds = fleet.api().rounds(&id).await;
        assert_eq!(rounds.len(), count + 1);
        let course = Course { rounds, statistic };
        course.check_rates();
        for _ in 0..3 * count {
            let message = tokio::time::timeout(END, heard.next()).await.unwrap();
            course.check_told(&message.unwrap());
        }
    }
}

#[tokio::test]
async fn rates_by_how_far_sites_lie_apart_are_the_same_on_either_wire_and_lead_to_the_same_adapter()
{
    let fleet = Fleet::start(&Setup::sites(3)).await;
    let rounds = json!({"count": 3, "quorum": "all"});
    let asked = |wire: &str| {
        let mezo = json!({"seeds": "per-worker", "wire": wire, "rates": "model-difference"});
        walking(&fleet.model(), &mezo, 2, &rounds)
    };
    let first = fleet.api().submit(&asked("scalars")).await;
    let by_scalars = fleet.api().succeeded(&first, END).await;
    let second = with(asked("tensors"), "plan_from", json!(first));
    let second = fleet.api().submit(&second).await;
    let by_tensors = fleet.api().succeeded(&second, END).await;
    assert_eq!(by_scalars, by_tensors);
    let all = fleet.api().rounds(&first).await;
    for number in [2, 3] {
        let apart = of_sites(&all[number - 1], |one| &one["difference"]);
        let rates = of_sites(&all[number], |one| &one["rate"]);
        assert_close(&rates, &expected(&apart));
        let largest = rates.values().copied().fold(0.0, f64::max);
        assert!(largest > 1.2 * RATE || rates.values().any(|rate| *rate < 0.8 * RATE));
    }
    let fixed = json!({"seeds": "per-worker"});
    let fixed = walking(&fleet.model(), &fixed, 2, &rounds);
    let third = with(fixed, "plan_from", json!(first));
    let third = fleet.api().submit(&third).await;
    assert_ne!(fleet.api().succeeded(&third, END).await, by_scalars);
}

//! What a site missed: replayed where the log is whole and that is cheaper than the download, else fetched. The adapter is
//! the same.

use contract::message::report::{Probed, Walked};
use contract::message::task::Train;
use domain::adapter::RankTable;
use domain::artifact::ArtifactRef;
use domain::id::Epoch;
use domain::job::Strategy;
use domain::job::spec::{Optimizer, Training};
use domain::zeroth::{Committed, SCALARS_LIMIT, Scalars, Steps, Walk};
use engine::train::Replay;

use super::moved;
use super::site::{self, RANK_MAX, SCALE, Site, TARGETS};

/// Rounds that a site has missed.
struct Missed<'a> {
    site: &'a Site,
    measured: &'a Probed,
    training: Training,
    ranks: RankTable,
    /// Before the first of them, and after each.
    merged: Vec<ArtifactRef>,
    log: Vec<Committed>,
    /// That of the last task.
    epoch: u64,
}

impl<'a> Missed<'a> {
    /// Rounds with these scalars.
    async fn of(site: &'a Site, measured: &'a Probed, rounds: Vec<Vec<f32>>) -> Self {
        let mut missed = Self {
            site,
            measured,
            training: Training {
                optimizer: Optimizer::Mezo,
                learning_rate: Some(1e-3),
                ..Training::default()
            },
            ranks: RankTable::uniform(&TARGETS, 2, RANK_MAX),
            merged: vec![site.global.clone()],
            log: Vec::new(),
            epoch: 0,
        };
        let mut first_step = 0;
        for (round, scalars) in (1..).zip(rounds) {
            let before = missed.merged[missed.merged.len() - 1].clone();
            let count = scalars.len() as u64;
            let one = Committed {
                round,
                first_step,
                start: before.sha256.clone(),
                scalars: Scalars::new(scalars),
            };
            let replay = Replay::new().then(&missed.steps(), one.first_step, &one.scalars);
            let start = site.adapter(&before, &missed.ranks).await;
            let after = site.store(&moved(&start, &replay)).await;
            missed.merged.push(after);
            missed.log.push(one);
            first_step += count;
        }
        missed
    }

    fn steps(&self) -> Steps {
        Steps::of(&self.training, 5)
    }

    /// What the site fetches to train from the adapter after round `last`, told of this log.
    async fn bytes_down(&mut self, log: Vec<Committed>, last: usize) -> u64 {
        self.walked(log, last).await.metrics.bytes_down
    }

    /// What the site reports of that training.
    async fn walked(&mut self, log: Vec<Committed>, last: usize) -> Walked {
        self.epoch += 1;
        let mut plan = site::plan(self.measured, self.ranks.clone());
        (plan.optimizer, plan.batch) = (Optimizer::Mezo, 8);
        let task = Train {
            head: self.site.head(1, self.epoch),
            round: last as u32 + 1,
            rounds: 0,
            global: self.merged[last].clone(),
            scale: SCALE,
            plan,
            training: self.training.clone(),
            strategy: Strategy::Sum,
            live: RankTable::default(),
            walk: Some(Walk {
                log,
                ..Walk::new(self.steps())
            }),
            prefix: "jobs/one/updates/site".to_owned(),
        };
        let walked: Walked = self.site.ask(&task, 1, Epoch(self.epoch)).await;
        assert_eq!(walked.start, self.merged[last].sha256);
        walked
    }
}

pub async fn replay(site: &Site, measured: &Probed) {
    let rounds = [1.0, 2.0, 3.0].map(|last| vec![0.5, -2.0, last]);
    let mut missed = Missed::of(site, measured, rounds.to_vec()).await;
    missed.epoch = 30;
    let log = missed.log.clone();
    // It holds the first of all from the rounds before.
    assert_eq!(missed.bytes_down(log.clone(), 3).await, 0, "a whole log");
    let [first, second, third] = [&log[0], &log[1], &log[2]].map(Clone::clone);
    let mut other = third.clone();
    other.scalars = Scalars::new(vec![0.5, -2.0, 3.5]);
    for (what, broken) in [
        ("a gap", vec![first.clone(), third.clone()]),
        (
            "a repetition",
            vec![first.clone(), second.clone(), second.clone(), third.clone()],
        ),
        (
            "another order",
            vec![second.clone(), first.clone(), third.clone()],
        ),
        ("another number", vec![first.clone(), second.clone(), other]),
    ] {
        missed.bytes_down(Vec::new(), 0).await;
        assert!(missed.bytes_down(broken, 3).await > 0, "{what}");
    }
}

/// The log is whole, and so long that no machine makes its some eighty million numbers while a few kilobytes come over the
/// site's link.
pub async fn fetch(site: &Site, measured: &Probed) {
    let rounds = vec![vec![0.01; SCALARS_LIMIT]; 8];
    let mut missed = Missed::of(site, measured, rounds).await;
    missed.epoch = 70;
    let log = missed.log.clone();
    missed.bytes_down(Vec::new(), 0).await;
    assert!(missed.bytes_down(log, 8).await > 0, "it was made here");
}

/// The file of the merged adapter is damaged on this disk between two rounds, so that it is still an adapter's.
pub async fn damage(site: &Site, measured: &Probed) {
    let mut missed = Missed::of(site, measured, Vec::new()).await;
    missed.epoch = 80;
    let before = missed.walked(Vec::new(), 0).await;
    assert_eq!(missed.bytes_down(Vec::new(), 0).await, 0, "it lies there");
    let files = site.merged_adapters();
    assert_eq!(files.len(), 1, "{files:?}");
    let mut bytes = std::fs::read(&files[0]).unwrap();
    // The last number was 0, and is 0.5.
    *bytes.last_mut().unwrap() = 0x3f;
    std::fs::write(&files[0], bytes).unwrap();
    let after = missed.walked(Vec::new(), 0).await;
    assert!(after.metrics.bytes_down > 0, "a damaged file was taken");
    assert_eq!(after.scalars, before.scalars);
}

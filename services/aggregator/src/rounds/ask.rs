//! Whom a round asks: pure, and drawn once per round. What was drawn is stored with the round before any
//! task goes out, so whoever drives it next asks the same sites.

use domain::id::WorkerName;
use domain::job::{Job, Late, Quorum, Sample};
use domain::plan::Plan;
use sha2::{Digest, Sha256};

/// Whom to ask in this round, ordered by name, as it is stored with the round; empty: every planned site.
///
/// A site that is still at an earlier round is not asked. A sample is drawn of the sites that were not
/// given up; with `quorum: all` of every site, because who was given up is no function of the inputs.
#[must_use]
pub fn drawn(job: &Job, plan: &Plan, round: u32) -> Vec<WorkerName> {
    let rounds = &job.spec.rounds;
    if rounds.sample == Sample::All && rounds.late == Late::Drop {
        return Vec::new();
    }
    let whole = rounds.sample == Sample::All || rounds.quorum == Quorum::All;
    let fit = |worker: &&WorkerName| {
        let given_up = job.lost.iter().any(|lost| lost.worker == **worker);
        job.behind(worker).is_none() && (whole || !given_up)
    };
    let pool: Vec<&WorkerName> = plan.workers.keys().filter(fit).collect();
    let size = rounds.sample.of(plan.workers.len());
    sample(&pool, size, job.spec.training.seed, round)
}

/// Whom a round asks that was stored with these.
#[must_use]
pub fn whom(job: &Job, plan: &Plan, stored: &[WorkerName]) -> Vec<WorkerName> {
    if stored.is_empty() {
        let planned = plan.workers.keys();
        let free = planned.filter(|worker| job.behind(worker).is_none());
        return free.cloned().collect();
    }
    stored.to_vec()
}

/// Whom a sampled round asks instead of sites that were lost since it was drawn: everybody asked so far,
/// and as many again that were not drawn, are fit and come next. `None` if it asks everybody it may, or if
/// the job wants exactly those that were drawn (`quorum: all`).
#[must_use]
pub fn replaced(
    job: &Job,
    planned: &[WorkerName],
    round: u32,
    asked: &[WorkerName],
) -> Option<Vec<WorkerName>> {
    let rounds = &job.spec.rounds;
    if rounds.sample == Sample::All || rounds.quorum == Quorum::All {
        return None;
    }
    let given_up = |worker: &WorkerName| job.lost.iter().any(|lost| lost.worker == *worker);
    let lost = asked.iter().filter(|worker| given_up(worker)).count();
    let left = asked.len() - lost;
    let wanted = rounds.sample.of(planned.len()).saturating_sub(left);
    let fit = |worker: &&WorkerName| {
        !asked.contains(worker) && !given_up(worker) && job.behind(worker).is_none()
    };
    let pool: Vec<&WorkerName> = planned.iter().filter(fit).collect();
    let more = sample(&pool, wanted, job.spec.training.seed, round);
    if more.is_empty() {
        return None;
    }
    let mut all = asked.to_vec();
    all.extend(more);
    all.sort_unstable();
    Some(all)
}

/// `size` of the pool, each as likely as the others: those with the smallest numbers, where a worker's
/// number is the SHA-256 of seed, round and name. Who else is in the pool does not change a number.
fn sample(pool: &[&WorkerName], size: usize, seed: u64, round: u32) -> Vec<WorkerName> {
    let number = |worker: &&&WorkerName| -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"sample");
        hash.update(seed.to_le_bytes());
        hash.update(round.to_le_bytes());
        hash.update(worker.as_str());
        hash.finalize().into()
    };
    let mut numbered: Vec<_> = pool
        .iter()
        .map(|worker| (number(&worker), *worker))
        .collect();
    numbered.sort_unstable();
    let mut chosen: Vec<WorkerName> = numbered
        .into_iter()
        .take(size)
        .map(|(_, worker)| worker.clone())
        .collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::artifact::Digest;
    use domain::cause::{SiteTrouble, Trouble};
    use domain::id::JobId;
    use domain::time::UnixMillis;

    use super::*;

    fn names(count: usize) -> Vec<WorkerName> {
        let name = |number| format!("w{number:02}").parse().expect("legal");
        (0..count).map(name).collect()
    }

    fn draw(pool: &[WorkerName], size: usize, seed: u64, round: u32) -> Vec<WorkerName> {
        let pool: Vec<&WorkerName> = pool.iter().collect();
        sample(&pool, size, seed, round)
    }

    #[test]
    fn every_site_is_as_likely_as_the_others() {
        let pool = names(10);
        let mut counts: BTreeMap<WorkerName, i32> = BTreeMap::new();
        let mut pairs = 0;
        for round in 0..3000 {
            let drawn = draw(&pool, 3, 7, round);
            assert_eq!(drawn.len(), 3);
            assert!(drawn.is_sorted());
            let together = |worker: &&WorkerName| drawn.contains(worker);
            pairs += i32::from(pool.iter().take(2).filter(together).count() == 2);
            for worker in drawn {
                *counts.entry(worker).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 10);
        // 900 expected; a fair draw is off by more than 5σ = 5·√630 once in two million.
        let fair = |count: &i32| (count - 900).abs() < 126;
        assert!(counts.values().all(fair), "{counts:?}");
        // Two certain sites: 3/10 · 2/9 of 3000 = 200, σ = 14.
        assert!((pairs - 200i32).abs() < 70, "{pairs}");
    }

    #[test]
    fn a_draw_is_the_same_every_time_and_another_for_another_round_or_seed() {
        let pool = names(20);
        let first = draw(&pool, 5, 7, 1);
        assert_eq!(draw(&pool, 5, 7, 1), first);
        assert_ne!(draw(&pool, 5, 7, 2), first);
        assert_ne!(draw(&pool, 5, 8, 1), first);
        let golden: Vec<&str> = first.iter().map(WorkerName::as_str).collect();
        assert_eq!(golden, GOLDEN, "a draw is part of what a seed means");
    }

    // sorted(sorted(names, key=lambda n: hashlib.sha256(b"sample" + (7).to_bytes(8, "little")
    //   + (1).to_bytes(4, "little") + n.encode()).digest())[:5]) in Python, names w00 to w19.
    const GOLDEN: [&str; 5] = ["w03", "w11", "w14", "w15", "w18"];

    /// Ten planned sites, of which these are lost; and whom the round asks then.
    fn instead(rounds: &str, asked: &[usize], lost: &[usize]) -> Option<Vec<WorkerName>> {
        let all = names(10);
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},"rounds":{rounds}}}"#
        );
        let mut job = Job::submitted(
            JobId::from_bits(1),
            serde_json::from_str(&text).expect("a job"),
            Digest::from_bytes(&[0; 32]),
            "local".parse().expect("legal"),
            UnixMillis(0),
        );
        let named = |at: &usize| all.get(*at).expect("ten").clone();
        for at in lost {
            job.lose(SiteTrouble {
                worker: named(at),
                trouble: Trouble::Unreachable,
                detail: String::new(),
            });
        }
        let asked: Vec<WorkerName> = asked.iter().map(named).collect();
        replaced(&job, &all, 3, &asked)
    }

    #[test]
    fn a_lost_site_of_a_sample_is_replaced_by_the_next_that_is_fit() {
        let all = instead(r#"{"sample":2}"#, &[1, 2], &[2]).expect("others are left");
        assert_eq!(all.len(), 3);
        assert!(all.is_sorted() && all.contains(&names(10)[1]) && all.contains(&names(10)[2]));
        assert_eq!(instead(r#"{"sample":2}"#, &[1, 2], &[2]), Some(all));
        let both = instead(r#"{"sample":2}"#, &[1, 2], &[1, 2]).expect("others are left");
        assert_eq!(both.len(), 4);
        // Of ten, seven are lost: only one of the three left was not asked.
        let lost = [1, 2, 3, 4, 5, 6, 7];
        let few = instead(r#"{"sample":4}"#, &[0, 1, 2, 8], &lost).expect("one is left");
        assert_eq!(few.len(), 5);
        assert!(few.contains(&names(10)[9]));
        assert_eq!(
            instead(r#"{"sample":3}"#, &[0, 8, 9], &lost),
            None,
            "nobody was lost"
        );
        assert_eq!(
            instead(r#"{"sample":3}"#, &[0, 8, 9, 1], &lost),
            None,
            "nobody is left"
        );
        assert_eq!(instead("{}", &[1, 2], &[2]), None, "everybody was asked");
        assert_eq!(
            instead(r#"{"sample":2,"quorum":"all"}"#, &[1, 2], &[2]),
            None
        );
    }

    #[test]
    fn who_is_gone_makes_room_for_one_and_changes_nobody_elses_place() {
        let pool = names(20);
        let before = draw(&pool, 5, 7, 3);
        let gone = before.first().expect("five");
        let left: Vec<WorkerName> = pool.iter().filter(|one| *one != gone).cloned().collect();
        let after = draw(&left, 5, 7, 3);
        let stayed = after.iter().filter(|one| before.contains(one)).count();
        assert_eq!((after.len(), stayed), (5, 4));
        assert_eq!(draw(&pool, 30, 7, 3), pool);
    }
}

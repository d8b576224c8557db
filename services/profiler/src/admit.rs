//! Which sites a queued job gets, and when: pure.

use std::collections::BTreeSet;

use domain::id::WorkerName;
use domain::job::{Job, Quorum};

/// What a queued job needs to know of one registered worker.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name.
    pub worker: WorkerName,
    /// Whether it maps the job's data set.
    pub has_data: bool,
    /// Whether its beats arrive.
    pub alive: bool,
}

/// Whether a job may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// With these sites.
    Start(Vec<WorkerName>),
    /// Not yet.
    Wait,
}

/// Admits the job when every living site it may use is free and enough of them are there. Sites that
/// are registered but silent are waited for while `patient`.
#[must_use]
pub fn admit(job: &Job, sites: &[Site], others: &[Job], patient: bool) -> Admission {
    let named: BTreeSet<&WorkerName> = job.spec.data.sites.iter().collect();
    let wanted = |site: &&Site| site.has_data && (named.is_empty() || named.contains(&site.worker));
    let candidates: Vec<&Site> = sites.iter().filter(wanted).collect();
    let alive: BTreeSet<&WorkerName> = candidates
        .iter()
        .filter(|site| site.alive)
        .map(|site| &site.worker)
        .collect();
    let quorum = job.spec.rounds.quorum;
    let needed = match quorum {
        Quorum::Auto if named.is_empty() => 1,
        Quorum::Auto => quorum.of_round(named.len(), named.len()),
        Quorum::All | Quorum::Fixed(_) => quorum.least(named.len()),
    };
    if alive.len() < needed || (patient && alive.len() < candidates.len().max(named.len())) {
        return Admission::Wait;
    }
    let taken = |other: &Job| alive.iter().any(|worker| other.holds(worker));
    // First come, first served: an earlier job that waits for any of these sites goes first.
    let earlier = |other: &Job| {
        let queued = matches!(other.phase, domain::job::Phase::Queued);
        let first = (other.submitted_at, &other.id) < (job.submitted_at, &job.id);
        let same_data = other.spec.data.dataset == job.spec.data.dataset;
        let sites = &other.spec.data.sites;
        let overlaps = if sites.is_empty() {
            same_data
        } else {
            sites.iter().any(|site| alive.contains(site))
        };
        queued && first && overlaps
    };
    if others
        .iter()
        .any(|other| other.id != job.id && (taken(other) || earlier(other)))
    {
        return Admission::Wait;
    }
    Admission::Start(alive.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use domain::artifact::Digest;
    use domain::cause::{SiteTrouble, Trouble};
    use domain::id::JobId;
    use domain::job::Phase;
    use domain::time::UnixMillis;

    use super::*;

    fn job(id: u64, rest: &str) -> Job {
        let text = format!(
            r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}}{rest}}}"#
        );
        let spec = serde_json::from_str(&text).expect("legal");
        let submitter = "local".parse().expect("legal");
        Job::submitted(
            JobId::from_bits(id),
            spec,
            Digest::from_bytes(&[0; 32]),
            submitter,
            UnixMillis(id),
        )
    }

    fn sites(alive: &str) -> Vec<Site> {
        let site = |(index, state): (usize, char)| Site {
            worker: format!("w{index}").parse().expect("legal"),
            has_data: state != 'x',
            alive: state == 'a',
        };
        alive.chars().enumerate().map(site).collect()
    }

    fn check(job: &Job, alive: &str, others: &[Job], patient: bool, expected: usize) {
        let started = match admit(job, &sites(alive), others, patient) {
            Admission::Start(sites) => sites.len(),
            Admission::Wait => 0,
        };
        assert_eq!(started, expected, "{alive} patient {patient}");
    }

    #[test]
    fn a_job_takes_every_living_site_that_has_its_data() {
        check(&job(1, ""), "aax", &[], true, 2);
        check(&job(1, ""), "xx", &[], false, 0);
    }

    #[test]
    fn a_silent_site_is_waited_for_and_then_left_out() {
        check(&job(1, ""), "aas", &[], true, 0);
        check(&job(1, ""), "aas", &[], false, 2);
        check(&job(1, r#","rounds":{"quorum":3}"#), "aas", &[], false, 0);
    }

    #[test]
    fn of_named_sites_more_than_half_must_live_or_all_if_the_job_says_so() {
        let named = |quorum: &str| {
            let mut job = job(1, &format!(r#","rounds":{{"quorum":{quorum}}}"#));
            job.spec.data.sites = ["w0", "w1", "w2"].map(|w| w.parse().expect("legal")).into();
            job
        };
        check(&named(r#""auto""#), "aas", &[], false, 2);
        check(&named(r#""auto""#), "ass", &[], false, 0);
        check(&named(r#""all""#), "aas", &[], false, 0);
        check(&named(r#""all""#), "aaa", &[], false, 3);
    }

    #[test]
    fn a_site_serves_one_job_at_a_time_in_order_of_submission() {
        let mut running = job(1, "");
        running.participants = vec!["w0".parse().expect("legal")];
        running.phase = Phase::Planning { resume: None };
        check(&job(2, ""), "aa", std::slice::from_ref(&running), false, 0);
        running.phase = Phase::Cancelled;
        check(&job(2, ""), "aa", &[running], false, 2);
        check(&job(3, ""), "aa", &[job(2, "")], false, 0);
        check(&job(2, ""), "aa", &[job(3, "")], false, 2);
    }

    #[test]
    fn a_site_that_a_replay_may_take_back_is_not_free() {
        let site = |name: &str| -> WorkerName { name.parse().expect("legal") };
        let mut asked = job(2, "");
        asked.spec.data.sites = vec![site("w1")];
        let mut running = job(1, "");
        running.participants = vec![site("w0"), site("w1")];
        running.phase = Phase::Planning { resume: None };
        running.lose(SiteTrouble {
            worker: site("w1"),
            trouble: Trouble::PlanUnsupported,
            detail: String::new(),
        });
        check(&asked, "aa", std::slice::from_ref(&running), false, 1);
        running.spec.plan_from = Some(JobId::from_bits(9));
        check(&asked, "aa", std::slice::from_ref(&running), false, 0);
        // A pause leaves all of its sites to others.
        running.pause(UnixMillis(3)).expect("legal");
        check(&asked, "aa", &[running], false, 1);
    }
}

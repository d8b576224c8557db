//! A committed round: has its adapter scored by the workers.

use bus::drive::{Next, Owned};
use bus::{Reported, Said};
use chassis::failpoint::{Failpoint, hit};
use contract::message::job::Event;
use contract::message::report::{self, Failed};
use contract::topology::score_key;
use domain::artifact::ArtifactRef;
use domain::cause::{SiteTrouble, Trouble};
use domain::id::WorkerName;
use domain::job::course::{Figure, Scored};
use domain::job::{Course, Job, Phase};
use domain::plan::Plan;
use domain::round::{Evaluated, Score};
use domain::time::UnixMillis;

use crate::Error;
use crate::app::Aggregator;
use crate::rounds::{commit, follow, late, replan, tasks, unread, walk};

/// A committed round.
pub struct Merged {
    pub round: u32,
    pub global: ArtifactRef,
    pub deadline: UnixMillis,
}

pub async fn handle(
    aggregator: &Aggregator,
    job: &mut Owned,
    merged: &Merged,
) -> Result<Next, Error> {
    let plan = aggregator.plan(job.job()).await?;
    let Some(evaluated) = evaluated(aggregator, job, &plan, merged).await? else {
        return Ok(Next::Wait(Some(merged.deadline)));
    };
    hit(Failpoint::AggregatorEvaluateAfterScores);
    job.say(Event::Evaluated {
        round: merged.round,
        records: evaluated.score.records,
        loss: evaluated.score.loss(),
        balanced_accuracy: evaluated.score.balanced_accuracy(),
        figure: job
            .job()
            .spec
            .measure()
            .and_then(|measure| Figure::of(&evaluated.score, measure))
            .filter(|figure| !figure.measure.is_told_apart()),
    })
    .await?;
    hit(Failpoint::AggregatorEvaluateAfterEvent);
    let mut scored = job.job().clone();
    scored.course = course(&scored, merged, &evaluated);
    let global = merged.global.clone();
    let next = follow::after_score(&scored, &plan, merged.round, global, job.now());
    let (next, joined) = replan::before(aggregator, &scored, &plan, next, job.now()).await?;
    let paused = matches!(next, Phase::Paused { .. });
    job.advance(next, |job| {
        job.pause_requested &= !paused;
        job.course = scored.course;
        job.join(joined);
    })
    .await?;
    hit(Failpoint::AggregatorEvaluateAfterState);
    job.announce().await?;
    hit(Failpoint::AggregatorOpenAfterPublish);
    Ok(Next::Again)
}

/// The score that stands for this round; `None` while sites are waited for.
async fn evaluated(
    aggregator: &Aggregator,
    job: &Owned,
    plan: &Plan,
    merged: &Merged,
) -> Result<Option<Evaluated>, Error> {
    let id = &job.job().id;
    if let Some((stands, _)) = aggregator.scores.get(&score_key(id, merged.round)).await? {
        return Ok(Some(stands));
    }
    let Some((score, missing)) = collect(aggregator, job, plan, merged).await? else {
        return Ok(None);
    };
    let evaluated = Evaluated {
        round: merged.round,
        score,
        complete: follow::is_complete(job.job(), merged.round),
        seconds: job.now().seconds_since(job.job().phase_since),
        missing,
    };
    commit::score(aggregator, id, evaluated).await.map(Some)
}

/// The job's course with this score; a score that cannot be compared changes nothing. That is one of no
/// records, and one that a site owes which is still in the job: without its records it would look better
/// or worse than it is.
fn course(job: &Job, merged: &Merged, evaluated: &Evaluated) -> Course {
    let owes = |worker: &&WorkerName| evaluated.missing.iter().any(|one| one.worker == **worker);
    if job.active().any(|worker| owes(&worker)) {
        return job.course.clone();
    }
    let score = &evaluated.score;
    let measure = job.spec.measure();
    let figure = measure.and_then(|measure| Figure::of(score, measure));
    let Some(figure) = figure else {
        return job.course.clone();
    };
    let scored = Scored {
        round: merged.round,
        global: merged.global.clone(),
        figure,
        sites: job.active().cloned().collect(),
    };
    job.course.after(scored, &job.spec.rounds)
}

/// What a site came to that is asked for its score.
enum Answer {
    /// Its counts.
    Score(Score),
    /// None.
    Lost(SiteTrouble),
    /// None so far.
    Waiting,
}

/// The fleet's score, once every site has answered, is lost or is out of time.
async fn collect(
    aggregator: &Aggregator,
    job: &Owned,
    plan: &Plan,
    merged: &Merged,
) -> Result<Option<(Score, Vec<SiteTrouble>)>, Error> {
    let mut score = Score::default();
    let mut missing = job.job().lost.clone();
    let mut waiting = false;
    let active: Vec<&WorkerName> = job.job().active().collect();
    for worker in active {
        let Some(worker_plan) = plan.workers.get(worker) else {
            continue;
        };
        if let Some(behind) = job.job().behind(worker) {
            let detail = format!("it is still at round {}", behind.round);
            missing.push(late::too_late(worker, detail));
            continue;
        }
        match answer(aggregator, job, worker, merged).await? {
            Answer::Score(own) => score.add(&own),
            Answer::Lost(site) => missing.push(site),
            Answer::Waiting => {
                waiting = true;
                let walk = walk::to_score(aggregator, job.job(), worker, merged.round).await?;
                let task = tasks::evaluate(
                    job.job(),
                    worker,
                    worker_plan,
                    (merged.round, &merged.global),
                    walk,
                    merged.deadline,
                );
                if tasks::give(job, &task, merged.deadline).await? == Said::Now {
                    hit(Failpoint::AggregatorEvaluateAfterTasks);
                }
            }
        }
    }
    Ok((!waiting).then_some((score, missing)))
}

/// A site's score, or why there is none of it.
async fn answer(
    aggregator: &Aggregator,
    job: &Owned,
    worker: &WorkerName,
    merged: &Merged,
) -> Result<Answer, Error> {
    let (bus, id, epoch) = (job.bus(), &job.job().id, job.job().epoch);
    let lost = |trouble, detail: &str| SiteTrouble::new(worker.clone(), trouble, detail);
    match bus.report::<report::Evaluated>(worker, id, epoch).await? {
        Reported::Read(evaluated) => {
            let score = evaluated.score;
            let Some(figure) = score.illegal(job.job().spec.classes().len()) else {
                return Ok(Answer::Score(score));
            };
            let detail = format!("no site can have counted its {figure}");
            return Ok(Answer::Lost(lost(Trouble::NotFinite, &detail)));
        }
        Reported::Unreadable(report) => {
            let site = unread::once(aggregator, job, worker, &report).await?;
            return Ok(Answer::Lost(site));
        }
        Reported::Absent => {}
    }
    match bus.report::<Failed>(worker, id, epoch).await? {
        Reported::Read(failed) => {
            return Ok(Answer::Lost(lost(failed.trouble, &failed.detail)));
        }
        Reported::Unreadable(report) => {
            let site = unread::once(aggregator, job, worker, &report).await?;
            return Ok(Answer::Lost(site));
        }
        Reported::Absent => {}
    }
    if let Some(site) = gave_out(aggregator, job, worker)? {
        return Ok(Answer::Lost(site));
    }
    if job.now() >= merged.deadline {
        let detail = "its score did not come in time";
        return Ok(Answer::Lost(lost(Trouble::TooLate, detail)));
    }
    Ok(Answer::Waiting)
}

/// While storage is away nobody can fetch what is to be scored, and nobody is judged.
fn gave_out(
    aggregator: &Aggregator,
    job: &Owned,
    worker: &WorkerName,
) -> Result<Option<SiteTrouble>, Error> {
    let asked_at = job.job().phase_since.max(aggregator.reach.since()?);
    let give_up_ms = aggregator.config.liveness.give_up_ms();
    Ok(aggregator.fleet.gave_out(worker, asked_at, give_up_ms))
}

//! A committed round: has its adapter scored by the workers.

use bus::Said;
use bus::drive::{Next, Owned};
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
use crate::rounds::{commit, follow, late, replan, tasks, walk};

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
        let (id, epoch) = (&job.job().id, job.job().epoch);
        let answered = match job
            .bus()
            .report::<report::Evaluated>(worker, id, epoch)
            .await
        {
            Err(bus::Error::Decode { .. }) => {
                missing.push(trouble(
                    worker,
                    Trouble::Internal,
                    "its score cannot be read",
                ));
                continue;
            }
            other => other?,
        };
        if let Some(evaluated) = answered {
            match evaluated.score.illegal() {
                None => score.add(&evaluated.score),
                Some(figure) => {
                    let detail = format!("no site can have counted its {figure}");
                    missing.push(trouble(worker, Trouble::NotFinite, &detail));
                }
            }
        } else if let Some(failed) = job.bus().report::<Failed>(worker, id, epoch).await? {
            missing.push(trouble(worker, failed.trouble, &failed.detail));
        } else if let Some(site) = gave_out(aggregator, job, worker)? {
            missing.push(site);
        } else if job.now() >= merged.deadline {
            missing.push(trouble(
                worker,
                Trouble::TooLate,
                "its score did not come in time",
            ));
        } else {
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
    Ok((!waiting).then_some((score, missing)))
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

fn trouble(worker: &WorkerName, trouble: Trouble, detail: &str) -> SiteTrouble {
    SiteTrouble {
        worker: worker.clone(),
        trouble,
        detail: detail.to_owned(),
    }
}

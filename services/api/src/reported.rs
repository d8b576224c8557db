//! What a job's sites answered in its present epoch, read from the report stream.

use contract::message::report::{Evaluated, Failed, Probed, Updated, Walked};
use domain::id::WorkerName;
use domain::job::{Job, Phase};
use futures::{StreamExt, stream};

use crate::explain::waiting::{Reported, Reports, asked};
use crate::state::App;

/// Sites that are asked about at most; of a larger fleet the others show as working.
const SITES: usize = 512;

/// Questions to the server at the same time.
const AT_ONCE: usize = 16;

/// The answers of the sites that are not seen working on the job right now.
///
/// # Errors
/// If the bus does not answer.
pub async fn reported(app: &App, job: &Job) -> Result<Reports, bus::Error> {
    let questions: Vec<WorkerName> = {
        let known = app.watch().read();
        let works = |worker: &WorkerName| {
            let task = known
                .beats
                .get(worker)
                .and_then(|heard| heard.beat.progress.as_ref());
            task.is_some_and(|task| task.job == job.id && task.epoch == job.epoch)
                && known.liveness(worker, chassis::clock::now()) == domain::fleet::Liveness::Alive
        };
        let open = asked(job, &known)
            .into_iter()
            .filter(|worker| !works(worker));
        open.take(SITES).cloned().collect()
    };
    let answers = stream::iter(questions)
        .map(|worker| async move { (answer(app, job, &worker).await, worker) })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut reports = Reports::new();
    for (answer, worker) in answers {
        match answer {
            Ok(Some(reported)) => drop(reports.insert(worker, reported)),
            Ok(None) => {}
            // A report that cannot be read is the aggregator's to refuse; here it is no answer.
            Err(error) if error.retry() == bus::Retry::Never => {
                tracing::debug!(%worker, %error, "report not readable");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(reports)
}

async fn answer(app: &App, job: &Job, worker: &WorkerName) -> Result<Option<Reported>, bus::Error> {
    let bus = app.bus();
    let done = match job.phase {
        Phase::Profiling { .. } => bus
            .report::<Probed>(worker, &job.id, job.epoch)
            .await?
            .is_some(),
        // Which of the two a site sends is in the plan.
        Phase::Training { .. } => {
            bus.report::<Updated>(worker, &job.id, job.epoch)
                .await?
                .is_some()
                || bus
                    .report::<Walked>(worker, &job.id, job.epoch)
                    .await?
                    .is_some()
        }
        Phase::Evaluating { .. } => bus
            .report::<Evaluated>(worker, &job.id, job.epoch)
            .await?
            .is_some(),
        _ => false,
    };
    if done {
        return Ok(Some(Reported::Done));
    }
    let failed = bus.report::<Failed>(worker, &job.id, job.epoch).await?;
    Ok(failed.map(|failed| Reported::Failed {
        trouble: failed.trouble,
        detail: failed.detail,
    }))
}

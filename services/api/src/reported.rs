//! What a job's sites answered in its present epoch, read from the report stream.

use contract::Message;
use contract::message::report::{Evaluated, Failed, Probed, Updated, Walked};
use domain::cause::SiteTrouble;
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
        if let Some(reported) = answer? {
            reports.insert(worker, reported);
        }
    }
    Ok(reports)
}

async fn answer(app: &App, job: &Job, worker: &WorkerName) -> Result<Option<Reported>, bus::Error> {
    let done = match job.phase {
        Phase::Profiling { .. } => has::<Probed>(app, job, worker).await?,
        // Which of the two a site sends is in the plan.
        Phase::Training { .. } => {
            has::<Updated>(app, job, worker).await? || has::<Walked>(app, job, worker).await?
        }
        Phase::Evaluating { .. } => has::<Evaluated>(app, job, worker).await?,
        _ => false,
    };
    if done {
        return Ok(Some(Reported::Done));
    }
    let failed = read::<Failed>(app, job, worker).await?.map(|failed| {
        let site = SiteTrouble::new(worker.clone(), failed.trouble, &failed.detail);
        Reported::Failed {
            trouble: site.trouble,
            detail: site.detail,
        }
    });
    Ok(failed)
}

async fn has<M: Message>(app: &App, job: &Job, worker: &WorkerName) -> Result<bool, bus::Error> {
    Ok(read::<M>(app, job, worker).await?.is_some())
}

/// A report; one that cannot be read is no answer here: whoever owns the job has its site lost by it.
async fn read<M: Message>(
    app: &App,
    job: &Job,
    worker: &WorkerName,
) -> Result<Option<M>, bus::Error> {
    let report = app.bus().report::<M>(worker, &job.id, job.epoch).await?;
    Ok(report.read())
}

//! `evaluate`: score a merged adapter on the site's held-out records.

use contract::message::report::Evaluated;
use contract::message::task::Evaluate;

use super::honour;
use crate::errand::Errand;
use crate::evaluate::{Scoring, admit, scored};
use crate::failure::Failure;
use crate::fetch;
use crate::report::Report;

/// Scores; a site without held-out records answers with an empty score.
pub(super) async fn handle(running: &Errand, task: &Evaluate) -> Result<Report, Failure> {
    let site = &running.site;
    let key = honour(site, &task.head.model, &task.plan)?;
    let name = task.head.dataset.clone();
    let data = running.aside(move |site| site.data.get(&name)).await?;
    admit(site, scored(&data, task))?;

    let files = fetch::model(running).await?;
    let walk = task.walk.as_ref().map(|walk| (walk, task.round));
    let (global, bytes_down) = fetch::adapter(running, &task.global, walk).await?;
    let (round, task) = (task.round, task.clone());
    let scoring = Scoring {
        task,
        key,
        files,
        global,
        data,
    };
    let mut score = running
        .compute(move |bench, running| scoring.score(bench, running))
        .await?;
    score.bytes_down = bytes_down;
    // Records without an answer among the choices are left out; too few may be left.
    admit(site, score.records)?;
    let head = running.report_head();
    Ok(Report::Evaluated(Box::new(Evaluated {
        head,
        round,
        score,
    })))
}

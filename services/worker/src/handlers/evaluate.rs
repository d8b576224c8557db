//! `evaluate`: score a merged adapter on the site's held-out records.

use contract::message::report::Evaluated;
use contract::message::task::Evaluate;
use domain::cause::Trouble;

use super::honour;
use crate::evaluate::Scoring;
use crate::failure::Failure;
use crate::fetch;
use crate::report::Report;
use crate::running::Running;

/// Scores; a site without held-out records answers with an empty score.
pub(super) async fn handle(running: &Running, task: &Evaluate) -> Result<Report, Failure> {
    let site = &running.site;
    let key = honour(site, &task.head.model, &task.plan)?;
    let name = task.head.dataset.clone();
    let data = running.aside(move |site| site.data.get(&name)).await?;
    let held_out = data.summary().held_out;
    let scored = task
        .sample
        .map_or(held_out, |sample| held_out.min(u64::from(sample)));
    let admitted = site.config.policy.admit_count("the score", scored);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))?;

    let files = fetch::model(running).await?;
    let (global, bytes_down) = fetch::adapter(running, &task.global).await?;
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
    let admitted = site.config.policy.admit_count("the score", score.records);
    admitted.map_err(|refusal| Failure::of(Trouble::PolicyRefused, &refusal))?;
    let head = running.report_head();
    Ok(Report::Evaluated(Box::new(Evaluated {
        head,
        round,
        score,
    })))
}

//! Shows a job while it runs: bars on a terminal, lines elsewhere. Ends with the job.

mod bars;
mod plain;
pub mod words;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;

use crate::client::Client;
use crate::client::events::{Event, Heard, follow};
use crate::client::view::{Beat, Job};
use crate::output::{self, Said};

/// How often it is asked whom the job waits for.
const LOOK: Duration = Duration::from_secs(2);

enum Screen {
    Bars(bars::Bars),
    Plain(plain::Plain),
}

impl Screen {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        match self {
            Self::Bars(bars) => bars.event(event),
            Self::Plain(plain) => plain.event(event),
        }
    }

    fn beat(&mut self, beat: &Beat) -> anyhow::Result<()> {
        match self {
            Self::Bars(bars) => {
                bars.beat(beat);
                Ok(())
            }
            Self::Plain(plain) => plain.beat(beat),
        }
    }

    fn job(&mut self, job: &Job) -> anyhow::Result<()> {
        match self {
            Self::Bars(bars) => {
                bars.job(job);
                Ok(())
            }
            Self::Plain(plain) => plain.job(job),
        }
    }

    fn broken(&mut self, why: &str) -> anyhow::Result<()> {
        match self {
            Self::Bars(bars) => bars.line(&format!("connection lost, trying again: {why}")),
            Self::Plain(_) => {
                output::note(format!("connection lost, trying again: {why}"));
                Ok(())
            }
        }
    }
}

/// Shows a job until it has ended.
///
/// # Errors
/// If it did not succeed, or can no longer be followed.
pub async fn watch(client: &Client, id: &str) -> anyhow::Result<()> {
    let path = format!("/v1/jobs/{id}");
    let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
    let mut screen = if terminal {
        Screen::Bars(bars::Bars::new())
    } else {
        Screen::Plain(plain::Plain::new())
    };
    let mut heard = follow(client.clone(), id.to_owned(), true);
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            next = heard.recv() => match next {
                Some(Heard::Event(event)) => screen.event(&event)?,
                Some(Heard::Progress(beat)) if of(&beat, id) => screen.beat(&beat)?,
                Some(Heard::Progress(_)) => {}
                Some(Heard::Broken(why)) => screen.broken(&why)?,
                Some(Heard::End(end)) => {
                    end.with_context(|| format!("{id} goes on, but cannot be followed. Next: `fedpipe job events {id} --follow`"))?;
                    break;
                }
                None => break,
            },
            _ = look.tick() => {
                // A failed look is no news: the stream of events says whether the API is away.
                if let Ok(job) = client.get(&path).await {
                    screen.job(&job)?;
                }
            }
        }
    }
    let job: Job = client.get(&path).await?;
    if let Screen::Bars(bars) = &screen {
        bars.close();
    }
    outcome(&job)
}

fn of(beat: &Beat, id: &str) -> bool {
    beat.progress
        .as_ref()
        .is_none_or(|progress| progress.job == id)
}

fn outcome(job: &Job) -> anyhow::Result<()> {
    if let (Some(adapter), "succeeded") = (&job.adapter, job.phase.as_str()) {
        output::line(format!(
            "{} ({}) succeeded: adapter {}, {}",
            job.name,
            job.id,
            adapter.sha256,
            crate::units::bytes(adapter.bytes)
        ))?;
        if let Some(kept) = &job.kept {
            output::line(format!("adapter of {}", kept.words()))?;
        }
        output::note(format!(
            "Next: `fedpipe job adapter {} -o adapter` fetches it, `fedpipe job report {}` shows the figures",
            job.id, job.id
        ));
        return Ok(());
    }
    let mut text = format!("{} ({}) ended: {}", job.name, job.id, job.phase);
    if let Some(cause) = &job.cause {
        text = format!(
            "{} ({}) failed: {}: {}",
            job.name, job.id, cause.kind, cause.message
        );
        for site in &cause.sites {
            text.push_str(&format!(
                "\n  {}: {}: {}",
                site.worker, site.trouble, site.detail
            ));
        }
        text.push_str("\nNext: put right what it names and submit again; `fedpipe job events ");
        text.push_str(&job.id);
        text.push_str("` has the whole story");
    }
    output::note(&text);
    Err(Said(text).into())
}

//! `GET /v1/jobs/{id}/events`: what happens to a job, as server-sent events.
//!
//! An event's id is its position in the stream: a client that comes back with it (`Last-Event-ID`)
//! misses nothing and gets nothing twice. Between events, the live progress of the job's workers;
//! it has no id and is not repeated. The stream ends after the event that ends the job.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Sse;
use axum::response::sse::{Event as SseEvent, KeepAlive};
use contract::message::job::{Event, JobEvent, implied};
use domain::id::{Epoch, JobId, WorkerName};
use domain::job::Job;
use domain::time::UnixMillis;
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::openapi::Refusals;
use crate::extract::{JobPath, Params};
use crate::problem::{Kind, Problem};
use crate::state::App;
use crate::view::fleet::ProgressEvent;
use crate::view::rfc3339;
use crate::watch::Heard;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Progress of one worker is shown at most this often, in milliseconds.
const PROGRESS_MS: u64 = 1000;

/// How often the stream looks whether there is anything to wait for.
const TICK: Duration = Duration::from_millis(500);

/// Ticks without an event after which a job that has ended has nothing more to say.
const QUIET_TICKS: u32 = 4;

/// Ticks that the first event may take.
const FIRST_TICKS: u32 = 8;

/// A comment is sent so often, so that nobody takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Query of an event stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    after: Option<u64>,
    follow: Option<bool>,
}

/// What happened to a job: the data of an event.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// The job.
    pub job: String,
    /// The epoch it belongs to.
    pub epoch: u64,
    /// When the state it tells of was reached (RFC 3339).
    pub at: String,
    /// submitted, admitted, profiled, planned, opened, closed, merged, evaluated, stopped, refused, lost, reused, drifted, importance-moved, plan-kept, paused, resumed, finished, failed or cancelled.
    pub event: &'static str,
    /// What belongs to this kind of event: `round`, `sites`, `missing`, `version`, `deadline`, `site`, `cause`, `adapter`, `records`, `loss`, `balanced_accuracy`, `figure` (what scores are compared by, if it is another: `measure`, `value`), `asked` (empty: every planned site), `credited` (whose update of an earlier round counts), `from` and `measured_at` (the job and time of what is reused), `by` (how far a site has drifted), `since` and `agreement` (the round whose order of weights the last is held against, and their rank correlation), `why`, `kept` (of which round the adapter is, and why).
    #[schema(value_type = Object)]
    pub detail: Map<String, Value>,
}

/// Streams what happens to a job.
///
/// Events carry an id, a name and `EventView` as data. Between them come events named `progress` without an id, with
/// `ProgressEvent` as data, at most one a second and worker. The stream ends after `finished`, `failed` or `cancelled`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("after" = Option<u64>, Query, description = "Only events after this id"),
        ("follow" = Option<bool>, Query, description = "`false`: what there is, then the end; otherwise wait for more"),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`; wins over it. Browsers send it when they reconnect"),
    ),
    responses(
        (status = 200, description = "Server-sent events", body = EventView, content_type = "text/event-stream"),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "This release cannot read it; a newer one probably wrote it: use that one", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many event streams are open", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn events(
    State(app): State<App>,
    JobPath(id): JobPath,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Problem> {
    let after = position(&headers)?.or(query.after).unwrap_or(0);
    let job = app.stored(&id).await?;
    let permit = app.streams().try_acquire_owned().map_err(|_| {
        Problem::new(
            Kind::TooMany,
            "too many event streams are open: close some, or read `GET /v1/jobs/{id}`",
        )
    })?;
    let follow = Follow::new(app, &job, after, query.follow.unwrap_or(true), permit);
    let stream = stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok(event), follow))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn position(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else {
        return Ok(None);
    };
    let read = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    read.map(Some).ok_or_else(|| {
        Problem::new(
            Kind::BadRequest,
            "Last-Event-ID: send back the id of an event, or leave the header out",
        )
    })
}

/// One open stream.
struct Follow {
    app: App,
    job: JobId,
    events: mpsc::Receiver<(u64, JobEvent)>,
    beats: broadcast::Receiver<Heard>,
    follow: bool,
    /// The event that the stored job implied when the stream was opened: the last there is.
    newest: Option<(Epoch, &'static str)>,
    shown: BTreeMap<WorkerName, UnixMillis>,
    tick: Interval,
    quiet_ticks: u32,
    began: bool,
    /// Whether this process has heard of the job: only then can it notice that it was deleted.
    heard_of: bool,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    fn new(app: App, job: &Job, after: u64, follow: bool, permit: OwnedSemaphorePermit) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            events: app.bus().events(Some(&job.id), after),
            beats: app.watch().subscribe(),
            job: job.id.clone(),
            newest: implied(job)
                .last()
                .map(|last| (last.epoch, last.event.name())),
            app,
            follow,
            shown: BTreeMap::new(),
            tick,
            quiet_ticks: 0,
            began: after > 0,
            heard_of: false,
            over: false,
            _permit: permit,
        }
    }

    /// The next thing to send; `None` ends the stream.
    async fn next(&mut self) -> Option<SseEvent> {
        while !self.over {
            // In this order: history before progress, the end last.
            tokio::select! {
                biased;
                () = self.app.stop().cancelled() => return None,
                event = self.events.recv() => {
                    let (position, event) = event?;
                    self.note(&event);
                    let sent = SseEvent::default().id(position.to_string()).event(event.event.name());
                    match sent.json_data(event_view(&event)) {
                        Ok(sent) => return Some(sent),
                        Err(error) => tracing::warn!(%error, "event not shown"),
                    }
                }
                heard = self.beats.recv(), if self.follow => match heard {
                    Ok(heard) => {
                        if let Some(sent) = self.progress(&heard) {
                            return Some(sent);
                        }
                    }
                    // Some progress was lost: newer progress comes.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.tick.tick() => {
                    self.quiet_ticks += 1;
                    self.over = self.has_no_more();
                }
            }
        }
        None
    }

    fn note(&mut self, event: &JobEvent) {
        self.quiet_ticks = 0;
        self.began = true;
        let newest = self.newest == Some((event.epoch, event.event.name()));
        self.over = ends(&event.event) || (!self.follow && newest);
    }

    fn has_no_more(&mut self) -> bool {
        let patience = if self.began { QUIET_TICKS } else { FIRST_TICKS };
        if self.quiet_ticks < patience {
            return false;
        }
        // The last event may have been seen before this stream, or the job was deleted meanwhile.
        let known = self.app.watch().read();
        let job = known.jobs.get(&self.job);
        self.heard_of |= job.is_some();
        !self.follow || job.map_or(self.heard_of, |job| job.phase.is_terminal() && job.settled)
    }

    fn progress(&mut self, heard: &Heard) -> Option<SseEvent> {
        let worker = &heard.beat.worker;
        let takes_part = {
            let known = self.app.watch().read();
            let job = known.jobs.get(&self.job);
            job.is_some_and(|job| job.participants.contains(worker))
        };
        let recent = self
            .shown
            .get(worker)
            .is_some_and(|at| heard.at.since(*at) < PROGRESS_MS);
        if !takes_part || recent {
            return None;
        }
        self.shown.insert(worker.clone(), heard.at);
        let data = ProgressEvent::new(&heard.beat, heard.at);
        SseEvent::default().event("progress").json_data(data).ok()
    }
}

const fn ends(event: &Event) -> bool {
    matches!(
        event,
        Event::Finished { .. } | Event::Failed { .. } | Event::Cancelled
    )
}

/// An event in words of the API: the same fields for every kind, its own in `detail`.
fn event_view(event: &JobEvent) -> EventView {
    // An event serializes as its name, or as an object with its name as the only key.
    let detail = match serde_json::to_value(&event.event) {
        Ok(Value::Object(named)) => named.into_iter().next().map(|(_, detail)| detail),
        _ => None,
    };
    let mut detail = match detail {
        Some(Value::Object(detail)) => detail,
        _ => Map::new(),
    };
    if let Event::Opened { deadline, .. } = &event.event {
        detail.insert("deadline".to_owned(), rfc3339(*deadline).into());
    }
    EventView {
        job: event.job.to_string(),
        epoch: event.epoch.0,
        at: rfc3339(event.at),
        event: event.event.name(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(event: Event) -> Value {
        let event = JobEvent {
            job: JobId::from_bits(1),
            epoch: Epoch(2),
            at: UnixMillis(0),
            event,
        };
        serde_json::to_value(event_view(&event)).expect("serializes")
    }

    #[test]
    fn every_event_has_the_same_fields_and_its_own_detail() {
        let opened = shown(Event::Opened {
            round: 3,
            deadline: UnixMillis(1000),
            asked: Vec::new(),
        });
        assert_eq!(
            (&opened["event"], &opened["epoch"]),
            (&"opened".into(), &2.into())
        );
        assert_eq!(opened["detail"]["round"], 3);
        assert_eq!(opened["detail"]["deadline"], "1970-01-01T00:00:01.000Z");
        assert_eq!(shown(Event::Submitted)["detail"], serde_json::json!({}));
    }

    #[test]
    fn a_score_that_is_not_a_number_is_null_in_an_event() {
        let event = shown(Event::Evaluated {
            round: 1,
            records: 4,
            loss: Some(f64::NAN),
            balanced_accuracy: None,
            figure: None,
        });
        assert!(event["detail"]["loss"].is_null());
        assert_eq!(event["detail"]["records"], 4);
    }

    #[test]
    fn a_position_that_is_no_number_is_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(position(&headers).expect("legal"), None);
        headers.insert(LAST_EVENT_ID, "17".parse().expect("a header"));
        assert_eq!(position(&headers).expect("legal"), Some(17));
        headers.insert(LAST_EVENT_ID, "x".parse().expect("a header"));
        assert_eq!(position(&headers).expect_err("refused").status(), 400);
    }
}

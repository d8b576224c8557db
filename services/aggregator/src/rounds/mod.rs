//! What the handlers share: whom to ask, tasks, what came back, who is late, what follows, what is
//! committed and what is cleaned up, and the report.

pub mod ask;
pub mod blame;
pub mod clean;
pub mod commit;
pub mod emphasis;
pub mod follow;
pub mod ingest;
pub mod joining;
pub mod late;
pub mod published;
pub mod rates;
pub mod reach;
pub mod replan;
pub mod report;
pub mod returning;
pub mod standings;
pub mod tasks;
pub mod unread;
pub mod walk;

//! What the handlers share: tasks, what came back, what follows, and the report.

pub mod follow;
pub mod ingest;
pub mod reach;
pub mod replan;
pub mod report;
pub mod standings;
pub mod tasks;

//! The API over HTTP, on a real NATS server with its real permissions and on local files.
#![cfg(test)]

mod control;
mod delete;
mod events;
mod merged;
mod newer;
mod results;
mod service;
mod submit;
mod waiting;

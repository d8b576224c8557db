//! The bus on a real NATS server with permissions on.

// Clippy then knows that helper modules are tests, too.
#![cfg(test)]

mod asks;
mod configuration;
mod denied;
mod drive;
mod feeds;
mod fixture;
mod orders;
mod publish;
mod queues;
mod restart;
mod secured;
mod store;
mod tasks;

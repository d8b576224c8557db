//! The engine against PyTorch, against damage, and against itself.
//!
//! Reference values are made by `tests/reference/make_reference.py`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod adapters;
mod architectures;
mod bases;
mod cancel;
mod damage;
mod encoder;
mod encoder_exports;
mod encoders;
mod encoders_exports;
mod exports;
mod families;
mod generation;
mod kernels;
mod made;
mod published;
mod repeatable;
mod scoring;
mod sentencepiece;
mod smollm2;
mod support;
mod templates;
mod tools;
mod torch;
mod version;
mod zeroth;

//! Trains beside the private data what its plan says, and uploads only adapters.

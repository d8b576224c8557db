//! The wire: messages, subjects, streams, consumers, permissions and versions.

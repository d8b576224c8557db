//! Black-box tests: whole processes on real servers.

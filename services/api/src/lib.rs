//! Takes jobs over HTTP and shows what becomes of them.

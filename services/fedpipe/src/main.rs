//! fedpipe: fine-tune language models on data that stays where it lies.
fn main() {}

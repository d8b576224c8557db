//! The tests' collector as a program, for `benches/telemetry.py`: prints its address, takes what comes until its standard
//! input ends, then prints how much that was.

use std::io::{Write, stdin, stdout};

use testkit::collector::Collector;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let collector = Collector::start().await;
    writeln!(stdout(), "{}", collector.endpoint())?;
    let ended =
        tokio::task::spawn_blocking(|| std::io::copy(&mut stdin().lock(), &mut std::io::sink()));
    ended.await??;
    let (spans, records, metrics) = (
        collector.spans().len(),
        collector.records().len(),
        collector.metrics().len(),
    );
    writeln!(
        stdout(),
        r#"{{"spans": {spans}, "records": {records}, "metrics": {metrics}}}"#
    )
}

//! What `fedpipe bench plan` and `fedpipe bench aggregate` tell of the planner and of the merging rules.

use serde_json::Value;
use tests::command::fedpipe;

/// Bytes in which a fleet of a thousand workers is planned, its profiles counted.
const MOST_BYTES: f64 = 200e6;

#[tokio::test]
async fn a_thousand_workers_are_planned_in_little_memory_that_grows_with_their_number() {
    let words = ["bench", "plan", "--workers", "250,1000", "--json"];
    let told = fedpipe(&words).await.json();
    let sizes = told["sizes"].as_array().unwrap();
    let bytes = |row: &Value| 1_048_576.0 * row["peak_mib"].as_f64().unwrap();
    for (row, workers) in sizes.iter().zip([250, 1000]) {
        assert_eq!(
            (&row["workers"], &row["planned"]),
            (&workers.into(), &workers.into())
        );
        assert_eq!(row["solver"], "fast", "{row}");
    }
    let (few, many) = (bytes(&sizes[0]), bytes(&sizes[1]));
    assert!(many < MOST_BYTES, "{many}");
    assert!(many < 4.2 * few, "{few}, then {many}");
    let one = &told["one_worker"];
    assert_eq!(one["exact_proven"], true, "{one}");
    let share = one["fast_share_of_exact"].as_f64().unwrap();
    assert!((0.99..=1.0 + 1e-9).contains(&share), "{share}");
    // How long it takes is measured with the release binary (benches/federation.py).
    assert!(
        sizes
            .iter()
            .all(|row| row["seconds"].as_f64().unwrap() > 0.0)
    );
}

/// The rules' rows of a bench on a tiny model.
async fn rules(words: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    testkit::model::tiny(folder.path(), 1).unwrap();
    let model = folder.path().to_str().unwrap();
    let bench = ["bench", "aggregate", "--model", model, "--json"];
    let told = fedpipe(&[&bench[..], words].concat()).await.json();
    told["rules"].as_array().unwrap().clone()
}

fn figure(row: &Value, name: &str) -> f64 {
    row[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {row}"))
}

#[tokio::test]
async fn every_rule_s_error_against_the_dense_mean_is_told_with_its_speed_and_memory() {
    let rows = rules(&["--workers", "6", "--ranks", "2,4,8"]).await;
    let names: Vec<&str> = rows.iter().filter_map(|row| row["rule"].as_str()).collect();
    let all = [
        "product", "stack", "ffa", "slice", "fedit", "residual", "sum",
    ];
    assert_eq!(names, all);
    for row in &rows {
        let error = figure(row, "error");
        match row["rule"].as_str().unwrap() {
            "stack" | "ffa" | "residual" => assert!(error < 1e-6, "{row}"),
            // What its kept rank leaves out of all weights; the error is that of some.
            "product" => {
                let dropped = figure(row, "dropped_energy").sqrt();
                assert!((0.5 * dropped..2.0 * dropped).contains(&error), "{row}");
            }
            _ => assert!(error > 0.01, "{row}"),
        }
        for name in ["seconds", "bytes_per_second", "peak_mib"] {
            assert!(figure(row, name) > 0.0, "{name}: {row}");
        }
    }
}

#[tokio::test]
async fn no_rule_needs_more_memory_for_more_updates() {
    let few = rules(&["--workers", "8", "--ranks", "8", "--threads", "1"]).await;
    let many = rules(&["--workers", "64", "--ranks", "8", "--threads", "1"]).await;
    for (few, many) in few.iter().zip(&many) {
        // A mebibyte of a process this small is what its threads' stacks come and go by.
        let most = 1.1 * figure(few, "peak_mib") + 1.0;
        assert!(figure(many, "peak_mib") <= most, "{few} {many}");
    }
}

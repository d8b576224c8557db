//! `fedpipe bench packing`: the same records, with the same loss, in four ways of batching.

use std::path::Path;

use serde_json::json;
use tests::command::fedpipe;

#[tokio::test]
async fn the_same_records_are_timed_in_four_ways_of_batching() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = tests.join("../libs/engine/tests/reference/tiny");
    let mut words = vec!["bench", "packing", "--model", model.to_str().unwrap()];
    words.extend(["--base", "f32", "--threads", "1", "--repeats", "1"]);
    words.extend(["--records", "8", "--seq", "48", "--batch-tokens", "96"]);
    words.push("--json");
    let found = fedpipe(&words).await.json();
    assert_eq!(found["what"], json!("packing"));
    assert_eq!(found["records"], json!(8));
    let apart = found["losses_apart"].as_f64().unwrap();
    assert!(apart <= 1e-4, "{found}");
    let tokens = found["tokens"].as_u64().unwrap();
    // Eight short records are fewer tokens than two of full length.
    for (way, batches) in [("alone", 8), ("padded", 4), ("records", 4), ("packed", 1)] {
        let own = &found["ways"][way];
        assert_eq!(own["batches"], json!(batches), "{way}: {found}");
        let computed = own["computed_tokens"].as_u64().unwrap();
        assert_eq!(computed > tokens, way == "padded", "{way}: {found}");
        assert!(computed >= tokens, "{way}: {found}");
        let number = |key: &str| own[key].as_f64().unwrap();
        let seconds = number("seconds");
        assert!(seconds > 0.0 && number("loss") > 0.0, "{found}");
        let rate = number("tokens_per_second") * seconds;
        assert!((rate / tokens as f64 - 1.0).abs() < 1e-9, "{found}");
    }
    assert_eq!(found["ways"]["packed"]["packed_is_faster_by"], json!(1.0));
}

#[tokio::test]
async fn a_budget_that_a_record_may_exceed_is_refused() {
    let ended = fedpipe(&[
        "bench",
        "packing",
        "--model",
        "none",
        "--seq",
        "48",
        "--batch-tokens",
        "47",
    ]);
    ended.await.failed(&["--batch-tokens", "--seq"]);
}

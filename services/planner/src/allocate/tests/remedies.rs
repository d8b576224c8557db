//! What is advised where no plan is possible: only what helps, and what submission takes.

use super::zeroth::{tiny, with};
use super::*;

/// What is to be done next about a site of too little memory for anything.
fn next(spec: &Spec) -> String {
    let cause = plan(spec, &[tiny(GIB / 8)], 1).expect_err("impossible");
    assert_eq!(cause.sites[0].trouble, Trouble::OutOfMemory);
    let next = cause.message.split_once("; next: ");
    next.map(|(_, next)| next.to_owned()).unwrap_or_default()
}

fn check(more: &str, expected: &str) {
    assert_eq!(next(&with(more)), expected, "{more}");
}

const SHORTER: &str = "shorten training.sequence_length";

#[test]
fn a_rank_is_left_to_auto_where_the_rule_takes_uneven_ones_and_lowered_where_it_does_not() {
    let job = |strategy: &str, rank: u16, rank_max: u16, more: &str| {
        format!(
            r#""aggregation":{{"strategy":"{strategy}"}},"adapter":{{"rank":{rank},"rank_max":{rank_max}}}{more}"#
        )
    };
    let scored = r#","evaluation":{}"#;
    check(
        &job("product", 8, 8, ""),
        &format!("leave adapter.rank to auto; or {SHORTER}"),
    );
    check(
        &job("product", 8, 8, scored),
        &format!(
            "leave adapter.rank to auto; {SHORTER}; or lower adapter.rank and adapter.rank_max together, or leave \
             evaluation out"
        ),
    );
    for strategy in ["fedit", "ffa", "sum"] {
        for rank_max in [8, 32] {
            let lower = format!("{SHORTER}; or lower adapter.rank");
            check(&job(strategy, 8, rank_max, ""), &lower);
        }
        check(
            &job(strategy, 8, 32, scored),
            &format!(
                "{SHORTER}; or lower adapter.rank or adapter.rank_max, or leave evaluation out"
            ),
        );
        check(&job(strategy, 1, 32, ""), SHORTER);
        check(
            &job(strategy, 1, 1, scored),
            &format!("{SHORTER}; or leave evaluation out"),
        );
    }
}

#[test]
fn a_job_that_goes_by_its_scores_is_not_told_to_leave_evaluation_out() {
    for rounds in [r#"{"keep":"best"}"#, r#"{"patience":3}"#] {
        let job = |rank_max: u16| {
            format!(
                r#""aggregation":{{"strategy":"sum"}},"adapter":{{"rank":1,"rank_max":{rank_max}}},
                   "evaluation":{{}},"rounds":{rounds}"#
            )
        };
        check(&job(32), &format!("{SHORTER}; or lower adapter.rank_max"));
        check(&job(1), SHORTER);
    }
}

#[test]
fn a_zeroth_order_job_lowers_both_ranks_and_is_not_sent_to_gradients_for_memory() {
    let job = |rank: u16, training: &str, more: &str| {
        format!(
            r#""aggregation":{{"strategy":"sum"}},"adapter":{{"rank":{rank},"rank_max":{rank}}},
               "training":{{"optimizer":"mezo"{training}}}{more}"#
        )
    };
    let lower = format!("{SHORTER}; or lower adapter.rank and adapter.rank_max together");
    check(&job(8, "", ""), &lower);
    let scored = r#","evaluation":{}"#;
    let or = format!("{lower}, or leave evaluation out");
    check(&job(8, "", scored), &or);
    check(&job(1, "", ""), SHORTER);
    // `auto` takes 8 records a step or more.
    check(&job(1, r#","batch":8"#, ""), SHORTER);
    check(
        &job(1, r#","batch":9"#, ""),
        &format!("leave training.batch to auto; or {SHORTER}"),
    );
}

#[test]
fn an_optimizer_is_left_to_auto_for_memory_where_sites_may_then_train_zeroth_order() {
    let adamw = r#""training":{"optimizer":"adamw"}"#;
    let open = format!("leave training.optimizer to auto; or {SHORTER}");
    check(adamw, &open);
    let ffa = r#""aggregation":{"strategy":"ffa"},"adapter":{"rank":1}"#;
    check(&format!("{ffa},{adamw}"), SHORTER);
    let cosine = r#""training":{"optimizer":"adamw","schedule":"cosine"}"#;
    check(cosine, SHORTER);
}

#[test]
fn an_optimizer_is_not_left_to_auto_where_submission_refuses_that() {
    // The site measured steps by AdamW and without gradients, none by SGD.
    let message = |training: &str| {
        let more = format!(r#""training":{{"optimizer":"sgd"{training}}}"#);
        let cause = plan(&with(&more), &[tiny(8 * GIB)], 1).expect_err("impossible");
        assert_eq!(cause.sites[0].trouble, Trouble::PlanUnsupported);
        cause.message
    };
    let plain = message("");
    assert!(
        plain.ends_with("; next: leave training.optimizer to auto"),
        "{plain}"
    );
    let momentum = message(r#","momentum":0.9"#);
    assert!(!momentum.contains("to auto"), "{momentum}");
}

#[test]
fn what_keeps_sites_from_zeroth_order_steps_is_left_out_if_it_is_a_setting() {
    let why = "so that sites without room for gradients may train zeroth-order";
    check(r#""training":{}"#, SHORTER);
    check(
        r#""training":{"schedule":"cosine","warmup_ratio":0.1}"#,
        &format!("{SHORTER}; or leave training.schedule, training.warmup_ratio out, {why}"),
    );
    check(
        r#""training":{"local_steps":20000}"#,
        &format!("{SHORTER}; or lower training.local_steps, {why}"),
    );
    check(
        r#""training":{"local_steps":20000,"dropout":0.1}"#,
        &format!("{SHORTER}; or leave training.dropout out and lower training.local_steps, {why}"),
    );
    check(r#""training":{"labels":["a","b"],"dropout":0.1}"#, SHORTER);
    let ffa = r#""aggregation":{"strategy":"ffa"},"adapter":{"rank":1}"#;
    check(&format!(r#"{ffa},"training":{{"dropout":0.1}}"#), SHORTER);
}

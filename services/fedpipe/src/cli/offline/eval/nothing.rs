//! Why nothing was evaluated, and what to do about it.

use engine::data::Refusals;

/// For people, of a pass in which no record counted.
pub fn said(refused: &Refusals, answers: bool) -> String {
    if refused.total() == 0 {
        return "no record was asked for: use a --limit above 0".to_owned();
    }
    let what = if answers {
        "no record has an answer to compare with"
    } else {
        "no record could be evaluated"
    };
    let mut advice: Vec<&str> = refused
        .counts()
        .filter_map(|(reason, _)| advice(reason, answers))
        .collect();
    advice.dedup();
    let advice = match advice.as_slice() {
        [] => String::new(),
        some => format!(". Next: {}", some.join("; ")),
    };
    format!("{what}: {refused}{advice}")
}

/// What would have the records count.
fn advice(reason: &str, answers: bool) -> Option<&'static str> {
    Some(match reason {
        "nothing_to_learn" if answers => {
            "use records of prompt and completion, or conversations that end with the assistant"
        }
        "nothing_to_learn" => {
            "use texts of two tokens or more, or conversations with a turn of the assistant"
        }
        "answer_too_long" | "too_long" => "use a longer --sequence-length",
        "other_answer" => "give each --choice as the records' completions have it",
        "other_label" => "give --label for each class as the records write it",
        "text" => "`fedpipe train --preview` shows such a record and what its template says",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use engine::data::{Refusal, Refused};

    use super::*;

    fn refused(all: impl IntoIterator<Item = Refusal>) -> Refusals {
        let mut refusals = Refusals::default();
        for (record, refusal) in all.into_iter().enumerate() {
            refusals.add(&[Refused { record, refusal }]);
        }
        refusals
    }

    #[test]
    fn every_reason_is_counted_and_told_with_what_to_do() {
        let too_long = Refusal::AnswerTooLong {
            answer: 70,
            sequence_length: 32,
        };
        let mixed = refused([Refusal::NothingToLearn, too_long]);
        let text = said(&mixed, true);
        for words in [
            "no record has an answer to compare with: ",
            "answer_too_long 1 time (record 1; answers have up to 70 tokens",
            "nothing_to_learn 1 time (record 0)",
            "prompt and completion",
            "a longer --sequence-length",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let others = said(&refused([Refusal::OtherAnswer]), false);
        assert!(others.contains("no record could be evaluated: other_answer 1 time"));
        assert!(others.contains("--choice as the records"));
        let none = said(&Refusals::default(), false);
        assert!(none.contains("--limit above 0"));
    }
}

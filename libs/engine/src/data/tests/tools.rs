//! Records that call tools, and templates that have no words for them. What templates make of them is compared with
//! transformers in `tests/it/tools.rs`.

use super::*;
use crate::data::{Reason, Refusal, Refusals, Refused, is_held_out};
use crate::text::{Error, LeftOut, Tokenizer};

const QUESTION: &str = r#"{"role": "user", "content": "Rain?"}"#;
const CALL: &str = r#"{"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"place": "Bern", "day": 1}}}]}"#;
const RESULT: &str = r#"{"role": "tool", "name": "weather", "content": "sun"}"#;
const ANSWER: &str = r#"{"role": "assistant", "content": "No."}"#;
const TOOLS: &str = r#"[{"type": "function", "function": {"name": "weather", "parameters": {}}}]"#;

/// Renders all that it is given.
const WHOLE: &str = "{% for tool in tools or [] %}{{ tool | tojson }};{% endfor %}{% for m in messages %}{{ m.role }}:{{ m.content or '' }}\
                     {% for call in m.tool_calls or [] %}[{{ call.function.name }} {{ call.function.arguments | tojson }}]{% endfor %}\
                     <|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

fn line(tools: &str, turns: &[&str]) -> String {
    format!(
        r#"{{"tools": {tools}, "messages": [{}]}}"#,
        turns.join(", ")
    )
}

fn only(line: &str) -> Record {
    let dataset = open("a.jsonl", format!("{line}\n"));
    assert_eq!(dataset.skipped().total(), 0, "{}", dataset.skipped());
    dataset.record(0).unwrap()
}

fn whole() -> Record {
    only(&line(TOOLS, &[QUESTION, CALL, RESULT, ANSWER]))
}

fn with_template(template: &str) -> Encoder {
    let folder = tempfile::tempdir().unwrap();
    fixture::write_folder(folder.path());
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    Encoder::new(tokenizer, EncodeOptions::new(512)).unwrap()
}

#[test]
fn arguments_as_an_object_and_as_its_text_are_one() {
    let text = CALL.replace(
        r#"{"place": "Bern", "day": 1}"#,
        r#""{\"place\": \"Bern\", \"day\": 1}""#,
    );
    assert_ne!(text, CALL);
    let encoder = with_template(WHOLE);
    let rows = [CALL, &text].map(|call| {
        let record = only(&line(TOOLS, &[QUESTION, call, RESULT, ANSWER]));
        encoder.row(0, &record).unwrap()
    });
    assert_eq!(rows[0], rows[1]);
    assert_eq!(
        learned(&rows[0]),
        r#"[weather {"place": "Bern", "day": 1}]<|im_end|>No.<|im_end|>"#
    );
    let none = CALL.replace(r#"{"place": "Bern", "day": 1}"#, r#""""#);
    let row = encoder
        .row(0, &only(&line("null", &[QUESTION, &none])))
        .unwrap();
    assert_eq!(learned(&row), "[weather {}]<|im_end|>");
}

#[test]
fn tools_that_are_none_or_a_text_are_understood_as_tables_store_them() {
    let text = serde_json::to_string(TOOLS).unwrap();
    assert!(only(&line(&text, &[QUESTION, CALL, RESULT, ANSWER])) == whole());
    let plain = r#"{"role": "assistant", "content": "No.", "tool_calls": null, "name": null}"#;
    let empty = r#"{"role": "assistant", "content": "No.", "tool_calls": []}"#;
    let record = only(&line("null", &[QUESTION, ANSWER]));
    for (tools, answer) in [("[]", plain), (r#""""#, empty)] {
        assert!(only(&line(tools, &[QUESTION, answer])) == record);
    }
}

#[test]
fn tools_and_calls_in_another_form_are_counted_and_line_and_turn_are_said() {
    let deep = format!("{}1{}", r#"{"a": "#.repeat(40), "}".repeat(40));
    let call =
        |what: &str| format!(r#"{{"role": "assistant", "content": null, "tool_calls": {what}}}"#);
    let function = |what: &str| call(&format!(r#"[{{"type": "function", "function": {what}}}]"#));
    let many = vec![r#"{"function": {"name": "f"}}"#; 65].join(", ");
    let form = r#"turn 2: a call is {"type": "function", "function": {"name", "arguments"}}"#;
    let schemas = r#"tools is a list of JSON schemas, {"type": "function", "function": {"name", …}}, or the text of one"#;
    let cases: Vec<(String, &str)> = vec![
        (
            line("null", &[QUESTION, &call(r#"{"name": "f"}"#)]),
            "turn 2: tool_calls is a list",
        ),
        (
            line(
                "null",
                &[QUESTION, &call(r#"[{"name": "f", "arguments": {}}]"#)],
            ),
            form,
        ),
        (
            line(
                "null",
                &[
                    QUESTION,
                    &call(r#"[{"type": "code", "function": {"name": "f"}}]"#),
                ],
            ),
            form,
        ),
        (
            line("null", &[QUESTION, &function(r#"{"arguments": {}}"#)]),
            form,
        ),
        (
            line(
                "null",
                &[
                    QUESTION,
                    &function(r#"{"name": "f", "arguments": "{'a': 1}"}"#),
                ],
            ),
            "turn 2: a call's arguments are an object, or the JSON text of one",
        ),
        (
            line(
                "null",
                &[QUESTION, &function(r#"{"name": "f", "arguments": [1]}"#)],
            ),
            "turn 2: a call's arguments are an object, or the JSON text of one",
        ),
        (
            line(
                "null",
                &[
                    QUESTION,
                    &function(&format!(r#"{{"name": "f", "arguments": {deep}}}"#)),
                ],
            ),
            "turn 2: at most 32 lists and objects stand within one another",
        ),
        (
            line("null", &[QUESTION, &call(&format!("[{many}]"))]),
            "turn 2: at most 64 calls of one turn are read",
        ),
        (
            line("null", &[&CALL.replace("assistant", "user"), ANSWER]),
            "turn 1: only the assistant calls tools",
        ),
        (
            line(
                "null",
                &[
                    QUESTION,
                    r#"{"role": "assistant", "content": null, "function_call": {"name": "f"}}"#,
                ],
            ),
            "turn 2: function_call was given up for tool_calls: write a list of one call",
        ),
        (line("7", &[QUESTION, ANSWER]), schemas),
        (
            line(r#"[{"type": "function"}]"#, &[QUESTION, ANSWER]),
            schemas,
        ),
        (line(r#""weather(place)""#, &[QUESTION, ANSWER]), schemas),
        (
            line(
                &format!("[{}]", vec![r#"{"name": "f"}"#; 257].join(", ")),
                &[QUESTION, ANSWER],
            ),
            "at most 256 tools are read",
        ),
        (
            line(
                &format!(r#"[{{"name": "f", "parameters": {deep}}}]"#),
                &[QUESTION, ANSWER],
            ),
            "at most 32 lists and objects stand within one another",
        ),
    ];
    let good = line(TOOLS, &[QUESTION, CALL, RESULT, ANSWER]);
    for (bad, why) in &cases {
        let dataset = open("a.jsonl", format!("{good}\n{bad}\n"));
        let said = format!("1 skipped: tool_calls 1 (line 2, {why})");
        assert_eq!(dataset.skipped().to_string(), said, "{bad}");
        assert_eq!(dataset.len(), 1);
    }
    let bad: Vec<&str> = cases.iter().map(|(bad, _)| bad.as_str()).collect();
    let dataset = open("a.jsonl", format!("{good}\n{}\n", bad.join("\n")));
    assert_eq!(dataset.skipped().count(Reason::ToolCalls), 15);
    let said = dataset.skipped().to_string();
    assert!(
        said.contains("line 2, turn 2: tool_calls is a list; line 3, turn 2: a call is"),
        "{said}"
    );
    assert!(said.ends_with(", …)"), "{said}");
    // Null beside calls alone.
    let silent = line(
        "null",
        &[QUESTION, r#"{"role": "assistant", "content": null}"#],
    );
    let dataset = open("a.jsonl", format!("{good}\n{silent}\n"));
    assert_eq!(dataset.skipped().first_lines(Reason::WrongShape), [2]);
}

#[test]
fn a_template_without_words_for_tools_is_refused_by_what_it_leaves_out() {
    let ignores = |what: &str| WHOLE.replace(what, "");
    let one = WHOLE.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]");
    let second = r#", {"function": {"name": "clock"}}]}"#;
    let calls = format!("{}{second}", CALL.strip_suffix("]}").unwrap());
    let answers = WHOLE.replace(
        "{{ m.role }}:{{ m.content or '' }}",
        "{% if m.role != 'tool' %}{{ m.role }}:{{ m.content or '' }}{% endif %}",
    );
    let cases = [
        (ignores("{{ tool | tojson }}"), CALL, LeftOut::Tools),
        (
            ignores("{{ call.function.name }}"),
            CALL,
            LeftOut::Call { turn: 2 },
        ),
        (one, calls.as_str(), LeftOut::Call { turn: 2 }),
        (answers, CALL, LeftOut::Answer { turn: 3 }),
        // Without a word of calls it stumbles over the turn that says nothing.
        (
            fixture::TEMPLATE.to_owned(),
            CALL,
            LeftOut::Call { turn: 2 },
        ),
    ];
    for (template, call, want) in cases {
        let record = only(&line(TOOLS, &[QUESTION, call, RESULT, ANSWER]));
        let encoder = with_template(&template);
        let question = encoder.question(&record, 8).map(|_| ());
        for refused in [encoder.row(0, &record).map(|_| ()), question] {
            match refused.unwrap_err() {
                ref refusal @ Refusal::Text(Error::LeftOut(ref found)) => {
                    assert_eq!(*found, want, "{template}");
                    assert!(refusal.is_of_this_record());
                    assert_eq!(refusal.name(), "tools_left_out");
                }
                other => panic!("{template}: {other:?}"),
            }
        }
    }
    // The same templates have words for conversations without tools, and the whole one for all.
    let plain = only(&line("null", &[QUESTION, ANSWER]));
    assert!(encoder(512).row(0, &plain).is_ok());
    let encoder = with_template(WHOLE);
    let record = only(&line(TOOLS, &[QUESTION, &calls, RESULT, ANSWER]));
    assert!(encoder.row(0, &plain).is_ok() && encoder.row(0, &record).is_ok());
}

#[test]
fn what_a_template_leaves_out_is_counted_beside_records_that_are_learned() {
    let mixed = [
        line(TOOLS, &[QUESTION, CALL, RESULT, ANSWER]),
        line("null", &[QUESTION, ANSWER]),
    ];
    let dataset = open("a.jsonl", mixed.join("\n"));
    let encoder = encoder(512);
    let mut refusals = Refusals::default();
    let mut learned = 0;
    for (record, read) in dataset.records().enumerate() {
        match encoder.row(record, &read.unwrap()) {
            Ok(_) => learned += 1,
            Err(refusal) => assert!(refusals.add(&[Refused { record, refusal }])),
        }
    }
    assert_eq!((learned, refusals.total()), (1, 1));
    assert_eq!(
        refusals.to_string(),
        "tools_left_out 1 time (record 0; the model's chat template has no words for tools: give its folder a \
         chat_template.jinja that renders them, or write tools and calls as text into the contents)"
    );
}

#[test]
fn turns_that_a_template_rewrites_are_learned_where_they_are_still_whole() {
    // As templates do that keep the thought of the last answer alone.
    let template = "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}\
                    {{ m.content or '' }}{% for call in m.tool_calls or [] %}[{{ call.function.name }}]{% endfor %}<|im_end|>\
                    {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let record = only(&line(
        "null",
        &[QUESTION, CALL, RESULT, ANSWER, QUESTION, ANSWER],
    ));
    let row = with_template(template).row(0, &record).unwrap();
    assert_eq!(
        learned(&row),
        "[weather]<|im_end|>No.<|im_end|><think></think>No.<|im_end|>"
    );
}

#[test]
fn records_apart_by_their_calls_alone_fall_apart_and_others_where_they_fell() {
    let falls = |line: &str| {
        let record = only(line);
        let shares = (1..1000).map(|share| f64::from(share) / 1000.0);
        shares.filter(|share| !is_held_out(&record, *share)).count()
    };
    let with = |tools: &str, call: &str| falls(&line(tools, &[QUESTION, call, RESULT, ANSWER]));
    let known = with(TOOLS, CALL);
    assert_ne!(known, with(TOOLS, &CALL.replace("Bern", "Genf")));
    assert_ne!(known, with(&TOOLS.replace("weather", "clock"), CALL));
    // In Python, as `HELD_OUT` of the other tests, of the texts "user", "a", "assistant", "b".
    let plain = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":1}]}"#;
    assert_eq!(falls(plain), 266);
}

#[test]
fn a_template_of_its_own_for_tools_is_taken_where_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write_folder(folder.path());
    let path = folder.path().join("tokenizer_config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let templates = [
        ("default", fixture::TEMPLATE.to_owned()),
        ("tool_use", format!("\n{WHOLE}\n")),
    ];
    let templates =
        templates.map(|(name, template)| serde_json::json!({ "name": name, "template": template }));
    config["chat_template"] = templates.into_iter().collect();
    std::fs::write(&path, config.to_string()).unwrap();
    let encoder = Encoder::new(
        Tokenizer::from_folder(folder.path()).unwrap(),
        EncodeOptions::new(512),
    )
    .unwrap();
    let row = |encoder: &Encoder, record: &Record| encoder.row(0, record).unwrap();
    let with_tools = shown(&row(&encoder, &whole()));
    assert_eq!(
        with_tools,
        format!("\n{}", shown(&row(&with_template(WHOLE), &whole())))
    );
    let plain = only(&line("null", &[QUESTION, ANSWER]));
    assert_eq!(row(&encoder, &plain), row(&super::encoder(512), &plain));
}

//! What `config.json` of an encoder says of its head: transformers' class of a model with one, and what the classes are called.

use serde_json::{Map, Value, json};

use crate::model::Architecture;

/// Has the configuration tell of a head for so many classes, called by `labels`. Where there are none: as it calls them
/// already, if it names as many, or as transformers calls classes without names.
pub(super) fn tell(
    (config, family): (&mut Map<String, Value>, Architecture),
    classes: usize,
    labels: &[String],
) {
    let names = match labels {
        [] => named(config, classes).unwrap_or_else(|| numbered(classes)),
        given => given.to_vec(),
    };
    let (mut by_number, mut by_name) = (Map::new(), Map::new());
    for (number, name) in (0u64..).zip(&names) {
        by_number.insert(number.to_string(), name.clone().into());
        by_name.insert(name.clone(), number.into());
    }
    for (key, value) in [
        ("architectures", json!([family.facts().class])),
        ("id2label", by_number.into()),
        ("label2id", by_name.into()),
        ("num_labels", names.len().into()),
        // What the head was trained for; transformers has losses for other problems.
        ("problem_type", "single_label_classification".into()),
    ] {
        config.insert(key.to_owned(), value);
    }
}

/// The names that the configuration has, if there are so many.
fn named(config: &Map<String, Value>, classes: usize) -> Option<Vec<String>> {
    let names = config.get("id2label")?.as_object()?;
    if names.len() != classes {
        return None;
    }
    let name = |class: usize| Some(names.get(&class.to_string())?.as_str()?.to_owned());
    (0..classes).map(name).collect()
}

/// What transformers calls classes without names.
fn numbered(classes: usize) -> Vec<String> {
    let name = |class| format!("LABEL_{class}");
    (0..classes).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &Value, labels: &[&str], want: &Value) {
        let mut config = config.as_object().unwrap().clone();
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        tell((&mut config, Architecture::Bert), 2, &labels);
        assert_eq!(config["id2label"], *want, "{labels:?}");
        assert_eq!(config["num_labels"], 2);
        assert_eq!(
            config["architectures"],
            json!(["BertForSequenceClassification"])
        );
        for (class, label) in want.as_object().unwrap() {
            let back = &config["label2id"][label.as_str().unwrap()];
            assert_eq!(back.to_string(), *class);
        }
    }

    #[test]
    fn classes_are_called_as_asked_then_as_before_then_by_number() {
        let own = json!({"id2label": {"0": "no", "1": "yes"}, "architectures": ["BertModel"]});
        let asked = json!({"0": "ham", "1": "spam"});
        check(&own, &["ham", "spam"], &asked);
        check(&own, &[], &own["id2label"]);
        let other = json!({"id2label": {"0": "a", "1": "b", "2": "c"}});
        let numbered = json!({"0": "LABEL_0", "1": "LABEL_1"});
        check(&other, &[], &numbered);
        check(&json!({}), &[], &numbered);
    }
}

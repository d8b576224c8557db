//! The classes of an encoder's head: whose they are, in which order, and where a training leaves them for whoever uses its
//! adapter next.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use domain::adapter::HeadShape;
use domain::job::labels::LABEL_LIMIT;
use engine::adapter::{Adapter, Head};
use engine::data::{CLASS_BYTES, Dataset};
use engine::model::{Config, Model};

/// Beside PEFT's files, which name no classes.
const FILE: &str = "labels.json";

/// The classes that a command works with; none where the model is a decoder. Those that were asked for, those beside the
/// adapter, those that the model names, or those of the records in the order of their text.
pub fn of(
    asked: &[String],
    (model, named): (&Config, Option<Vec<String>>),
    dataset: &Dataset,
    adapter: Option<&Path>,
) -> anyhow::Result<Vec<String>> {
    if !model.architecture.is_encoder() {
        ensure!(
            asked.is_empty(),
            "--label asks for a classification head, which encoders such as BERT have: give one, or leave --label out and \
             compare the model's words with --choice"
        );
        return Ok(Vec::new());
    }
    let labels = match (asked, kept(adapter)?) {
        ([], Some(kept)) => kept,
        ([], None) => match named.or_else(|| Some(dataset.classes()?.to_vec())) {
            Some(classes) => classes,
            None => bail!(
                "the records have no labels, more than {LABEL_LIMIT}, or one of more than {CLASS_BYTES} bytes: give --label \
                 for each class"
            ),
        },
        (asked, _) => asked.to_vec(),
    };
    let distinct: BTreeSet<&String> = labels.iter().collect();
    ensure!(
        labels.len() > 1 && distinct.len() == labels.len(),
        "a classification head tells two or more different labels apart: give --label for each class"
    );
    Ok(labels)
}

/// What the configuration in a model's folder calls the classes of a head, as transformers has it: if it names as many, and any
/// of the records' labels is among them. Names that nobody chose (`LABEL_0`) are none of them.
pub fn named(model: &Path, head: Option<&Head>, dataset: &Dataset) -> Option<Vec<String>> {
    let classes = head?.shape().classes;
    let text = std::fs::read(model.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let names = config.get("id2label")?.as_object()?;
    let name = |class: usize| Some(names.get(&class.to_string())?.as_str()?.to_owned());
    let found: Vec<String> = (0..classes).map(name).collect::<Option<_>>()?;
    let known = dataset.classes();
    let used = known.is_none_or(|labels| labels.iter().any(|label| found.contains(label)));
    (used && names.len() == classes).then_some(found)
}

/// Leaves the classes beside an adapter; where it has none, those of an older adapter in that folder do not stay. A file of that
/// name that is no list of labels is not this program's, and stays.
pub fn keep(folder: &Path, labels: &[String]) -> anyhow::Result<()> {
    let path = folder.join(FILE);
    if labels.is_empty() {
        if !matches!(kept(Some(folder)), Ok(Some(_))) {
            return Ok(());
        }
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        };
    }
    std::fs::write(&path, serde_json::to_vec(labels)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The classes that were left beside an adapter.
pub fn kept(folder: Option<&Path>) -> anyhow::Result<Option<Vec<String>>> {
    let Some(path) = folder.map(|folder| folder.join(FILE)) else {
        return Ok(None);
    };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} is no list of labels", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// An adapter as training begins with it: with the head that it has, that its model has for as many classes, or an untrained
/// one.
pub fn begun(
    start: Adapter,
    model: &Model,
    labels: &[String],
    seed: u64,
) -> anyhow::Result<Adapter> {
    let encoder = model.config().architecture.encoder();
    let shape =
        encoder.and_then(|encoder| HeadShape::over(encoder, &model.weights(), labels.len()));
    let Some(shape) = shape else {
        return Ok(start);
    };
    if start.head().is_some() {
        fits(start.head(), labels)?;
        return Ok(start);
    }
    let own = model.head().filter(|head| head.shape() == shape).cloned();
    let head = match own {
        Some(head) => head,
        None => Head::fresh(shape, seed)?,
    };
    Ok(start.with_head(Some(head)))
}

/// Whether a head tells as many classes apart as there are labels.
pub fn fits(head: Option<&Head>, labels: &[String]) -> anyhow::Result<()> {
    if let Some(head) = head {
        let classes = head.shape().classes;
        ensure!(
            classes == labels.len(),
            "the classification head has {classes} classes and there are {} labels: give --label for each of its classes, in \
             its order",
            labels.len()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::data::Format;

    use super::*;

    #[test]
    fn why_records_have_no_classes_is_told_where_a_label_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("records.jsonl");
        let record = |label: &str| format!("{{\"text\":\"a\",\"label\":\"{label}\"}}\n");
        let long = "x".repeat(CLASS_BYTES + 1);
        std::fs::write(&data, record("ham") + &record(&long)).unwrap();
        let dataset = Dataset::open(&data, Format::Auto).unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let encoder = here.join("../../libs/engine/tests/reference/encoder");
        let model = Model::inspect(&encoder).unwrap().config;
        let refused = of(&[], (&model, None), &dataset, None).unwrap_err();
        assert!(refused.to_string().contains("256 bytes"), "{refused}");
        let asked = ["ham".to_owned(), long];
        let labels = of(&asked, (&model, None), &dataset, None).unwrap();
        assert_eq!(labels, asked);
    }

    #[test]
    fn an_older_adapters_labels_do_not_stay_beside_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let there = || kept(Some(folder.path())).unwrap();
        keep(folder.path(), &[]).unwrap();
        assert_eq!(there(), None);
        let labels = ["a", "b"].map(str::to_owned);
        keep(folder.path(), &labels).unwrap();
        assert_eq!(there(), Some(labels.to_vec()));
        keep(folder.path(), &[]).unwrap();
        assert_eq!(there(), None);
    }

    #[test]
    fn a_file_of_that_name_that_is_none_of_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for text in [r#"{"0": "a", "1": "b"}"#, "[1, 2]", "not JSON", ""] {
            std::fs::write(&path, text).unwrap();
            keep(folder.path(), &[]).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}

//! The site's data sets: opened once, described to the fleet by counts alone.
//!
//! No path, text or token of a record leaves this module in an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use domain::cause::Trouble;
use domain::fleet::DatasetSummary;
use domain::id::DatasetName;
use engine::data::{Dataset, EncodeOptions, Encoder, Error, Verbalizer};
use engine::text::Tokenizer;

use crate::config::Files;
use crate::failure::{Failure, explain};

/// All data sets of the site.
#[derive(Debug)]
pub struct Data {
    files: BTreeMap<DatasetName, Files>,
    open: Mutex<BTreeMap<DatasetName, Arc<Opened>>>,
}

/// One open data set.
#[derive(Debug)]
pub struct Opened {
    name: DatasetName,
    files: Files,
    /// Records to train on.
    pub train: Dataset,
    /// Records to score on.
    pub held_out: Option<Dataset>,
}

impl Data {
    /// The data sets of a configuration; nothing is opened yet.
    #[must_use]
    pub fn new(files: BTreeMap<DatasetName, Files>) -> Self {
        let open = Mutex::default();
        Self { files, open }
    }

    /// An open data set; opened unless it is. Reads the whole files then: not for async code.
    ///
    /// # Errors
    /// If the site has no such data set, or its files hold no usable record.
    pub fn get(&self, name: &DatasetName) -> Result<Arc<Opened>, Failure> {
        let known = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.get(name).cloned()
        };
        match known {
            Some(opened) => Ok(opened),
            None => self.reopen(name),
        }
    }

    /// Opens a data set anew, so that what was added to its files counts. Not for async code.
    ///
    /// # Errors
    /// As [`Data::get`].
    pub fn reopen(&self, name: &DatasetName) -> Result<Arc<Opened>, Failure> {
        let files = self.files.get(name).ok_or_else(|| {
            Failure::new(
                Trouble::DataUnusable,
                format!("there is no data set {name}"),
            )
        })?;
        let open = |path: &Path, which| {
            Dataset::open(path, files.format).map_err(|error| trouble(name, which, &error))
        };
        let opened = Arc::new(Opened {
            name: name.clone(),
            files: files.clone(),
            train: open(&files.train, "training")?,
            held_out: match &files.held_out {
                Some(path) => Some(open(path, "held-out")?),
                None => None,
            },
        });
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.clone(), Arc::clone(&opened));
        Ok(opened)
    }

    /// Counts of every data set. One that cannot be used counts nothing, and the log says why.
    #[must_use]
    pub fn summaries(&self) -> BTreeMap<DatasetName, DatasetSummary> {
        let summary = |name: &DatasetName| match self.get(name) {
            Ok(opened) => opened.summary(),
            Err(error) => {
                tracing::error!(dataset = %name, %error, "data set is unusable");
                DatasetSummary {
                    records: 0,
                    held_out: 0,
                    skipped: 0,
                }
            }
        };
        self.files
            .keys()
            .map(|name| (name.clone(), summary(name)))
            .collect()
    }
}

impl Opened {
    /// Counts of the data set.
    #[must_use]
    pub fn summary(&self) -> DatasetSummary {
        let held_out = self.held_out.as_ref();
        let held_skipped = held_out.map_or(0, |data| data.skipped().total());
        DatasetSummary {
            records: self.train.len() as u64,
            held_out: held_out.map_or(0, Dataset::len) as u64,
            skipped: self.train.skipped().total() + held_skipped,
        }
    }

    /// An encoder of this data set for a model: for classes if there are labels, for a loss among answers if these are given.
    ///
    /// # Errors
    /// If the sequence is too short to learn from.
    pub fn encoder(
        &self,
        tokenizer: &Tokenizer,
        sequence_length: u32,
        (labels, among): (&[String], &[String]),
    ) -> Result<Encoder, Failure> {
        let files = &self.files;
        let verbalizer = (!files.labels.is_empty()).then(|| Verbalizer {
            suffix: files.question.clone(),
            completions: files.labels.clone(),
        });
        let options = EncodeOptions {
            loss_on: files.loss_on,
            truncate: files.truncate,
            verbalizer,
            labels: labels.to_vec(),
            among: among.to_vec(),
            ..EncodeOptions::new(sequence_length as usize)
        };
        Encoder::new(tokenizer.clone(), options)
            .map_err(|refusal| Failure::of(Trouble::PlanUnsupported, &refusal))
    }

    /// What an error of this data set's training records means to the fleet.
    #[must_use]
    pub fn trouble(&self, error: &Error) -> Failure {
        trouble(&self.name, "training", error)
    }
}

/// What an error of a data set means to the fleet: never its path, never its content.
fn trouble(name: &DatasetName, which: &str, error: &Error) -> Failure {
    let reason = match error {
        Error::Read { source, .. } => format!("the file cannot be read: {source}"),
        Error::Unsupported { found, .. } => format!("the file is {found}"),
        Error::NoRecords { skipped, .. } => format!("no record can be read ({skipped})"),
        Error::TooManyRecords { .. } => "there are too many records".to_owned(),
        other => explain(other),
    };
    Failure::new(
        Trouble::DataUnusable,
        format!("{which} records of {name}: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(train: &Path, held_out: Option<&Path>) -> (Data, DatasetName) {
        let name: DatasetName = "mail".parse().unwrap();
        let text = format!("train = {train:?}\n");
        let mut files: Files = toml_files(&text);
        files.held_out = held_out.map(Path::to_owned);
        (Data::new([(name.clone(), files)].into()), name)
    }

    fn toml_files(text: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        std::fs::write(&path, format!("name = \"a\"\n[datasets.mail]\n{text}")).unwrap();
        let config: crate::Config = chassis::config::load_from(Some(&path), [], &()).unwrap();
        config.datasets.into_values().next().unwrap()
    }

    #[test]
    fn unreadable_lines_are_counted_and_files_are_opened_again_on_demand() {
        let folder = tempfile::tempdir().unwrap();
        let train = folder.path().join("train.jsonl");
        let line = "{\"prompt\":\"a\",\"completion\":\"b\"}\n";
        std::fs::write(&train, format!("{line}not json\n{line}")).unwrap();
        let (data, name) = data(&train, Some(&train));
        let summary = data.summaries().remove(&name).unwrap();
        assert_eq!(
            (summary.records, summary.held_out, summary.skipped),
            (2, 2, 2)
        );
        std::fs::write(&train, line.repeat(5)).unwrap();
        assert_eq!(data.get(&name).unwrap().summary().records, 2);
        assert_eq!(data.reopen(&name).unwrap().summary().records, 5);
    }

    #[test]
    fn an_unusable_data_set_names_neither_path_nor_content() {
        let folder = tempfile::tempdir().unwrap();
        let train = folder.path().join("secret-name.jsonl");
        let check = |content: Option<&str>| {
            match content {
                Some(content) => std::fs::write(&train, content).unwrap(),
                None => drop(std::fs::remove_file(&train)),
            }
            let (data, name) = data(&train, None);
            let Err(Failure::Site { trouble, detail }) = data.get(&name).map(drop) else {
                panic!("{content:?} is not refused");
            };
            assert_eq!(trouble, Trouble::DataUnusable);
            assert!(!detail.contains("secret"), "{detail}");
            assert_eq!(data.summaries().remove(&name).unwrap().records, 0);
        };
        check(None);
        check(Some(""));
        check(Some("secret\n{broken\n"));
        check(Some("{\"prompt\":\"secret\"}\n"));
    }

    #[test]
    fn a_data_set_that_is_not_there_is_named() {
        let (data, _) = data(Path::new("/none"), None);
        let other: DatasetName = "other".parse().unwrap();
        let error = data.get(&other).map(drop).unwrap_err().to_string();
        assert!(error.contains("other"), "{error}");
    }
}

//! `fedpipe train --preview`: records as the model reads them, before anything is trained.

use engine::data::{Dataset, Encoder, Preview};
use serde_json::{Value, json};

use super::Args;
use crate::output;

impl Args {
    /// What is said where no batch can be made.
    pub(super) fn unlearnable(&self) -> String {
        format!(
            "no batch can be made of {}; --preview shows its records, and why one cannot be learned",
            self.data.data.display()
        )
    }

    /// Shows the first records of the file, those that cannot be learned with why.
    pub(super) fn show(
        &self,
        count: usize,
        dataset: &Dataset,
        encoder: &Encoder,
    ) -> anyhow::Result<()> {
        let mut shown = Vec::new();
        for record in 0..dataset.len().min(count) {
            let line = dataset.line(record)?;
            let row = encoder.row(record, &dataset.record(record)?);
            let preview = row.and_then(|row| encoder.preview(&row));
            let preview = preview.map_err(|refusal| {
                let name = refusal.name();
                (name, format!("{:#}", anyhow::Error::new(refusal)))
            });
            if !self.json {
                let head = format!("record {record} ({} line {line})", self.data.data.display());
                output::line(match &preview {
                    Ok(preview) => format!("{head}\n{}\n{preview}\n", preview.text),
                    Err((name, why)) => format!("{head}\ncannot be learned: {name}: {why}\n"),
                })?;
            }
            shown.push(match preview {
                Ok(preview) => value(record, line, &preview),
                Err((name, why)) => {
                    json!({ "record": record, "line": line, "refused": name, "why": why })
                }
            });
        }
        if self.json {
            output::json(&shown)
        } else {
            Ok(())
        }
    }
}

fn value(record: usize, line: u64, preview: &Preview) -> Value {
    let tokens: Vec<Value> = (preview.pieces.iter())
        .map(|piece| json!({ "id": piece.token, "text": piece.text, "loss": piece.labelled }))
        .collect();
    let mut value =
        json!({ "record": record, "line": line, "text": preview.text, "tokens": tokens });
    if let (Some(class), Some(fields)) = (&preview.class, value.as_object_mut()) {
        fields.insert("class".to_owned(), class.as_str().into());
    }
    value
}

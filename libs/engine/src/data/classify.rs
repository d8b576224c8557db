//! A labelled text as an encoder reads it: its tokens within the model's first and last token, and the class of the whole.

use super::encode::Encoder;
use super::record::choose;
use super::{Record, Refusal, Row, Truncate};

impl Encoder {
    /// Whether records become classes rather than words.
    #[must_use]
    pub fn classifies(&self) -> bool {
        !self.options.labels.is_empty()
    }

    /// The row of a record with one of the labels. A text that is too long loses its end, as in transformers, or with
    /// [`Truncate::Front`] its beginning.
    pub(super) fn classified(&self, number: usize, record: &Record) -> Result<Row, Refusal> {
        let Record::Label { text, label } = record else {
            return Err(Refusal::NotLabelled);
        };
        let class = choose(label, &self.options.labels).ok_or(Refusal::OtherLabel)?;
        let class = u32::try_from(class).map_err(|_| Refusal::OtherLabel)?;
        let first = self.tokenizer.bos().ok_or(Refusal::NoClassToken)?;
        let sequence_length = self.options.sequence_length;
        let room = sequence_length.saturating_sub(2);
        let mut text = self.tokenizer.encode(text)?;
        match self.options.truncate {
            Truncate::Middle { .. } => text.truncate(room),
            Truncate::Front => drop(text.drain(..text.len().saturating_sub(room))),
            Truncate::Refuse if text.len() > room => {
                let tokens = text.len() + 2;
                return Err(Refusal::TooLong {
                    tokens,
                    sequence_length,
                });
            }
            Truncate::Refuse => {}
        }
        let last = self.tokenizer.eos();
        let tokens: Vec<u32> = [first].into_iter().chain(text).chain([last]).collect();
        Ok(Row {
            labelled: vec![false; tokens.len()],
            tokens,
            class: Some(class.into()),
            record: number,
        })
    }
}

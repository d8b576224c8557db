//! Why a readable record does not become a row.

use crate::text;

/// Why a record cannot be encoded under the given options.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The answer, with the token before it, exceeds the sequence; an answer is never cut.
    #[error("the answer of {answer} tokens does not fit a sequence of {sequence_length}")]
    AnswerTooLong {
        /// Tokens of the answer, its end included.
        answer: usize,
        /// The limit.
        sequence_length: usize,
    },
    /// The record exceeds the sequence and the options forbid cutting.
    #[error("{tokens} tokens do not fit a sequence of {sequence_length}")]
    TooLong {
        /// Tokens of the whole record.
        tokens: usize,
        /// The limit.
        sequence_length: usize,
    },
    /// No token has both a label and a predecessor.
    #[error("the record has no token to learn")]
    NothingToLearn,
    /// The verbalizer has no completion for the record's label.
    #[error("the record's label has no completion")]
    UnknownLabel,
    /// Records with labels need to be told how a label is said.
    #[error(
        "records of text and label need words for a decoder to answer with: a site's data set has them as `question` and \
         `labels`, on the command line write records of prompt and completion"
    )]
    NoVerbalizer,
    /// Classes are learned from labelled records alone.
    #[error("a classification head learns from records of {{\"text\", \"label\"}} alone")]
    NotLabelled,
    /// The record's label is none of those that the head tells apart.
    #[error("the record's label is none of the head's")]
    OtherLabel,
    /// The model's tokenizer has no first token that classes could be read off.
    #[error("the model's tokenizer names no cls_token, which an encoder's texts begin with")]
    NoClassToken,
    /// Choices were asked of a record that has no single answer.
    #[error("only prompt/completion and labelled records have choices")]
    NoChoices,
    /// The record's answer is none of the choices.
    #[error("the record's answer is none of the choices")]
    OtherAnswer,
    /// An answer that a loss cannot be among others for.
    #[error(
        "the choice {choice:?} is {} the model's: a loss among choices needs a single one of its own for each; give short words with the \
         blank before them, such as \" yes\" (without it where the tokenizer puts one there by itself), or leave the choices out",
        if *.tokens == 0 { "the same token as another, of".to_owned() } else { format!("{tokens} tokens of") }
    )]
    Choice {
        /// The answer.
        choice: String,
        /// Tokens that it is; 0 where it is another's.
        tokens: usize,
    },
    /// A sequence that leaves no room to learn.
    #[error("a sequence of {sequence_length} tokens is too short")]
    SequenceTooShort {
        /// The limit.
        sequence_length: usize,
    },
    /// The tokenizer or the chat template refuses.
    #[error("the text cannot be encoded")]
    Text(#[from] text::Error),
}

impl Refusal {
    /// Whether another record may do better. Otherwise the options are wrong for all.
    #[must_use]
    pub fn is_of_this_record(&self) -> bool {
        match self {
            Self::AnswerTooLong { .. }
            | Self::TooLong { .. }
            | Self::NothingToLearn
            | Self::UnknownLabel
            | Self::OtherAnswer
            | Self::OtherLabel => true,
            Self::Text(error) => {
                use text::Error::{Encode, LeftOut, Render, Turn};
                matches!(error, Encode(_) | LeftOut(_) | Render(_) | Turn { .. })
            }
            Self::NotLabelled | Self::NoClassToken | Self::Choice { .. } => false,
            Self::NoVerbalizer | Self::NoChoices | Self::SequenceTooShort { .. } => false,
        }
    }

    /// The reason in a word, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AnswerTooLong { .. } => "answer_too_long",
            Self::TooLong { .. } => "too_long",
            Self::NothingToLearn => "nothing_to_learn",
            Self::UnknownLabel => "unknown_label",
            Self::NoVerbalizer => "no_verbalizer",
            Self::NotLabelled => "not_labelled",
            Self::OtherLabel => "other_label",
            Self::NoClassToken => "no_class_token",
            Self::NoChoices => "no_choices",
            Self::Choice { .. } => "choice",
            Self::OtherAnswer => "other_answer",
            Self::SequenceTooShort { .. } => "sequence_too_short",
            Self::Text(text::Error::LeftOut(_)) => "tools_left_out",
            Self::Text(_) => "text",
        }
    }

    /// What to do about it, where the reason's word does not say it.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Text(text::Error::LeftOut(_)) => Some(
                "the model's chat template has no words for tools: give its folder a chat_template.jinja that renders them, or write tools and calls as text into the contents",
            ),
            _ => None,
        }
    }
}

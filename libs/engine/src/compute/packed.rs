//! A batch without padding: its rows one after another.

use std::sync::Arc;

use crate::compute::Error;
use crate::data::{Batch, Class, Row};
use crate::model::Config;
use crate::ops::dropout::Dropout;

/// Rows one after another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    pub(crate) tokens: Vec<u32>,
    /// Position of each token in its row.
    pub(crate) positions: Vec<usize>,
    /// Where each row begins, and after them the number of tokens.
    pub(crate) bounds: Vec<usize>,
    /// What is to be predicted.
    pub(crate) targets: Vec<Target>,
    /// The tokens that a decoder's targets are among; empty: all.
    pub(crate) among: Arc<[u32]>,
    /// What the adapter's inputs leave out in this pass.
    pub(crate) dropout: Option<Dropout>,
}

/// A labelled token, or the class of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Index of the row in the batch.
    pub(crate) row: usize,
    /// Flat index of the token before it, whose output predicts it.
    pub(crate) position: usize,
    /// Its id; of a class, its number.
    pub(crate) token: u32,
}

impl Packed {
    /// Packs a batch; a row's first token has nothing before it and is never a target.
    pub(crate) fn new(batch: &Batch, config: &Config) -> Result<Self, Error> {
        let mut packed = Self {
            bounds: vec![0],
            ..Self::default()
        };
        for (
            row,
            Row {
                tokens,
                labelled,
                class,
                ..
            },
        ) in batch.rows.iter().enumerate()
        {
            if labelled.len() != tokens.len() {
                return Err(Error::Row {
                    row,
                    tokens: tokens.len(),
                    labels: labelled.len(),
                });
            }
            let start = packed.push(row, tokens, config)?;
            if let Some(class) = class {
                packed.choose(row, (start, tokens.len()), class, config.vocabulary)?;
            }
            let wanted = tokens
                .iter()
                .zip(labelled)
                .enumerate()
                .skip(1)
                .filter(|(_, (_, labelled))| **labelled);
            packed.targets.extend(wanted.map(|(i, (token, _))| Target {
                row,
                position: start + i - 1,
                token: *token,
            }));
        }
        Ok(packed)
    }

    /// An encoder's class is read off the row's first token, a decoder's follows the last.
    fn choose(
        &mut self,
        row: usize,
        (start, tokens): (usize, usize),
        class: &Class,
        vocabulary: usize,
    ) -> Result<(), Error> {
        let Class { number, words } = class;
        if let Some(token) = words.iter().find(|word| **word as usize >= vocabulary) {
            return Err(Error::Token {
                row,
                token: *token,
                vocabulary,
            });
        }
        if !words.is_empty() && *number as usize >= words.len() {
            return Err(Error::Class {
                row,
                class: *number,
                classes: words.len(),
            });
        }
        let behind = if words.is_empty() { 1 } else { tokens };
        self.targets.push(Target {
            row,
            position: start + behind - 1,
            token: *number,
        });
        self.among = Arc::clone(words);
        Ok(())
    }

    /// Packs rows without targets.
    pub(crate) fn unlabelled(rows: &[&[u32]], config: &Config) -> Result<Self, Error> {
        let mut packed = Self {
            bounds: vec![0],
            ..Self::default()
        };
        for (row, tokens) in rows.iter().enumerate() {
            packed.push(row, tokens, config)?;
        }
        Ok(packed)
    }

    fn push(&mut self, row: usize, tokens: &[u32], config: &Config) -> Result<usize, Error> {
        let Config {
            vocabulary,
            context,
            ..
        } = *config;
        if tokens.is_empty() {
            return Err(Error::Row {
                row,
                tokens: 0,
                labels: 0,
            });
        }
        if tokens.len() > context {
            return Err(Error::TooLong {
                row,
                tokens: tokens.len(),
                context,
            });
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Error::Token {
                row,
                token: *token,
                vocabulary,
            });
        }
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(0..tokens.len());
        self.bounds.push(self.tokens.len());
        Ok(start)
    }

    /// The same rows so many times, one copy after the other.
    pub(crate) fn repeated(&self, copies: usize) -> Self {
        let (tokens, rows) = (self.tokens.len(), self.bounds.len().saturating_sub(1));
        let mut bounds: Vec<usize> = vec![0];
        let mut targets = Vec::with_capacity(copies * self.targets.len());
        for copy in 0..copies {
            bounds.extend(self.bounds.iter().skip(1).map(|end| copy * tokens + end));
            targets.extend(self.targets.iter().map(|target| Target {
                row: copy * rows + target.row,
                position: copy * tokens + target.position,
                token: target.token,
            }));
        }
        Self {
            tokens: self.tokens.repeat(copies),
            positions: self.positions.repeat(copies),
            bounds,
            targets,
            among: Arc::clone(&self.among),
            dropout: self.dropout,
        }
    }

    /// Where each target is predicted.
    pub(crate) fn target_positions(&self) -> Vec<usize> {
        self.targets.iter().map(|target| target.position).collect()
    }

    /// Length of the longest row.
    pub(crate) fn longest(&self) -> usize {
        self.positions.iter().max().map_or(0, |last| last + 1)
    }
}

//! A file as blocks of lines, one at a time and of bounded size.
//!
//! Where a block ends depends only on the bytes from its beginning on: read again from its offset,
//! it is the same block.

use std::io::{self, BufRead, Read};

/// Plain text is cut behind the line that fills this many bytes (about 500 tokens).
const PLAIN_BYTES: usize = 2048;

/// What makes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One line.
    Line,
    /// Whole lines until [`PLAIN_BYTES`] are full.
    Piece,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset of its first byte.
    pub(super) offset: u64,
    /// Number of its first line, from 1.
    pub(super) line: u64,
    /// It holds a line beyond the limit; that line was passed over.
    pub(super) too_long: bool,
}

/// Reads blocks in their order.
pub(super) struct Blocks<R> {
    reader: R,
    kind: Kind,
    limit: usize,
    offset: u64,
    line: u64,
    /// A line beyond the limit that ended a piece, to be told next.
    pending: Option<Place>,
}

impl<R: BufRead> Blocks<R> {
    /// `limit`: the longest line in bytes, without its line end.
    pub(super) fn new(reader: R, kind: Kind, limit: usize) -> Self {
        Self {
            reader,
            kind,
            limit,
            offset: 0,
            line: 1,
            pending: None,
        }
    }

    /// Offset behind the last block.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next block's bytes, into `block`; `None` at the end.
    pub(super) fn next(&mut self, block: &mut Vec<u8>) -> io::Result<Option<Place>> {
        block.clear();
        if let Some(place) = self.pending.take() {
            return Ok(Some(place));
        }
        let mut first: Option<Place> = None;
        loop {
            let before = block.len();
            let Some(place) = self.next_line(block)? else {
                return Ok(first);
            };
            let began = *first.get_or_insert(place);
            if place.too_long {
                block.truncate(before);
                if before > 0 {
                    self.pending = Some(place);
                }
                return Ok(Some(began));
            }
            if self.kind == Kind::Line || block.len() >= PLAIN_BYTES {
                return Ok(Some(began));
            }
        }
    }

    /// Appends a line with its end.
    fn next_line(&mut self, block: &mut Vec<u8>) -> io::Result<Option<Place>> {
        let most = u64::try_from(self.limit)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let mut read = (&mut self.reader).take(most).read_until(b'\n', block)?;
        if read == 0 {
            return Ok(None);
        }
        let too_long = read > self.limit && block.last() != Some(&b'\n');
        if too_long {
            read += self.reader.skip_until(b'\n')?;
        }
        let place = Place {
            offset: self.offset,
            line: self.line,
            too_long,
        };
        self.offset += u64::try_from(read).unwrap_or(u64::MAX);
        self.line += 1;
        Ok(Some(place))
    }
}

//! A file of records: indexed once, then read record by record.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use domain::job::labels::LABEL_LIMIT;

use super::blocks::{Blocks, Kind};
use super::offsets::Offsets;
use super::{Error, Format, Reason, Record, Shape, Skipped};

/// Prompts with more distinct completions than this have no classes: a few short answers are choices, many are texts that
/// happen to repeat.
pub(super) const COMPLETION_LIMIT: usize = 8;
/// A completion or label longer than this is no class.
pub const CLASS_BYTES: usize = 256;
/// Buffer of the one pass over the file.
const SCAN_BYTES: usize = 1 << 18;
/// Buffer for reading one record.
const RECORD_BYTES: usize = 1 << 12;
/// How often progress is told.
const PROGRESS_BYTES: u64 = 16 << 20;
/// Bytes that are read at once to count lines.
const LINES_BYTES: usize = 1 << 20;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// What the file holds.
    pub format: Format,
    /// The longest line that is read, in bytes.
    pub line_limit_bytes: usize,
}

/// An open file of records. Holds 4 bytes per record (5 with classes), not the records.
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    file: File,
    shape: Shape,
    line_limit: usize,
    offsets: Offsets,
    classes: Option<Classes>,
    skipped: Skipped,
    bytes: u64,
}

/// The few distinct completions or labels of all records.
#[derive(Debug, Default)]
struct Classes {
    /// In the order of their text.
    names: Vec<String>,
    /// Of each record.
    of: Vec<u8>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            line_limit_bytes: 1 << 20,
        }
    }
}

impl Dataset {
    /// Opens a file with lines of at most 1 MiB.
    ///
    /// # Errors
    /// An unreadable file, one that is neither JSON lines nor text, or one without any readable
    /// record.
    pub fn open(path: &Path, format: Format) -> Result<Self, Error> {
        let options = OpenOptions {
            format,
            ..OpenOptions::default()
        };
        Self::open_with(path, options, &mut |_| {})
    }

    /// Opens a file, telling the bytes read so far about every 16 MiB: the whole file is read once.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(
        path: &Path,
        options: OpenOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let start = beginning(&file).map_err(failed)?;
        if let Some(found) = foreign(path, &start, options.format) {
            let path = path.to_owned();
            return Err(Error::Unsupported { path, found });
        }
        let plain = options.format == Format::Auto && !is_jsonl(path, &start);
        let known = if plain {
            Some(Shape::Plain)
        } else {
            options.format.shape()
        };

        let mut scan = Scan::new(known);
        scan.run(&file, options.line_limit_bytes, progress)
            .map_err(failed)?;
        let path = path.to_owned();
        if u32::try_from(scan.offsets.len()).is_err() {
            return Err(Error::TooManyRecords { path });
        }
        let (Some(shape), false) = (scan.shape, scan.offsets.is_empty()) else {
            let skipped = scan.skipped;
            return Err(Error::NoRecords { path, skipped });
        };
        scan.offsets.shrink_to_fit();
        Ok(Self {
            path,
            file,
            shape,
            line_limit: options.line_limit_bytes,
            offsets: scan.offsets,
            classes: scan.classes.and_then(Classes::in_order),
            skipped: scan.skipped,
            bytes: scan.bytes,
        })
    }

    /// Number of readable records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none; an open data set always has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Size of the file when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the records look like.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What was skipped.
    #[must_use]
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Reads a record.
    ///
    /// # Errors
    /// A number beyond the end, an unreadable file, or a file that was changed.
    pub fn record(&self, record: usize) -> Result<Record, Error> {
        let offset = self.offsets.get(record).ok_or(Error::NoSuchRecord {
            record,
            records: self.len(),
        })?;
        let reader = At {
            file: &self.file,
            offset,
        };
        let reader = BufReader::with_capacity(RECORD_BYTES, reader);
        let mut blocks = Blocks::new(reader, kind(Some(self.shape)), self.line_limit);
        let mut block = Vec::new();
        blocks.next(&mut block).map_err(|source| Error::Read {
            path: self.path.clone(),
            source,
        })?;
        let read = Record::read(&block, Some(self.shape));
        read.map(|(record, _)| record)
            .map_err(|_| Error::Changed { record })
    }

    /// The number, from 1, of the file's line that a record begins at. It is found by reading up to there: for
    /// people, when something is wrong.
    ///
    /// # Errors
    /// A number beyond the end, or an unreadable file.
    pub fn line(&self, record: usize) -> Result<u64, Error> {
        let offset = self.offsets.get(record).ok_or(Error::NoSuchRecord {
            record,
            records: self.len(),
        })?;
        let unreadable = |source| Error::Read {
            path: self.path.clone(),
            source,
        };
        let file = &self.file;
        let mut before = BufReader::with_capacity(LINES_BYTES, At { file, offset: 0 }.take(offset));
        let mut line = 1;
        loop {
            let piece = before.fill_buf().map_err(unreadable)?;
            if piece.is_empty() {
                return Ok(line);
            }
            let ends = piece.iter().filter(|byte| **byte == b'\n').count();
            line += u64::try_from(ends).unwrap_or(0);
            let seen = piece.len();
            before.consume(seen);
        }
    }

    /// All records in file order, read one at a time.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, Error>> + '_ {
        (0..self.len()).map(|record| self.record(record))
    }

    /// The distinct labels in the order of their text, where there are at most as many as a job may have
    /// ([`LABEL_LIMIT`]); of prompts the distinct completions, where there are at most 8.
    #[must_use]
    pub fn classes(&self) -> Option<&[String]> {
        self.classes
            .as_ref()
            .map(|classes| classes.names.as_slice())
    }

    /// The place of a record's completion within [`Dataset::classes`].
    #[must_use]
    pub fn class_of(&self, record: usize) -> Option<usize> {
        let class = self.classes.as_ref()?.of.get(record)?;
        Some(usize::from(*class))
    }
}

/// The one pass over the file.
struct Scan {
    shape: Option<Shape>,
    offsets: Offsets,
    classes: Option<Classes>,
    skipped: Skipped,
    bytes: u64,
}

impl Scan {
    fn new(shape: Option<Shape>) -> Self {
        Self {
            shape,
            offsets: Offsets::default(),
            classes: Some(Classes::default()),
            skipped: Skipped::default(),
            bytes: 0,
        }
    }

    fn run(&mut self, file: &File, limit: usize, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let reader = BufReader::with_capacity(SCAN_BYTES, At { file, offset: 0 });
        let mut blocks = Blocks::new(reader, kind(self.shape), limit);
        let mut block = Vec::new();
        let mut told = 0;
        while let Some(place) = blocks.next(&mut block)? {
            // A piece of plain text before a line beyond the limit is still a record.
            let read = if place.too_long && block.is_empty() {
                Err(Reason::TooLong.into())
            } else {
                Record::read(&block, self.shape)
            };
            match read {
                Ok((record, shape)) => {
                    self.shape = Some(shape);
                    self.offsets.push(place.offset);
                    let class = record.class();
                    let most = class_limit(shape);
                    let classes = self.classes.take();
                    self.classes = classes.and_then(|classes| classes.with(class?, most));
                }
                Err(unread) => self.skipped.add(unread, place.line),
            }
            self.bytes = blocks.offset();
            if self.bytes - told >= PROGRESS_BYTES {
                told = self.bytes;
                progress(told);
            }
        }
        progress(self.bytes);
        Ok(())
    }
}

impl Classes {
    /// With one more record; `None` once there are more classes than this.
    fn with(mut self, class: &str, most: usize) -> Option<Self> {
        let known = self.names.iter().position(|name| name == class);
        let class = match known {
            Some(class) => class,
            None if self.names.len() < most && class.len() <= CLASS_BYTES => {
                self.names.push(class.to_owned());
                self.names.len() - 1
            }
            None => return None,
        };
        self.of.push(u8::try_from(class).ok()?);
        Some(self)
    }

    /// Classes numbered by their text, so that the order of the file does not matter.
    fn in_order(mut self) -> Option<Self> {
        let mut names = self.names.clone();
        names.sort_unstable();
        let place = |name: &String| {
            let place = names.iter().position(|other| other == name)?;
            u8::try_from(place).ok()
        };
        let renumbered: Vec<u8> = self.names.iter().map(place).collect::<Option<_>>()?;
        for class in &mut self.of {
            *class = *renumbered.get(usize::from(*class))?;
        }
        self.of.shrink_to_fit();
        let of = self.of;
        Some(Self { names, of })
    }
}

/// Reads a shared file from an offset on, without a cursor of its own.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

/// How many classes records of a shape may have. A label is there to tell classes apart, however many they are.
fn class_limit(shape: Shape) -> usize {
    match shape {
        Shape::Label => LABEL_LIMIT,
        _ => COMPLETION_LIMIT,
    }
}

fn kind(shape: Option<Shape>) -> Kind {
    match shape {
        Some(Shape::Plain) => Kind::Piece,
        _ => Kind::Line,
    }
}

fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    At { file, offset: 0 }.take(512).read_to_end(&mut start)?;
    Ok(start)
}

fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

fn is_jsonl(path: &Path, start: &[u8]) -> bool {
    match extension(path).as_str() {
        "jsonl" | "ndjson" | "json" => true,
        "txt" | "text" | "md" => false,
        _ => start.trim_ascii_start().first() == Some(&b'{'),
    }
}

/// What else a file may be that people hand over as a data set.
fn foreign(path: &Path, start: &[u8], format: Format) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "a gzip file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"PK\x03\x04", "a zip file"),
        (b"PAR1", "a parquet file"),
        (b"ARROW1", "an arrow file"),
        (b"\xff\xfe", "text in UTF-16"),
        (b"\xfe\xff", "text in UTF-16"),
    ];
    if let Some((_, found)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(found);
    }
    if format != Format::Auto {
        return None;
    }
    let array = start.trim_ascii_start().first() == Some(&b'[');
    match extension(path).as_str() {
        "csv" | "tsv" => Some("a table"),
        "json" if array => Some("one JSON array"),
        _ => None,
    }
}

//! `tojson` as Python's `json.dumps(x, ensure_ascii=False)` writes it, which is what chat
//! templates were written for: blanks after `,` and `:`, and no HTML escapes.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// A written limit on nesting.
const DEPTH: usize = 64;
/// A written limit on blanks before a line, for each level.
const INDENT: usize = 64;

/// How JSON is written: the options that transformers' filter takes.
struct Style {
    indent: Option<usize>,
    between_items: String,
    between_key_and_value: String,
    ascii: bool,
    sorted: bool,
}

/// The template filter.
pub(super) fn filter(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let mut style = Style::new(options.get("indent")?);
    let separators: Option<Vec<String>> = options.get("separators")?;
    style.ascii = options
        .get::<Option<bool>>("ensure_ascii")?
        .unwrap_or(false);
    style.sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    if style.indent.is_some_and(|indent| indent > INDENT) {
        return Err(refused("an indent of too many blanks for tojson"));
    }
    if let Some(separators) = separators {
        let pair: [String; 2] = separators
            .try_into()
            .map_err(|_| refused("separators of tojson are two"))?;
        [style.between_items, style.between_key_and_value] = pair;
    }
    style.text(value).map(Value::from)
}

/// As Python writes it without options, but for letters beyond ASCII, which stay.
pub(super) fn dumps(value: &Value) -> Result<String, Error> {
    Style::new(None).text(value)
}

/// A number with a fraction as Python prints it: `1e+16`, `2.5e-07`.
pub(super) fn float(number: f64) -> String {
    let shown = format!("{number:?}");
    let Some((digits, exponent)) = shown.split_once('e') else {
        return shown;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

impl Style {
    fn new(indent: Option<usize>) -> Self {
        Self {
            indent,
            between_items: if indent.is_some() { "," } else { ", " }.to_owned(),
            between_key_and_value: ": ".to_owned(),
            ascii: false,
            sorted: false,
        }
    }

    fn text(&self, value: &Value) -> Result<String, Error> {
        let mut text = String::new();
        self.write(value, 0, &mut text)?;
        Ok(text)
    }

    fn write(&self, value: &Value, depth: usize, text: &mut String) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(refused("nested too deeply for tojson"));
        }
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => text.push_str("null"),
            ValueKind::Number if !value.is_integer() => {
                text.push_str(&float(f64::try_from(value.clone())?));
            }
            ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => text.push_str(&value.to_string()),
            ValueKind::Seq | ValueKind::Iterable => {
                text.push('[');
                let mut count = 0;
                for item in value.try_iter()? {
                    self.separate(count, depth, text);
                    self.write(&item, depth + 1, text)?;
                    count += 1;
                }
                self.close(count, depth, text);
                text.push(']');
            }
            ValueKind::Map => {
                text.push('{');
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort_by_cached_key(Value::to_string);
                }
                for (count, key) in keys.iter().enumerate() {
                    self.separate(count, depth, text);
                    self.quote(&key.to_string(), text)?;
                    text.push_str(&self.between_key_and_value);
                    self.write(&value.get_item(key)?, depth + 1, text)?;
                }
                self.close(keys.len(), depth, text);
                text.push('}');
            }
            _ => self.quote(&value.to_string(), text)?,
        }
        Ok(())
    }

    /// What stands before an item.
    fn separate(&self, count: usize, depth: usize, text: &mut String) {
        if count > 0 {
            text.push_str(&self.between_items);
        }
        if let Some(width) = self.indent {
            line(width * (depth + 1), text);
        }
    }

    /// What stands before the closing bracket.
    fn close(&self, count: usize, depth: usize, text: &mut String) {
        if let (Some(width), true) = (self.indent, count > 0) {
            line(width * depth, text);
        }
    }

    fn quote(&self, string: &str, text: &mut String) -> Result<(), Error> {
        let quoted = serde_json::to_string(string).map_err(|error| refused(error.to_string()))?;
        if !self.ascii {
            text.push_str(&quoted);
            return Ok(());
        }
        let mut units = [0; 2];
        for letter in quoted.chars() {
            if letter.is_ascii() {
                text.push(letter);
                continue;
            }
            for unit in letter.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
        Ok(())
    }
}

fn line(width: usize, text: &mut String) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', width));
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadSerialization, why.into())
}

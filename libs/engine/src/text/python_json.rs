//! `tojson` as Python's `json.dumps(x, ensure_ascii=False)` writes it, which is what chat
//! templates were written for: blanks after `,` and `:`, and no HTML escapes.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// A written limit on nesting.
const DEPTH: usize = 64;

/// The template filter.
pub(super) fn filter(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = String::new();
    write(value, indent, 0, &mut text)?;
    Ok(Value::from(text))
}

fn write(
    value: &Value,
    indent: Option<usize>,
    depth: usize,
    text: &mut String,
) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(Error::new(
            ErrorKind::BadSerialization,
            "nested too deeply for tojson",
        ));
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => text.push_str("null"),
        ValueKind::Bool | ValueKind::Number => text.push_str(&value.to_string()),
        ValueKind::Seq | ValueKind::Iterable => {
            text.push('[');
            let mut count = 0;
            for item in value.try_iter()? {
                separate(count, indent, depth, text);
                write(&item, indent, depth + 1, text)?;
                count += 1;
            }
            close(count, indent, depth, text);
            text.push(']');
        }
        ValueKind::Map => {
            text.push('{');
            let mut count = 0;
            for key in value.try_iter()? {
                separate(count, indent, depth, text);
                quote(&key.to_string(), text)?;
                text.push_str(": ");
                write(&value.get_item(&key)?, indent, depth + 1, text)?;
                count += 1;
            }
            close(count, indent, depth, text);
            text.push('}');
        }
        _ => quote(&value.to_string(), text)?,
    }
    Ok(())
}

/// What stands before an item.
fn separate(count: usize, indent: Option<usize>, depth: usize, text: &mut String) {
    if count > 0 {
        text.push(',');
    }
    match indent {
        Some(width) => line(width * (depth + 1), text),
        None if count > 0 => text.push(' '),
        None => {}
    }
}

/// What stands before the closing bracket.
fn close(count: usize, indent: Option<usize>, depth: usize, text: &mut String) {
    if let (Some(width), true) = (indent, count > 0) {
        line(width * depth, text);
    }
}

fn line(width: usize, text: &mut String) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', width));
}

fn quote(string: &str, text: &mut String) -> Result<(), Error> {
    let quoted = serde_json::to_string(string);
    let quoted =
        quoted.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    text.push_str(&quoted);
    Ok(())
}

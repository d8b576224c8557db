//! One source of configuration as a dictionary with a name that errors show.

use std::borrow::Cow;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use serde::Serialize;

use super::Error;

const PREFIX: &str = "FEDPIPE_";

/// Keys and values of one source.
pub(super) struct Layer {
    name: Cow<'static, str>,
    pub(super) dict: Dict,
}

impl Layer {
    fn new(name: impl Into<Cow<'static, str>>, dict: Dict) -> Self {
        Self {
            name: name.into(),
            dict,
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// What holds if nobody says anything.
pub(super) fn defaults(value: &impl Serialize) -> Result<Layer, Error> {
    Ok(Layer::new("defaults", dict_of("defaults", value)?))
}

/// What the command line says; fields that are `None` say nothing.
pub(super) fn flags(value: &impl Serialize) -> Result<Layer, Error> {
    let mut dict = dict_of("command line", value)?;
    drop_absent(&mut dict);
    Ok(Layer::new("command line", dict))
}

/// What a TOML file says.
pub(super) fn file(path: &Path) -> Result<Layer, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let dict = toml::from_str(&text).map_err(|source| Error::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(Layer::new(path.display().to_string(), dict))
}

/// One layer for each variable that is configuration, in the order of their names.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
    shape: &Dict,
) -> Vec<Layer> {
    let mut found: Vec<_> = variables
        .into_iter()
        .filter_map(|(name, text)| {
            let path = key_of(&name, shape)?;
            Some((name, path, text))
        })
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|(name, path, text)| {
            let value = value_of(&path, text, shape);
            Layer::new(format!("environment variable {name}"), nest(&path, value))
        })
        .collect()
}

fn key_of(name: &str, shape: &Dict) -> Option<Vec<String>> {
    let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
    let is_nested = key.contains("__");
    let is_top = shape
        .get(&key)
        .is_some_and(|default| default.as_dict().is_none());
    (is_nested || is_top).then(|| key.split("__").map(str::to_owned).collect())
}

fn value_of(path: &[String], text: String, shape: &Dict) -> Value {
    let mut default = None;
    let mut level = Some(shape);
    for key in path {
        default = level.and_then(|dict| dict.get(key));
        level = default.and_then(Value::as_dict);
    }
    let is_composed = matches!(default, Some(Value::Array(..) | Value::Dict(..)));
    if is_composed && let Ok(value) = text.parse() {
        return value;
    }
    Value::from(text)
}

fn nest(path: &[String], value: Value) -> Dict {
    match path.split_first() {
        Some((key, [])) => Dict::from([(key.clone(), value)]),
        Some((key, rest)) => Dict::from([(key.clone(), Value::from(nest(rest, value)))]),
        None => Dict::new(),
    }
}

fn dict_of(place: &str, value: &impl Serialize) -> Result<Dict, Error> {
    let refused = |reason: String| Error::Invalid {
        place: place.to_owned(),
        key: "all".to_owned(),
        reason,
    };
    match Value::serialize(value).map_err(|error| refused(error.to_string()))? {
        Value::Dict(_, dict) => Ok(dict),
        Value::Empty(..) => Ok(Dict::new()),
        other => Err(refused(format!("{} is not a table", other.to_actual()))),
    }
}

fn drop_absent(dict: &mut Dict) {
    dict.retain(|_, value| {
        if let Value::Dict(_, inner) = value {
            drop_absent(inner);
        }
        !matches!(value, Value::Empty(..))
    });
}

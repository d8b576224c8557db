//! Tools that a conversation may call, and calls of them, as records describe them.

use std::fmt;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::{Deserialize, Serialize};

use super::python_json;

/// Tools of one conversation.
const TOOLS: usize = 256;
/// Calls of one turn.
const CALLS: usize = 64;
/// Lists and objects within one another.
const LEVELS: usize = 32;

/// The tools of one conversation: JSON schemas in their record's words and order.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Tools(Vec<Value>);

/// What is wrong with a record's tools, or with a turn's calls of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum BadTools {
    /// Tools that are no list of functions, nor the text of one.
    #[error(
        r#"tools is a list of JSON schemas, {{"type": "function", "function": {{"name", …}}}}, or the text of one"#
    )]
    NoSchemas,
    /// A written limit.
    #[error("at most {} tools are read", TOOLS)]
    TooMany,
    /// `tool_calls` that is no list.
    #[error("tool_calls is a list")]
    NoCalls,
    /// A written limit.
    #[error("at most {} calls of one turn are read", CALLS)]
    TooManyCalls,
    /// Calls by somebody else.
    #[error("only the assistant calls tools")]
    NotAssistant,
    /// A call in another form.
    #[error(r#"a call is {{"type": "function", "function": {{"name", "arguments"}}}}"#)]
    NoFunction,
    /// Arguments in another form.
    #[error("a call's arguments are an object, or the JSON text of one")]
    NoArguments,
    /// The form before `tool_calls`.
    #[error("function_call was given up for tool_calls: write a list of one call")]
    FunctionCall,
    /// A written limit.
    #[error("at most {} lists and objects stand within one another", LEVELS)]
    TooDeep,
}

/// How a template is given the arguments of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// As objects: what the documentation of chat templates asks for.
    Objects,
    /// As JSON text: what some templates put between other texts.
    Texts,
}

/// One call of a tool.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Call {
    name: String,
    objects: Value,
    texts: Value,
}

impl Tools {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON.
    pub(crate) fn json(&self) -> String {
        json(&Value::from(self.0.as_slice()))
    }

    /// The tools with other names, and these.
    pub(super) fn marked(&self) -> (Self, Vec<String>) {
        let marks: Vec<String> = (0..self.0.len()).map(|n| format!("mark{n}z")).collect();
        let tools = self.0.iter().zip(&marks);
        let tools = tools.filter_map(|(tool, mark)| named(tool, mark)).collect();
        (Self(tools), marks)
    }

    /// As templates see them: transformers passes `None` where there are none.
    pub(super) fn value(&self) -> Value {
        match self.0.as_slice() {
            [] => Value::from(()),
            tools => Value::from(tools),
        }
    }
}

/// The text of a list is how tables store one.
impl TryFrom<Value> for Tools {
    type Error = BadTools;

    fn try_from(tools: Value) -> Result<Self, BadTools> {
        let tools = match tools.as_str() {
            Some(text) if text.trim().is_empty() => return Ok(Self::default()),
            Some(text) => serde_json::from_str(text).map_err(|_| BadTools::NoSchemas)?,
            None => tools,
        };
        if tools.is_none() {
            return Ok(Self::default());
        }
        let tools = list(&tools).ok_or(BadTools::NoSchemas)?;
        if tools.len() > TOOLS {
            return Err(BadTools::TooMany);
        }
        if tools.iter().any(|tool| named(tool, "any").is_none()) {
            return Err(BadTools::NoSchemas);
        }
        if !tools.iter().all(is_shallow) {
            return Err(BadTools::TooDeep);
        }
        Ok(Self(tools))
    }
}

impl Call {
    /// Reads the calls of a turn.
    pub(super) fn all(calls: &Value) -> Result<Vec<Self>, BadTools> {
        let calls = list(calls).ok_or(BadTools::NoCalls)?;
        if calls.len() > CALLS {
            return Err(BadTools::TooManyCalls);
        }
        calls.iter().map(Self::read).collect()
    }

    fn read(call: &Value) -> Result<Self, BadTools> {
        let of = |value: &Value, key: &str| value.get_attr(key).map_err(|_| BadTools::NoFunction);
        let (kind, function) = (of(call, "type")?, of(call, "function")?);
        let unsaid = kind.is_undefined() || kind.is_none();
        if !unsaid && kind.as_str() != Some("function") {
            return Err(BadTools::NoFunction);
        }
        let (name, given) = (of(&function, "name")?, of(&function, "arguments")?);
        let name = name.as_str().filter(|name| !name.trim().is_empty());
        let name = name.ok_or(BadTools::NoFunction)?.to_owned();
        let object = arguments(&given)?;
        let objects = with_arguments(call, &function, object.clone());
        if !is_shallow(&objects) {
            return Err(BadTools::TooDeep);
        }
        let written = given.as_str().filter(|text| !text.trim().is_empty());
        let text = written.map_or_else(|| json(&object), str::to_owned);
        let texts = with_arguments(call, &function, Value::from(text));
        Ok(Self {
            name,
            objects,
            texts,
        })
    }

    /// The function's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same call of another function.
    pub(super) fn named(&self, name: &str) -> Self {
        let renamed = |call: &Value| named(call, name).unwrap_or_default();
        Self {
            name: name.to_owned(),
            objects: renamed(&self.objects),
            texts: renamed(&self.texts),
        }
    }

    /// As JSON.
    pub(super) fn json(&self) -> String {
        json(&self.objects)
    }

    /// As templates see it.
    pub(super) fn value(&self, arguments: Arguments) -> Value {
        match arguments {
            Arguments::Objects => self.objects.clone(),
            Arguments::Texts => self.texts.clone(),
        }
    }
}

/// A function, or what holds one as `function`, under another name; `None` if it has none.
fn named(tool: &Value, name: &str) -> Option<Value> {
    let function = tool.get_attr("function").ok()?;
    if function.kind() == ValueKind::Map {
        return Some(with(tool, "function", named(&function, name)?));
    }
    let given = tool.get_attr("name").ok()?;
    let is_name = given.as_str().is_some_and(|given| !given.trim().is_empty());
    is_name.then(|| with(tool, "name", Value::from(name)))
}

/// The arguments as an object; none is an empty one.
fn arguments(given: &Value) -> Result<Value, BadTools> {
    let parsed = match given.as_str() {
        Some(text) if text.trim().is_empty() => Value::from(()),
        Some(text) => serde_json::from_str(text).map_err(|_| BadTools::NoArguments)?,
        None => given.clone(),
    };
    match parsed.kind() {
        ValueKind::Map => Ok(parsed),
        ValueKind::None | ValueKind::Undefined => {
            Ok(Value::from_pairs(std::iter::empty::<(Value, Value)>()))
        }
        _ => Err(BadTools::NoArguments),
    }
}

fn with_arguments(call: &Value, function: &Value, arguments: Value) -> Value {
    with(call, "function", with(function, "arguments", arguments))
}

/// The map with another value under a key, which keeps its place.
fn with(map: &Value, key: &str, value: Value) -> Value {
    let keys: Vec<Value> = map.try_iter().map(Iterator::collect).unwrap_or_default();
    let is_new = !keys.iter().any(|name| name.as_str() == Some(key));
    let new = is_new.then(|| Value::from(key));
    Value::from_pairs(keys.into_iter().chain(new).map(|name| {
        let item = match name.as_str() {
            Some(name) if name == key => value.clone(),
            _ => map.get_item(&name).unwrap_or_default(),
        };
        (name, item)
    }))
}

fn list(value: &Value) -> Option<Vec<Value>> {
    (value.kind() == ValueKind::Seq)
        .then(|| value.try_iter().ok())?
        .map(Iterator::collect)
}

/// Whether nothing within the value is nested too deeply.
pub(super) fn is_shallow(value: &Value) -> bool {
    within(value, LEVELS)
}

fn within(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return !matches!(value.kind(), ValueKind::Seq | ValueKind::Map);
    };
    let mut items = value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::Seq => items.all(|item| within(&item, below)),
        ValueKind::Map => items.all(|key| within(&value.get_item(&key).unwrap_or_default(), below)),
        _ => true,
    }
}

/// What was read from JSON, no deeper than [`LEVELS`], can be written as JSON.
fn json(value: &Value) -> String {
    python_json::dumps(value).unwrap_or_default()
}

/// What tools a site has is private: only their number is shown.
impl fmt::Debug for Tools {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tools", self.0.len())
    }
}

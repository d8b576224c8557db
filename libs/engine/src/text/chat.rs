//! Conversations to text, by the model's own template.
//!
//! The environment is that of `transformers`' `apply_chat_template`: trimmed blocks, Python's
//! string and dictionary methods, loop controls, `raise_exception`, `tojson` without HTML escapes.
//! A template is a stranger's program: it runs without files or includes, and on limited fuel.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{
    Environment, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter,
};

use super::tools::Arguments;
use super::{Error, Message, Tools, python_json};

/// Instructions a template may execute for one rendering.
const FUEL: u64 = 10_000_000;
/// Turns that are looked at to find the one that is refused.
const TURNS: usize = 256;
const NAME: &str = "chat";

#[cfg(test)]
thread_local! {
    static MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Texts that templates made, or refused, on this thread.
#[cfg(test)]
pub(crate) fn texts_made() -> usize {
    MADE.get()
}

/// A compiled chat template.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    asks_for_calls: bool,
}

impl ChatTemplate {
    /// Compiles Jinja source; `bos` and `eos` are the special tokens' texts.
    ///
    /// # Errors
    /// [`Error::Template`] where the source does not compile.
    pub fn new(source: &str, bos: Option<String>, eos: Option<String>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(Error::Template)?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(format_as_python);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", python_json::filter);
        environment
            .add_template_owned(NAME, without_generation_marks(source))
            .map_err(Error::Template)?;
        Ok(Self {
            environment,
            bos: bos.unwrap_or_default(),
            eos: eos.unwrap_or_default(),
            asks_for_calls: source.contains("tool_calls"),
        })
    }

    /// The conversation as the model reads it; with `add_generation_prompt` it ends where the
    /// assistant's next turn begins.
    ///
    /// # Errors
    /// [`Error::Turn`] where the template refuses the messages, such as two users in a row; [`Error::Render`] where
    /// it is no single turn that it refuses.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        self.render_with_tools(messages, &Tools::default(), add_generation_prompt)
    }

    /// The same of a conversation that may call tools; [`ChatTemplate::check_tools`] tells whether all of it is said.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with_tools(
        &self,
        messages: &[Message],
        tools: &Tools,
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let rendered = self.rendered(messages, tools, add_generation_prompt);
        rendered.map_err(|source| match self.first_refused(messages, tools) {
            Some(turn) => Error::Turn {
                turn,
                turns: messages.len(),
                source,
            },
            None => Error::Render(source),
        })
    }

    /// The text, if the template makes one. Why it makes none is not looked for, which takes a text for every turn.
    pub(crate) fn attempt(
        &self,
        messages: &[Message],
        tools: &Tools,
        add_generation_prompt: bool,
    ) -> Option<String> {
        self.rendered(messages, tools, add_generation_prompt).ok()
    }

    /// The number, from 1, of the turn with which the template begins to refuse.
    fn first_refused(&self, messages: &[Message], tools: &Tools) -> Option<usize> {
        let mut turns = 1..=messages.len().min(TURNS);
        let until = |turn: usize| messages.get(..turn).unwrap_or_default();
        turns.find(|turn| self.rendered(until(*turn), tools, false).is_err())
    }

    /// Whether the template looks for calls of tools at all.
    pub(super) fn asks_for_calls(&self) -> bool {
        self.asks_for_calls
    }

    fn rendered(
        &self,
        messages: &[Message],
        tools: &Tools,
        add_generation_prompt: bool,
    ) -> Result<String, minijinja::Error> {
        let given = |arguments| self.given(messages, arguments, tools, add_generation_prompt);
        let rendered = given(Arguments::Objects);
        if rendered.is_err() && messages.iter().any(Message::calls_tools) {
            // Where it fails again, the first says why.
            return given(Arguments::Texts).or(rendered);
        }
        rendered
    }

    fn given(
        &self,
        messages: &[Message],
        arguments: Arguments,
        tools: &Tools,
        add_generation_prompt: bool,
    ) -> Result<String, minijinja::Error> {
        #[cfg(test)]
        MADE.set(MADE.get() + 1);
        let messages = messages.iter().map(|message| message.value(arguments));
        let context = Value::from_pairs([
            ("messages", messages.collect::<Value>()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
            ("tools", tools.value()),
            ("documents", Value::from(())),
        ]);
        self.environment.get_template(NAME)?.render(context)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ChatTemplate")
    }
}

/// Jinja prints `True`, `None` and numbers as Python does.
fn format_as_python(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::Number if !value.is_integer() => {
            let number = python_json::float(f64::try_from(value.clone())?);
            return output.write_str(&number).map_err(minijinja::Error::from);
        }
        _ => return escape_formatter(output, state, value),
    };
    output.write_str(text).map_err(minijinja::Error::from)
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// `{% generation %}` marks the assistant's text for other tools and renders to nothing. A block
/// that is always true has the same effect on blanks around it.
fn without_generation_marks(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        plain.push_str(before);
        plain.push_str("{%");
        let Some((inside, after)) = tag.split_once("%}") else {
            rest = tag;
            break;
        };
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let instead = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        match instead {
            Some(instead) => plain.push_str(&inside.replace(word, instead)),
            None => plain.push_str(inside),
        }
        plain.push_str("%}");
        rest = after;
    }
    plain.push_str(rest);
    plain
}

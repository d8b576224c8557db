//! `fedpipe generate`: continues a prompt, greedily.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as Arguments;
use engine::control::Control;
use engine::generate::{Request, greedy};
use engine::text::Message;
use serde_json::json;

use super::ModelArgs;
use crate::output;

/// Flags of `fedpipe generate`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe generate --model model.gguf --prompt 'The capital of France is' --tokens 20
  fedpipe generate --model model.gguf --adapter adapter --chat --prompt 'Who are you?'")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Adapter folder
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Put the prompt into the model's own chat template, as a user's turn
    #[arg(long)]
    chat: bool,
    /// The system's turn before it
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Tokens at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Generates.
    pub fn run(self) -> anyhow::Result<()> {
        let model = self.model.load()?;
        let adapter = super::adapter(self.adapter.as_deref(), &model.weights())?;
        let tokenizer = model.tokenizer();
        let prompt = if self.chat {
            let system = self
                .system
                .iter()
                .map(|text| Message::new("system", text.clone()));
            let turns: Vec<Message> = system
                .chain([Message::new("user", self.prompt.clone())])
                .collect();
            tokenizer.encode_with_special(&tokenizer.chat_template()?.render(&turns, true)?)?
        } else {
            tokenizer.encode(&self.prompt)?
        };
        let vocabulary = u32::try_from(tokenizer.vocabulary_size()).unwrap_or(u32::MAX);
        let stop: Vec<u32> = (0..vocabulary).filter(|&id| tokenizer.is_end(id)).collect();
        let request = Request {
            prompt: &prompt,
            limit: self.tokens,
            stop: &stop,
        };
        let mut stream = tokenizer.stream();
        let shown = !self.json;
        let made = greedy(&model, adapter.as_ref(), request, &Control::new(), |id| {
            if let (true, Ok(Some(text))) = (shown, stream.push(id)) {
                // A reader that went away sees nothing; the end of the command says so.
                let mut out = std::io::stdout().lock();
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
        })?;
        if self.json {
            return output::json(
                &json!({ "text": tokenizer.decode_plain(&made)?, "tokens": made.len(), "prompt_tokens": prompt.len() }),
            );
        }
        output::line(stream.finish()?)
    }
}

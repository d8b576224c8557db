//! `fedpipe generate`: continues prompts.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args as Arguments;
use engine::control::Control;
use engine::generate::{Generator, Request, Sampling};
use engine::text::Tokenizer;
use serde_json::{Value, json};

use super::{ModelArgs, prompt};
use crate::output;

/// A line of a file of prompts is shorter than this.
const LINE_BYTES: u64 = 1 << 20;

/// Flags of `fedpipe generate`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe generate --model model.gguf --prompt 'The capital of France is' --tokens 20
  fedpipe generate --model model.gguf --adapter adapter --chat --prompt 'Who are you?' --temperature 0.7 --top-p 0.9
  fedpipe generate --model model.gguf --adapter adapter --prompts questions.jsonl --json > answers.jsonl")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Adapter folder
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Text to continue
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "prompts",
        conflicts_with = "prompts"
    )]
    prompt: Option<String>,
    /// Several prompts, a line each: a text, or JSON with prompt, text or messages; conversations go through the model's
    /// chat template, and answers that are there already are not shown to the model
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Put the prompt into the model's own chat template, as a user's turn
    #[arg(long)]
    chat: bool,
    /// The system's turn before it
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Tokens at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print JSON; of several prompts a line each
    #[arg(long)]
    json: bool,
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, Arguments)]
pub struct SamplingArgs {
    /// Scores are divided by it before a token is drawn; 0 always takes the likeliest
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f32,
    /// Draw among so many of the likeliest tokens; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Draw among tokens with at least this share of the likeliest's probability
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Hold back tokens that occurred: above 1 the more
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Seed of the draws; each of several prompts has the next
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    fn of_prompt(self, number: u64) -> anyhow::Result<Sampling> {
        let sampling = Sampling {
            repetition_penalty: self.repetition_penalty,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed.wrapping_add(number),
        };
        ensure!(
            sampling.is_possible(),
            "use a --temperature from 0, a --top-p above 0 and a --min-p from 0, both at most 1, and a --repetition-penalty above 0"
        );
        Ok(sampling)
    }
}

impl Args {
    /// Generates.
    pub fn run(self) -> anyhow::Result<()> {
        self.sampling.of_prompt(0)?;
        let model = self.model.load()?;
        let adapter = super::adapter(self.adapter.as_deref(), &model.weights())?;
        let mut generator = Generator::new(&model, adapter.as_ref())?;
        let tokenizer = model.tokenizer();
        let stop = prompt::ends(tokenizer);
        let mut answer = |number: usize, asked: &[u32]| -> anyhow::Result<Value> {
            let request = Request {
                prompt: asked,
                limit: self.tokens,
                stop: &stop,
            };
            let sampling = self.sampling.of_prompt(number as u64)?;
            let mut stream = tokenizer.stream();
            let shown = !self.json;
            let made = generator.generate(request, sampling, &Control::new(), |id| {
                if let (true, Ok(Some(text))) = (shown, stream.push(id)) {
                    // A reader that went away sees nothing; the end of the command says so.
                    let mut out = std::io::stdout().lock();
                    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                }
            })?;
            if shown {
                output::line(stream.finish()?)?;
            }
            Ok(
                json!({ "text": tokenizer.decode_plain(&made)?, "tokens": made.len(), "prompt_tokens": asked.len() }),
            )
        };
        match &self.prompts {
            Some(path) => self.each(path, tokenizer, &mut answer),
            None => {
                let text = self.prompt.as_deref().unwrap_or_default();
                let made = answer(0, &self.manner().ask(tokenizer, text)?)?;
                if self.json {
                    output::json(&made)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn manner(&self) -> prompt::Manner<'_> {
        prompt::Manner {
            chat: self.chat,
            system: self.system.as_deref(),
        }
    }

    /// Answers every line of the file, one after another: the file is never held.
    fn each(
        &self,
        path: &Path,
        tokenizer: &Tokenizer,
        answer: &mut dyn FnMut(usize, &[u32]) -> anyhow::Result<Value>,
    ) -> anyhow::Result<()> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = BufReader::new(file);
        for number in 0.. {
            let place = || format!("{}, line {}", path.display(), number + 1);
            let mut line = String::new();
            let read = (&mut lines).take(LINE_BYTES).read_line(&mut line);
            let read = read.with_context(place)?;
            ensure!(
                (read as u64) < LINE_BYTES,
                "{}: it has more than {LINE_BYTES} bytes",
                place()
            );
            if read == 0 {
                break;
            }
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                continue;
            }
            let asked = self
                .manner()
                .ask_line(tokenizer, text)
                .with_context(place)?;
            if !self.json {
                output::note(format!("line {}:", number + 1));
            }
            let mut made = answer(number, &asked)?;
            if self.json {
                if let Some(fields) = made.as_object_mut() {
                    fields.insert("line".to_owned(), (number + 1).into());
                }
                output::json_line(&made)?;
            }
        }
        Ok(())
    }
}

//! Generation with a cache of keys and values.

mod sample;

pub use sample::Sampling;

use crate::adapter::Adapter;
use crate::compute::{Cache, Changes, Error, Workspace, forward_cached, logits};
use crate::control::Control;
use crate::model::Model;
use sample::Sampler;

/// What to generate.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Token ids to continue, at least one.
    pub prompt: &'a [u32],
    /// At most so many tokens.
    pub limit: usize,
    /// Generation ends before any of these.
    pub stop: &'a [u32],
}

/// Continues the prompt by the most probable token, again and again (the lowest id among equals).
///
/// # Errors
/// As [`generate`].
pub fn greedy(
    model: &Model,
    adapter: Option<&Adapter>,
    request: Request<'_>,
    control: &Control,
    each: impl FnMut(u32) + Send,
) -> Result<Vec<u32>, Error> {
    let mut generator = Generator::new(model, adapter)?;
    generator.generate(request, Sampling::default(), control, each)
}

/// Continues prompts with one model and adapter; keeps the buffers between them.
#[derive(Debug)]
pub struct Generator<'m> {
    model: &'m Model,
    changes: Option<Changes>,
    workspace: Workspace,
}

impl<'m> Generator<'m> {
    /// A generator with `adapter`, or of the base alone.
    ///
    /// # Errors
    /// The adapter does not fit the model.
    pub fn new(model: &'m Model, adapter: Option<&Adapter>) -> Result<Self, Error> {
        let changes = adapter
            .map(|adapter| Changes::new(model, adapter))
            .transpose()?;
        Ok(Self {
            model,
            changes,
            workspace: Workspace::default(),
        })
    }

    /// Continues the prompt token by token.
    ///
    /// Ends at the limit, before a stop token, or when the model's context is full. `each` sees every
    /// token as it is made.
    ///
    /// # Errors
    /// The control was cancelled, or the prompt does not fit the model.
    pub fn generate(
        &mut self,
        request: Request<'_>,
        sampling: Sampling,
        control: &Control,
        mut each: impl FnMut(u32) + Send,
    ) -> Result<Vec<u32>, Error> {
        let Self {
            model,
            changes,
            workspace,
        } = self;
        let room = (model.config().context + 1).saturating_sub(request.prompt.len());
        let mut sampler = Sampler::new(sampling);
        model.threads().run(|| {
            let mut cache = Cache::default();
            let (mut made, mut seen) = (Vec::new(), request.prompt.to_vec());
            let mut next = request.prompt.to_vec();
            while made.len() < request.limit.min(room) {
                let hidden = forward_cached(
                    model,
                    changes.as_ref(),
                    &next,
                    &mut cache,
                    control,
                    workspace,
                )?;
                let mut scores = logits(model, &hidden, &[next.len() - 1], workspace)?;
                workspace.give(hidden);
                let token = sampler.next(&mut scores, &seen);
                if request.stop.contains(&token) {
                    break;
                }
                each(token);
                made.push(token);
                seen.push(token);
                next = vec![token];
            }
            Ok(made)
        })
    }
}

//! Greedy generation with a cache of keys and values.

use crate::adapter::Adapter;
use crate::compute::{Cache, Changes, Error, Workspace, forward_cached, logits};
use crate::control::Control;
use crate::model::Model;

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
/// Ends at the limit, before a stop token, or when the model's context is full. `each` sees every
/// token as it is made.
///
/// # Errors
/// The control was cancelled, or the prompt or the adapter does not fit the model.
pub fn greedy(
    model: &Model,
    adapter: Option<&Adapter>,
    request: Request<'_>,
    control: &Control,
    mut each: impl FnMut(u32) + Send,
) -> Result<Vec<u32>, Error> {
    let changes = adapter
        .map(|adapter| Changes::new(model, adapter))
        .transpose()?;
    let room = (model.config().context + 1).saturating_sub(request.prompt.len());
    model.threads().run(|| {
        let (mut cache, mut workspace) = (Cache::default(), Workspace::default());
        let mut made = Vec::new();
        let mut next = request.prompt.to_vec();
        while made.len() < request.limit.min(room) {
            let hidden = forward_cached(
                model,
                changes.as_ref(),
                &next,
                &mut cache,
                control,
                &mut workspace,
            )?;
            let scores = logits(model, &hidden, &[next.len() - 1], &mut workspace)?;
            workspace.give(hidden);
            let token = highest(&scores);
            if request.stop.contains(&token) {
                break;
            }
            each(token);
            made.push(token);
            next = vec![token];
        }
        Ok(made)
    })
}

fn highest(scores: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, score) in (0u32..).zip(scores) {
        if *score > best.1 {
            best = (id, *score);
        }
    }
    best.0
}

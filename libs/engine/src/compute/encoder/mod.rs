//! An encoder's passes: `y = norm(x + attention(x))`, `norm(y + feed_forward(y))` in every block, every token seeing the
//! whole of its row; then the first token of each row is pooled and classified.
//!
//! Promises and limits are those of the decoders' passes, whose stacks these are.

mod backward;
mod forward;
mod pool;

use super::forward::Pass;
use super::packed::Target;
use super::{Changes, Error, Keep, Learn, Packed, Workspace};
use crate::adapter::Head;
use crate::control::Control;
use crate::model::{Encoder, Model};

use pool::Pooled;
pub(crate) use pool::log_softmax;

/// The mean loss of the rows' classes, and on the way back what `learn` asks for. As [`super::learn()`], on the calling
/// thread's pool.
pub(super) fn learn(
    (model, encoder): (&Model, &Encoder),
    changes: Option<&Changes>,
    packed: &Packed,
    (keep, mut learn): (Keep, Learn<'_>),
    control: &Control,
    workspace: &mut Workspace,
) -> Result<f64, Error> {
    let head = head_of(encoder, changes)?;
    check(packed, head)?;
    let mut pass = Pass::new(model, changes, packed, workspace);
    let trace = pass.encode(encoder, keep, control)?;
    let pooled = Pooled::new((encoder, head), &trace.hidden, &packed.bounds);
    let (loss, d_logits) = pooled.loss(packed);
    if !loss.is_finite() {
        return Ok(loss);
    }
    if let Learn::Factors(gradient) = &mut learn
        && let Some(own) = &mut gradient.head
    {
        pooled.head_gradient(own, &d_logits);
    }
    let mut d_hidden = pass.workspace.take(trace.hidden.len());
    pooled.backward(&mut d_hidden, &packed.bounds, &d_logits);
    pass.decode(encoder, learn, d_hidden, trace, control)?;
    Ok(loss)
}

/// What the head says of each class of each row, `[rows, classes]`.
///
/// # Errors
/// The model is a decoder, or there is no head; whatever stops a pass.
pub(crate) fn scores(
    model: &Model,
    changes: Option<&Changes>,
    packed: &Packed,
    control: &Control,
    workspace: &mut Workspace,
) -> Result<Vec<f32>, Error> {
    let encoder = model.encoder().ok_or(Error::NoHead)?;
    let head = head_of(encoder, changes)?;
    let mut pass = Pass::new(model, changes, packed, workspace);
    let trace = pass.encode(encoder, Keep::Nothing, control)?;
    let pooled = Pooled::new((encoder, head), &trace.hidden, &packed.bounds);
    let logits = pooled.logits();
    workspace.give(trace.hidden);
    Ok(logits)
}

/// The adapter's head, or the model's.
fn head_of<'a>(encoder: &'a Encoder, changes: Option<&'a Changes>) -> Result<&'a Head, Error> {
    let own = changes.and_then(|changes| changes.head.as_ref());
    own.or(encoder.head.as_ref()).ok_or(Error::NoHead)
}

/// Every target must be a class of the head, read off a row's first token.
fn check(packed: &Packed, head: &Head) -> Result<(), Error> {
    let classes = head.shape().classes;
    // A row of words has a label behind its first token as well.
    let is_class = |target: &Target| packed.bounds.get(target.row) == Some(&target.position);
    if !packed.targets.iter().all(is_class) {
        let what = "predict tokens";
        return Err(Error::Encoder { what });
    }
    for target in &packed.targets {
        if target.token as usize >= classes {
            return Err(Error::Class {
                row: target.row,
                class: target.token,
                classes,
            });
        }
    }
    Ok(())
}

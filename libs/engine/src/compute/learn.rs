//! One batch there and back.

use super::{
    Changes, Error, Keep, Learn, Packed, Workspace, backward, encoder, forward, loss_and_gradient,
};
use crate::control::Control;
use crate::model::Model;

/// The mean loss of a batch, and on the way back what `learn` asks for; `keep` reaches as far down as
/// that. Where the loss is not finite there is no way back. Runs on the model's threads.
pub(crate) fn learn(
    model: &Model,
    changes: Option<&Changes>,
    packed: &Packed,
    (keep, learn): (Keep, Learn<'_>),
    control: &Control,
    workspace: &mut Workspace,
) -> Result<f64, Error> {
    model.threads().run(|| {
        if let Some(encoder) = model.encoder() {
            let both = (keep, learn);
            return encoder::learn((model, encoder), changes, packed, both, control, workspace);
        }
        let trace = forward(model, changes, packed, keep, control, workspace)?;
        let (loss, d_hidden) = loss_and_gradient(model, &trace.hidden, packed, workspace)?;
        if loss.is_finite() {
            backward(
                learn, d_hidden, trace, model, changes, packed, control, workspace,
            )?;
        }
        Ok(loss)
    })
}

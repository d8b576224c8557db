//! A model all of whose parameters were trained, as a Hugging Face folder in `f32`.
//!
//! What is written is what was trained, bit for bit; but where the family's folders hold the weights of normalizations less
//! one, those are off by the rounding of that.

use std::path::Path;

use super::output::Output;
use super::tensors::Merged;
use super::{Error, Exported, Precision, bound, merged, tokenizer, verify};
use crate::adapter::Adapter;
use crate::control::Control;
use crate::kernel::{Compute, Kernel};
use crate::model::{Config, Model};
use crate::source::Source;
use crate::text::Tokenizer;
use crate::threads::Threads;

/// What [`export_trained`] takes beside the model: its largest tensor as it is written, and as it is read back and
/// compared.
#[must_use]
pub fn beside_trained(config: &Config) -> u64 {
    3 * 4 * (config.vocabulary * config.hidden) as u64
}

/// Tries, before any training, what [`export_trained`] has to say of the model at `from` beside its weights: its sizes and
/// its tokenizer. The folder that they are written to goes away again.
///
/// # Errors
/// As [`export_trained`], as far as weights have no part in it.
pub fn check_trained(from: &Path, output: &Path) -> Result<(), Error> {
    let output = Output::begin(output, false)?;
    let source = Source::open(from)?;
    let config = source.config()?;
    let own = source.tokenizer()?;
    let said = merged::describe((&source, &config), &own, output.folder())?;
    merged::write_config(&said, output.folder())?;
    let again = Config::of_start(merged::CONFIG, said.to_string().as_bytes())?;
    verify::sizes(&config, again)?;
    tokenizer::like(&own, &Tokenizer::from_folder(output.folder())?)?;
    Ok(())
}

/// Writes a model that was trained from the one at `from`. The folder is there when this returns, whole and
/// verified, or not at all; what was there before stays.
///
/// # Errors
/// Something is there already; the model's files or its tokenizer cannot be read; the disk refuses; or what was read back
/// is not what was trained.
pub fn export_trained(
    from: &Path,
    mut model: Model,
    output: &Path,
    control: &Control,
) -> Result<Exported, Error> {
    let output = Output::begin(output, false)?;
    let mut source = Source::open(from)?;
    let config = source.config()?;
    let own = source.tokenizer().map_err(Error::Model)?;
    let count = model.threads().count();
    let threads = Threads::new(count, Kernel::best(Compute::F32).unit())?;
    let want = verify::logits_of(&model, None, control)?;
    let nothing = Adapter::new(1.0, [])?;
    let (_, parameters) = model.parameters();
    let values = parameters.into_iter();
    let mut merged = Merged {
        source: &mut source,
        config: &config,
        adapter: &nothing,
        trained: values.map(|(number, values)| (number, &*values)).collect(),
        control,
    };
    let asked = (Precision::F32, &[][..]);
    let kind = |merged: &Merged<'_>, name, _: &[usize]| merged::kind(merged, name, asked.0);
    let tensors = threads.run(|| {
        merged::write(&mut merged, &own, asked, output.folder())?;
        verify::weights(&mut merged, output.folder(), &kind)
    })?;
    let bound = bound(&merged, &kind)?;
    // What was written is loaded once more: the trained model makes room for it.
    drop(merged);
    drop(model);
    let got = verify::logits(output.folder(), None, count, control)?;
    let logits_off = verify::compare(&want, &got, bound)?;
    let tokenizer_differs = tokenizer::compare(&own, output.folder())?;
    output.finish()?;
    Ok(Exported {
        tensors,
        logits_off,
        logits_bound: bound,
        tokenizer_differs,
    })
}

#[cfg(test)]
mod tests;

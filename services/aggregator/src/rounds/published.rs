//! The adapter that a job leaves behind, under the names that PEFT finds its weights by: inside this program the weights of
//! every family have the same names, and encoders' checkpoints have their own.

use std::path::Path;

use artifacts::tensors::{TensorFile, TensorWriter};
use domain::adapter::{Encoder, HeadShape, WeightName};

use crate::Error;

/// Writes an encoder's adapter with its head in `from` to `to` under the names of the head's family, one tensor at a time, and
/// says which that is.
///
/// # Errors
/// If a file cannot be read or written, or has no head.
pub fn of_encoder(from: &Path, to: &Path) -> Result<Encoder, Error> {
    let file = TensorFile::open(from)?;
    let head = HeadShape::found(|key| file.shape(key).map(<[usize]>::to_vec));
    let head = head.ok_or(Error::Missing {
        what: "classification head",
    })?;
    let names = file.names().map(|key| (renamed(key, head), key));
    let mut tensors: Vec<(String, &str)> = names.collect();
    // The writer takes tensors in the order of their names.
    tensors.sort_unstable();
    let declared = tensors.iter().filter_map(|(name, key)| {
        let shape = file.shape(key)?.to_vec();
        Some((name.clone(), shape))
    });
    let mut out = TensorWriter::create(to, declared, file.metadata().clone())?;
    for (name, key) in &tensors {
        out.write(name, &file.read_f32(key)?)?;
    }
    out.finish()?;
    Ok(head.encoder)
}

/// PEFT's key of a factor, or of a tensor of the head.
fn renamed(key: &str, head: HeadShape) -> String {
    let Some((name, is_a)) = WeightName::from_peft(key) else {
        let mut tensors = head.tensors().into_iter();
        let own = tensors.find(|tensor| tensor.key == key);
        return own.map_or_else(|| key.to_owned(), |tensor| tensor.peft());
    };
    let factor = if is_a { "lora_A" } else { "lora_B" };
    name.in_encoder(head.encoder).map_or_else(
        || key.to_owned(),
        |module| format!("base_model.model.{module}.{factor}.weight"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn written(path: &Path, keys: &[(&str, Vec<usize>)]) {
        let declared = keys.iter();
        let declared = declared.map(|(key, shape)| ((*key).to_owned(), shape.clone()));
        let marks = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let mut file = TensorWriter::create(path, declared, marks).expect("creates");
        for ((key, shape), start) in keys.iter().zip([0.0, 10.0, 20.0, 30.0, 40.0]) {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|i| start + i as f32).collect();
            file.write(key, &values).expect("writes");
        }
        file.finish().expect("finishes");
    }

    #[test]
    fn factors_are_renamed_and_a_head_of_bert_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let up = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight";
        let query = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
        written(
            &from,
            &[
                ("base_model.model.classifier.bias", vec![2]),
                ("base_model.model.classifier.weight", vec![2, 3]),
                (up, vec![1, 3]),
                (query, vec![4, 1]),
            ],
        );
        assert_eq!(of_encoder(&from, &to).expect("renames"), Encoder::Bert);
        let made = TensorFile::open(&to).expect("opens");
        let layer = "base_model.model.bert.encoder.layer.0";
        let read = |key: &str| made.read_f32(key).expect(key);
        assert_eq!(made.names().len(), 4);
        assert_eq!(read("base_model.model.classifier.bias"), [0.0, 1.0]);
        let up = read(&format!("{layer}.intermediate.dense.lora_A.weight"));
        assert_eq!(up, [20.0, 21.0, 22.0]);
        let query = read(&format!("{layer}.attention.self.query.lora_B.weight"));
        assert_eq!(query, [30.0, 31.0, 32.0, 33.0]);
        assert_eq!(made.metadata()["format"], "pt");
    }

    /// Its dense layer stands before the factors here and behind them in PEFT.
    #[test]
    fn a_head_of_distilbert_has_pefts_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let down = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight";
        written(
            &from,
            &[
                ("base_model.model.classifier.bias", vec![2]),
                ("base_model.model.classifier.pre_classifier.bias", vec![3]),
                (
                    "base_model.model.classifier.pre_classifier.weight",
                    vec![3, 3],
                ),
                ("base_model.model.classifier.weight", vec![2, 3]),
                (down, vec![3, 1]),
            ],
        );
        let encoder = of_encoder(&from, &to).expect("renames");
        assert_eq!(encoder, Encoder::Distilbert);
        let made = TensorFile::open(&to).expect("opens");
        let read = |key: &str| {
            made.read_f32(&format!("base_model.model.{key}"))
                .expect(key)
        };
        assert_eq!(read("pre_classifier.bias"), [10.0, 11.0, 12.0]);
        assert_eq!(read("pre_classifier.weight").len(), 9);
        assert_eq!(read("classifier.weight")[0], 30.0);
        let factor = "distilbert.transformer.layer.1.ffn.lin2.lora_B.weight";
        assert_eq!(read(factor), [40.0, 41.0, 42.0]);

        let bare = folder.path().join("bare");
        written(&bare, &[(down, vec![3, 1])]);
        let refused = of_encoder(&bare, &to).expect_err("it has no head");
        assert!(
            refused.to_string().contains("classification head"),
            "{refused}"
        );
    }
}

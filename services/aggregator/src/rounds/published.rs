//! The adapter that a job leaves behind, under the names that PEFT finds its weights by: inside this program the weights of
//! every family have the same names, and BERT's checkpoints have their own.

use std::path::Path;

use artifacts::tensors::{TensorFile, TensorWriter};
use domain::adapter::WeightName;

use crate::Error;

/// Writes the adapter in `from` to `to` under the names of BERT, one tensor at a time.
///
/// # Errors
/// If a file cannot be read or written.
pub fn of_bert(from: &Path, to: &Path) -> Result<(), Error> {
    let file = TensorFile::open(from)?;
    let mut tensors: Vec<(String, &str)> = file.names().map(|key| (renamed(key), key)).collect();
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
    Ok(out.finish()?)
}

/// PEFT's key of a factor in BERT; a head's is everywhere the same.
fn renamed(key: &str) -> String {
    let Some((name, is_a)) = WeightName::from_peft(key) else {
        return key.to_owned();
    };
    let factor = if is_a { "lora_A" } else { "lora_B" };
    name.in_bert().map_or_else(
        || key.to_owned(),
        |module| format!("base_model.model.{module}.{factor}.weight"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn factors_are_renamed_and_a_head_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let keys = [
            ("base_model.model.classifier.bias", vec![2]),
            (
                "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
                vec![1, 3],
            ),
            (
                "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
                vec![4, 1],
            ),
        ];
        let declared = keys.iter();
        let declared = declared.map(|(key, shape)| ((*key).to_owned(), shape.clone()));
        let marks = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let mut file = TensorWriter::create(&from, declared, marks).expect("creates");
        for ((key, shape), start) in keys.iter().zip([0.0, 10.0, 20.0]) {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|i| start + i as f32).collect();
            file.write(key, &values).expect("writes");
        }
        file.finish().expect("finishes");
        of_bert(&from, &to).expect("renames");
        let made = TensorFile::open(&to).expect("opens");
        let layer = "base_model.model.bert.encoder.layer.0";
        let read = |key: &str| made.read_f32(key).expect(key);
        assert_eq!(made.names().len(), 3);
        assert_eq!(read("base_model.model.classifier.bias"), [0.0, 1.0]);
        let up = read(&format!("{layer}.intermediate.dense.lora_A.weight"));
        assert_eq!(up, [10.0, 11.0, 12.0]);
        let query = read(&format!("{layer}.attention.self.query.lora_B.weight"));
        assert_eq!(query, [20.0, 21.0, 22.0, 23.0]);
        assert_eq!(made.metadata()["format"], "pt");
    }
}

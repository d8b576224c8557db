//! Adapters on disk: PEFT's format, the same bytes, and strict reading.

use std::collections::HashMap;

use domain::adapter::{Projection, RankTable, WeightName};
use engine::adapter::{Adapter, Error, Export};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::support::{reference, tiny};

const EXPORT: Export<'_> = Export {
    base_model: "tiny",
    layers: 2,
};

#[test]
fn a_written_adapter_is_read_back_whatever_its_ranks() {
    let shapes = tiny().weights();
    for name in ["tiny-adapter", "tiny-uneven"] {
        let adapter = Adapter::load(&reference(name), &shapes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), &EXPORT).unwrap();
        assert_eq!(Adapter::load(folder.path(), &shapes).unwrap(), adapter);
    }
}

#[test]
fn a_projection_frozen_in_one_layer_is_named_weight_by_weight() {
    let shapes = tiny().weights();
    let partly = RankTable::uniform(&[Projection::Q], 1, 3);
    let adapter = Adapter::initialize(&shapes, &partly, 1.5, 3).unwrap();
    let config = adapter.peft_config(&EXPORT).unwrap();
    assert!(
        config.contains("\"model.layers.0.self_attn.q_proj\""),
        "{config}"
    );
    let again = Adapter::from_peft(
        &adapter.to_safetensors().unwrap(),
        config.as_bytes(),
        &shapes,
    )
    .unwrap();
    assert_eq!(again, adapter);
}

#[test]
fn the_same_adapter_has_the_same_bytes() {
    let shapes = tiny().weights();
    let ranks = RankTable::uniform(&Projection::ALL, 2, 4);
    let bytes = || {
        Adapter::initialize(&shapes, &ranks, 2.0, 7)
            .unwrap()
            .to_safetensors()
            .unwrap()
    };
    assert_eq!(bytes(), bytes());
}

/// Rewrites the saved tensors through `change` and reads them strictly.
fn reread(
    change: impl FnOnce(&mut HashMap<String, (Vec<usize>, Vec<u8>)>),
) -> Result<Adapter, Error> {
    let folder = reference("tiny-adapter");
    let data = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&data).unwrap();
    let own = |(key, view): (String, TensorView<'_>)| {
        (key, (view.shape().to_vec(), view.data().to_vec()))
    };
    let mut tensors: HashMap<_, _> = file.tensors().into_iter().map(own).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(key, (shape, data))| {
        (
            key,
            TensorView::new(Dtype::F32, shape.clone(), data).unwrap(),
        )
    });
    let changed = safetensors::serialize(views, None).unwrap();
    let config = std::fs::read(folder.join("adapter_config.json")).unwrap();
    Adapter::from_peft(&changed, &config, &tiny().weights())
}

#[test]
fn a_missing_extra_or_misshapen_tensor_is_an_error_that_names_it() {
    let key = WeightName::new(1, Projection::Up).peft_b();
    let missing = reread(|tensors| drop(tensors.remove(&key)));
    assert!(matches!(missing, Err(Error::Missing { key: named }) if named == key));

    let stray = "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight";
    let extra = reread(|tensors| drop(tensors.insert(stray.to_owned(), (vec![1], vec![0; 4]))));
    assert!(matches!(extra, Err(Error::Extra { key }) if key == stray));

    let misshapen = reread(|tensors| {
        if let Some((shape, _)) = tensors.get_mut(&key) {
            shape.reverse();
        }
    });
    assert!(
        matches!(misshapen, Err(Error::Shape { key: named, expected, found }) if named == key && expected == [64, 4] && found == [4, 64])
    );
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let folder = reference("tiny-adapter");
    let tensors = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let config = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let refused = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        let read = Adapter::from_peft(
            &tensors,
            config.replace(from, to).as_bytes(),
            &tiny().weights(),
        );
        match read {
            Err(Error::Unsupported { what }) => what,
            other => panic!("{to}: {other:?}"),
        }
    };
    assert_eq!(
        refused("\"use_dora\": false", "\"use_dora\": true"),
        "use_dora"
    );
    assert_eq!(
        refused(
            "\"modules_to_save\": null",
            "\"modules_to_save\": [\"lm_head\"]"
        ),
        "modules_to_save"
    );
    assert_eq!(
        refused("\"q_proj\"", "\"lm_head\""),
        "target module \"lm_head\""
    );
}

#[test]
fn a_table_of_ranks_is_held_to_as_well() {
    let shapes = tiny().weights();
    let ranks = RankTable::uniform(&[Projection::Q, Projection::Down], 2, 4);
    let adapter = Adapter::initialize(&shapes, &ranks, 2.0, 7).unwrap();
    let bytes = adapter.to_safetensors().unwrap();
    assert_eq!(
        Adapter::from_safetensors(&bytes, &shapes, &ranks, 2.0).unwrap(),
        adapter
    );
    let fewer = RankTable::uniform(&[Projection::Q], 2, 4);
    assert!(matches!(
        Adapter::from_safetensors(&bytes, &shapes, &fewer, 2.0),
        Err(Error::Extra { .. })
    ));
    let higher = RankTable::uniform(&[Projection::Q, Projection::Down], 2, 5);
    assert!(matches!(
        Adapter::from_safetensors(&bytes, &shapes, &higher, 2.0),
        Err(Error::Shape { .. })
    ));
}

/// PEFT's own: `lora_alpha / sqrt(r)` where its configuration says `use_rslora`, by each weight's own rank.
#[test]
fn an_adapter_with_rslora_is_scaled_by_the_root_of_its_rank() {
    let folder = reference("tiny-adapter");
    let tensors = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let config = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let scale = |config: &str| {
        let read = Adapter::from_peft(&tensors, config.as_bytes(), &tiny().weights());
        read.map(|adapter| adapter.scale())
    };
    let with = config.replace("\"use_rslora\": false", "\"use_rslora\": true");
    assert_ne!(with, config);
    // Its alpha is 6 and its rank 4.
    assert_eq!((scale(&config).unwrap(), scale(&with).unwrap()), (1.5, 3.0));
    let pattern = |alpha: &str| {
        let own = format!("\"alpha_pattern\": {{\"q_proj\": {alpha}}}");
        scale(&with.replace("\"alpha_pattern\": {}", &own))
    };
    assert_eq!(pattern("6").unwrap(), 3.0);
    assert!(matches!(pattern("7"), Err(Error::Scale)));
}

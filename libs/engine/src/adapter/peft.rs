//! PEFT's folder: `adapter_model.safetensors` and `adapter_config.json`.
//!
//! Ranks may differ between weights; `rank_pattern` and `alpha_pattern` then keep every weight's
//! `alpha / rank` equal to the adapter's one scale.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use domain::adapter::{Encoder, HEAD_WEIGHT, HeadPart, Projection, WeightName, WeightShape};
use domain::peft;
use serde::Deserialize;

use super::tensors::{self, module};
use super::{Adapter, Error};

const TENSORS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
/// What PEFT takes a classification head to be called; it writes the first two, whichever the model has, and takes whatever
/// ends so: `DistilBERT`'s two modules.
const HEADS: [&str; 3] = ["classifier", "score", "pre_classifier"];

/// What PEFT's configuration says beside the adapter itself.
#[derive(Debug, Clone)]
pub struct Export<'a> {
    /// The name or folder that PEFT finds the base model by.
    pub base_model: &'a str,
    /// Transformer blocks of the base model.
    pub layers: usize,
}

/// What is read of `adapter_config.json`; what would change the numbers and is not computed is refused.
#[derive(Deserialize)]
struct Read {
    peft_type: String,
    r: u16,
    lora_alpha: f64,
    #[serde(default)]
    target_modules: Option<Targets>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, u16>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    layers_to_transform: Option<serde_json::Value>,
    #[serde(default)]
    exclude_modules: Option<serde_json::Value>,
    #[serde(default)]
    layer_replication: Option<serde_json::Value>,
    #[serde(default)]
    trainable_token_indices: Option<serde_json::Value>,
    #[serde(default)]
    target_parameters: Option<serde_json::Value>,
}

/// PEFT writes a list, or one pattern.
#[derive(Deserialize)]
#[serde(untagged)]
enum Targets {
    List(Vec<String>),
    Pattern(String),
}

impl Adapter {
    /// Writes PEFT's two files into `folder`, which is created if need be.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path, export: &Export<'_>) -> Result<(), Error> {
        self.save_for(folder, export, self.encoder())
    }

    /// The family of encoders whose head it has.
    fn encoder(&self) -> Option<Encoder> {
        self.head.as_ref().map(|head| head.shape().encoder)
    }

    /// Like [`Adapter::save`], for a model of this family, or a decoder: an adapter without a head does not say whose it is.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save_for(
        &self,
        folder: &Path,
        export: &Export<'_>,
        encoder: Option<Encoder>,
    ) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(|source| Error::Access {
            path: folder.to_owned(),
            source,
        })?;
        let write = |name: &str, data: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, data).map_err(|source| Error::Access { path, source })
        };
        write(TENSORS, &self.to_peft(encoder)?)?;
        write(CONFIG, self.config_for(export, encoder)?.as_bytes())
    }

    /// Reads PEFT's two files from `folder`; `shapes` are the base model's weights.
    ///
    /// # Errors
    /// A file is missing or damaged, the configuration asks for something that is not computed, or
    /// the tensors are not exactly those that it names.
    pub fn load(folder: &Path, shapes: &[WeightShape]) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|source| Error::Access { path, source })
        };
        Self::from_peft(&read(TENSORS)?, &read(CONFIG)?, shapes)
    }

    /// Like [`Adapter::load`], from the files' contents.
    ///
    /// # Errors
    /// As [`Adapter::load`].
    pub fn from_peft(tensors: &[u8], config: &[u8], shapes: &[WeightShape]) -> Result<Self, Error> {
        let config: Read = serde_json::from_slice(config).map_err(Error::Config)?;
        let (expected, scale) = config.expected(shapes)?;
        let adapter = tensors::read(tensors, &expected, scale)?;
        match (config.saves_a_head(), &adapter.head) {
            (true, None) => Err(Error::Missing {
                key: HEAD_WEIGHT.to_owned(),
            }),
            (false, Some(head)) => {
                let mut tensors = head.shape().tensors().into_iter();
                let weight = tensors.find(|own| own.part == HeadPart::Weight);
                let key = weight.map(|own| own.peft()).unwrap_or_default();
                Err(Error::Extra { key })
            }
            _ => Ok(adapter),
        }
    }

    /// The content of `adapter_config.json`.
    ///
    /// # Errors
    /// It cannot be made into JSON.
    pub fn peft_config(&self, export: &Export<'_>) -> Result<String, Error> {
        self.config_for(export, self.encoder())
    }

    fn config_for(&self, export: &Export<'_>, encoder: Option<Encoder>) -> Result<String, Error> {
        let highest = self
            .factors
            .values()
            .map(super::Factors::rank)
            .max()
            .unwrap_or(1);
        let alpha = |rank: u16| f64::from(self.scale) * f64::from(rank);
        let others = || {
            self.factors
                .values()
                .filter(|factors| factors.rank != highest)
        };
        let base_model = export.base_model.to_owned();
        let targets = self.target_modules(export.layers, encoder);
        let mut written = peft::Config::uniform(base_model, targets, highest, alpha(highest));
        written.alpha_pattern = others()
            .map(|f| (module(f.shape.name, encoder), alpha(f.rank)))
            .collect();
        written.rank_pattern = others()
            .map(|f| (module(f.shape.name, encoder), f.rank))
            .collect();
        let mut names = self.factors.keys();
        let transposed = names.any(|name| name.projection().is_transposed());
        written = written.with_transposed_weights(transposed);
        if let Some(head) = &self.head {
            written = written.with_head(head.shape().encoder);
        } else if encoder.is_some() {
            written.task_type = "SEQ_CLS";
        }
        serde_json::to_string_pretty(&written).map_err(Error::Config)
    }

    /// Modules by their short names when each is adapted in every layer; otherwise every weight by
    /// its full name, since a short one would name the frozen ones too.
    fn target_modules(&self, layers: usize, encoder: Option<Encoder>) -> Vec<String> {
        let projections: BTreeSet<Projection> =
            self.factors.keys().map(|name| name.projection()).collect();
        let everywhere = self.factors.len() == projections.len() * layers;
        // An encoder's modules are several that end alike.
        if everywhere && encoder.is_none() {
            projections
                .iter()
                .map(|projection| projection.module().to_owned())
                .collect()
        } else {
            let names = self.factors.keys();
            names.map(|name| module(*name, encoder)).collect()
        }
    }
}

impl Read {
    fn saves_a_head(&self) -> bool {
        let modules = self.modules_to_save.as_ref();
        modules.is_some_and(|modules| !modules.is_empty())
    }

    /// The weights that must have factors, their ranks, and the one scale.
    fn expected(&self, shapes: &[WeightShape]) -> Result<(Vec<(WeightShape, u16)>, f32), Error> {
        self.refuse_unsupported()?;
        // PEFT itself sets what fits the layer, and warns.
        let transposed = |shape: &WeightShape| shape.name.projection().is_transposed();
        if self.fan_in_fan_out && !shapes.iter().any(transposed) {
            let what = "fan_in_fan_out".to_owned();
            return Err(Error::Unsupported { what });
        }
        let Some(Targets::List(targets)) = &self.target_modules else {
            let what = match &self.target_modules {
                Some(Targets::Pattern(pattern)) => format!("target_modules {pattern:?}"),
                _ => "no target_modules".to_owned(),
            };
            return Err(Error::Unsupported { what });
        };
        let mut found = Vec::new();
        let mut scale = None;
        for shape in shapes {
            let names = called(shape.name);
            if !targeted(&names, targets) {
                continue;
            }
            let rank = pattern(&self.rank_pattern, &names).unwrap_or(self.r);
            let alpha = pattern(&self.alpha_pattern, &names).unwrap_or(self.lora_alpha);
            let divisor = if self.use_rslora {
                f64::from(rank).sqrt()
            } else {
                f64::from(rank)
            };
            let own = (alpha / divisor) as f32;
            if rank == 0 || scale.is_some_and(|scale: f32| (scale - own).abs() > 1e-6 * scale.abs())
            {
                return Err(Error::Scale);
            }
            scale = scale.or(Some(own));
            found.push((*shape, rank));
        }
        if let Some(unknown) = targets.iter().find(|target| {
            !shapes
                .iter()
                .any(|shape| targeted(&called(shape.name), std::slice::from_ref(target)))
        }) {
            return Err(Error::Unsupported {
                what: format!("target module {unknown:?}"),
            });
        }
        Ok((found, scale.ok_or(Error::Scale)?))
    }

    fn refuse_unsupported(&self) -> Result<(), Error> {
        let refused = [
            (self.peft_type != "LORA", "a peft_type other than LORA"),
            (
                self.bias.as_deref().is_some_and(|bias| bias != "none") || self.lora_bias,
                "trained biases",
            ),
            (self.use_dora, "use_dora"),
            (
                self.modules_to_save
                    .iter()
                    .flatten()
                    .any(|module| !HEADS.contains(&module.as_str())),
                "modules_to_save",
            ),
            (self.layers_to_transform.is_some(), "layers_to_transform"),
            (self.exclude_modules.is_some(), "exclude_modules"),
            (self.layer_replication.is_some(), "layer_replication"),
            (
                self.trainable_token_indices.is_some(),
                "trainable_token_indices",
            ),
            (self.target_parameters.is_some(), "target_parameters"),
        ];
        match refused.iter().find(|(refused, _)| *refused) {
            Some((_, what)) => Err(Error::Unsupported {
                what: (*what).to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// What a weight is called by whoever targets it: its name in every family, of which one is meant.
fn called(weight: WeightName) -> Vec<String> {
    let encoders = Encoder::ALL.into_iter();
    let others = encoders.filter_map(|encoder| weight.in_encoder(encoder));
    std::iter::once(weight.to_string()).chain(others).collect()
}

fn targeted(called: &[String], targets: &[String]) -> bool {
    let mut any = called.iter();
    any.any(|name| targets.iter().any(|target| names(target, name)))
}

/// PEFT's rule: the whole name, or its last components.
fn names(target: &str, name: &str) -> bool {
    name == target
        || name
            .strip_suffix(target)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn pattern<T: Copy>(patterns: &BTreeMap<String, T>, called: &[String]) -> Option<T> {
    patterns
        .iter()
        .find(|(key, _)| called.iter().any(|name| names(key, name)))
        .map(|(_, value)| *value)
}

//! The job file's schema in the OpenAPI document, by hand: the domain knows nothing of OpenAPI.

use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// The sections of a job file; what each says is in the example and in the documentation of
/// `domain::job::Spec`.
const SECTIONS: [(&str, &str); 11] = [
    (
        "model",
        "exactly one of `digest` (from `fedpipe model push`) and `source` (`file:///…`, for one machine; or `hf://org/name@revision` of the Hugging Face Hub, at the commit that the revision is at submission: sites fetch it from there if their policy lets them)",
    ),
    (
        "data",
        "`dataset`: the name that each site maps to its own files; `sites`: only these workers (empty: every worker that has it)",
    ),
    (
        "adapter",
        "`targets` (auto: all that the model has; or a list of q, k, v, o, gate, up, down, of GPT-2 of c_attn, attn.c_proj, c_fc, mlp.c_proj), `rank` (auto, or 1 to `rank_max`), `rank_max` (1 to 256), `alpha`, `rslora`; the scale is alpha / rank_max, or with rslora alpha / √rank_max, for the whole job",
    ),
    (
        "training",
        "`optimizer` (auto: adamw where it fits a site's memory, else mezo; adamw; sgd; mezo: forward passes alone, at every site), `local_steps` (steps of a round; auto: the planner's choice per site, 1 to 64, and then `aggregation.normalize` is fednova), `batch` (auto or 1 to 1024), `batch_tokens` (in place of batch: a batch takes records until it would have more tokens), `accumulate` (batches of a step), `sequence_length`, `learning_rate` (absent: 1e-4 of mezo, else 1e-3), `schedule` (constant, linear, cosine: over all rounds), `warmup_ratio` (share of the job's steps), `momentum` (of sgd), `weight_decay`, `clip_norm` (0: off), `dropout` (LoRA dropout, 0: off), `proximal` (FedProx's μ, 0: off), `order` (shuffle, balanced, file), `seed`, `labels` (classes of an encoder's head, 2 to 64; absent: words are learned), `choices` (2 to 64 answers that the loss is among, each one token of the model's; absent: among all words), and of zeroth-order sites `mezo`: `learning_rate` (theirs beside others), `parameters` (adapter; all is refused: `fedpipe train` has it on one machine), `perturbation` (μ, 1e-2), `perturbations` (directions of a step, 1 to 256), `distribution` (gaussian, rademacher), `clip` (largest scalar; 0: off), `trim` (share of the sites' scalars left out of their mean at each end), `seeds` (shared, per-worker), `wire` (scalars, tensors), `rates` (what sites' rates differ by: fixed, random, round-loss, five-round-loss, model-difference), `rate_spread` (by how much at most, as a share of the rate; 0.5), `variance` (directions of a step until its estimate varies at most so much; 0: all), `abreast` (passes computed as one, at most; 1), `mask` (`share` of each tensor that moves: the largest numbers after round `after`), `scaling` (`weight`, `rounds`: directions scaled by how far each number moved)",
    ),
    (
        "precision",
        "`base`: auto, source, f32, bf16, int8 or nf4; `compute`: auto (the fastest that each worker measured of f32 and, with instructions for it, bf16), f32, bf16 or int8",
    ),
    (
        "planner",
        "`solver`: auto (exact for small programs, else fast), exact or fast",
    ),
    (
        "rounds",
        "`count` at most; `quorum` (auto: more than half of the sites that the round asks; all: every one; or a number); `deadline` in seconds (auto: from the plan's prediction); `sample` (all, a number of sites or a fraction of them, drawn for each round); `late` (drop, or credit: an update that comes after its round closed counts in the next, its weight times `staleness_discount` for each round of age, 0.7 if absent); `keep` (last, or best: the adapter of the round with the best score); `patience`: scores without improvement after which training stops, `min_delta`: by how much a score must be better to be one",
    ),
    (
        "aggregation",
        "`strategy`: product, stack, ffa, slice, fedit, residual or sum (what each may be combined with: `docs/rules.md`); `weights`: samples, tokens or equal; `normalize`: none or fednova; `optimizer`: `kind` (fedavg, fedavgm, fedadam, fedyogi, fedadagrad), `learning_rate`, `beta1`, `beta2`, `tau`; `norm_bound`: largest norm of a site's change (absent: none)",
    ),
    (
        "evaluation",
        "`every` so many rounds, `sample` records per site, `choices`: candidate completions, `answers`: `records` of each site that are answered by generating at most `tokens` (64, 32), `measure`: what scores are compared by (loss, perplexity, balanced_accuracy, accuracy, exact_match, f1, rouge_l, bleu); absent: no scoring",
    ),
    ("retention", "`keep_updates`: keep every site's updates"),
    (
        "plan_from",
        "id of a job whose plans are replayed with the same sites",
    ),
];

/// The job file ([`domain::job::Spec`]): unknown fields are refused, absent sections take defaults.
#[derive(Debug)]
pub struct JobFile;

impl PartialSchema for JobFile {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
        let mut object = ObjectBuilder::new()
            .description(Some(
                "A job file. Unknown fields are refused; absent sections take their defaults.",
            ))
            .property(
                "name",
                text().description(Some("1 to 100 printable characters")),
            )
            .required("name")
            .required("model")
            .required("data");
        for (name, says) in SECTIONS {
            let section = match name {
                "plan_from" => text(),
                _ => ObjectBuilder::new(),
            };
            object = object.property(name, section.description(Some(says)));
        }
        let deadline = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .description(Some(
                "seconds from submission to the end at the latest; a day if absent",
            ));
        object
            .property("deadline_seconds", deadline)
            .examples([example()])
            .into()
    }
}

impl ToSchema for JobFile {}

/// A job that the API accepts once its model is pushed.
pub fn example() -> serde_json::Value {
    json!({
        "name": "spam-filter",
        "model": { "digest": "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" },
        "data": { "dataset": "mail" },
        "adapter": { "targets": ["q", "k", "v", "o"], "rank": "auto", "rank_max": 16, "alpha": 32 },
        "training": { "optimizer": "adamw", "local_steps": 8, "batch": "auto", "sequence_length": 128, "learning_rate": 1e-3, "seed": 7 },
        "precision": { "base": "auto" },
        "rounds": { "count": 3, "quorum": 2, "deadline": "auto" },
        "aggregation": { "strategy": "product" },
        "evaluation": { "choices": [" yes", " no"], "every": 1, "sample": 16 },
        "deadline_seconds": 86400,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::job::Spec;

    #[test]
    fn the_example_is_a_job_that_is_accepted() {
        let spec: Spec = serde_json::from_value(example()).expect("reads");
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    fn every_field_of_a_job_file_is_in_the_schema_and_nothing_else() {
        let spec: Spec = serde_json::from_value(example()).expect("reads");
        let fields = serde_json::to_value(&spec).expect("serializes");
        let schema = serde_json::to_value(JobFile::schema()).expect("serializes");
        let names = |value: &serde_json::Value| -> Vec<String> {
            let mut names: Vec<String> = value
                .as_object()
                .expect("an object")
                .keys()
                .cloned()
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&schema["properties"]), names(&fields));
    }
}

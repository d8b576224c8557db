//! The head that a job with labels is measured with: untrained, as rounds will find one.

use domain::adapter::HeadShape;
use domain::cause::Trouble;
use domain::job::spec::Training;
use engine::adapter::Head;
use engine::model::Model;

use crate::failure::Failure;

/// An untrained head for the job's labels; none where it has none.
///
/// # Errors
/// If the model is a decoder and the job has labels, or an encoder and it has none.
pub fn fresh(model: &Model, training: &Training) -> Result<Option<Head>, Failure> {
    let encoder = model.config().architecture.encoder();
    let unusable = |detail: &str| Err(Failure::new(Trouble::ModelUnusable, detail.to_owned()));
    match (encoder, training.classifies()) {
        (None, false) => Ok(None),
        (None, true) => unusable(
            "training.labels asks for a classification head, which encoders such as BERT have: give one, or leave labels \
             out and have the model's words counted with evaluation.choices",
        ),
        (Some(_), false) => unusable(
            "the model is an encoder, which classifies and writes nothing: give training.labels, or a decoder such as a Llama",
        ),
        (Some(encoder), true) => {
            let classes = training.labels.len();
            let head = HeadShape::over(encoder, &model.weights(), classes);
            let head = head
                .map(|shape| Head::fresh(shape, training.seed))
                .transpose();
            head.map_err(|error| Failure::of(Trouble::ModelUnusable, &error))
        }
    }
}

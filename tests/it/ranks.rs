//! Sites of different rank in one job.

use std::time::Duration;

use reqwest::Method;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tests::job::{job, with};
use tests::{Fleet, Setup, Wire, archive};

const END: Duration = Duration::from_secs(60);

#[tokio::test]
async fn ranks_four_and_sixteen_without_learning_leave_the_global_as_it_is() {
    let fleet = Fleet::start(&Setup::sites(2)).await;
    let api = fleet.api();
    let asked = json!({"targets": ["q", "v", "down"], "rank": 16, "rank_max": 16, "alpha": 16.0});
    let mut still = with(job(&fleet.model()), "adapter", asked);
    still["training"]["learning_rate"] = json!(0.0);
    let first = with(still.clone(), "rounds", json!({"count": 1}));
    let id = api.submit(&first).await;
    api.succeeded(&id, END).await;

    let wire = Wire::tap(&fleet).await;
    let key = format!("{id}.1");
    let mut plan = wire.value("fedpipe_plans", &key).await;
    let ranks = plan["workers"]["a"]["ranks"].as_object_mut().unwrap();
    for row in ranks.values_mut() {
        let low = vec![json!(4); row.as_array().unwrap().len()];
        *row = Value::Array(low);
    }
    wire.overwrite("fedpipe_plans", &key, &plan).await;
    let ten = with(
        with(still, "rounds", json!({"count": 10})),
        "plan_from",
        json!(id),
    );
    let id = api.submit(&ten).await;
    api.succeeded(&id, END).await;

    let rounds = api.rounds(&id).await;
    let ranks: Vec<&Value> = rounds[10]["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| &w["rank"])
        .collect();
    assert_eq!(ranks, [&json!(4), &json!(16)]);
    let path = format!("/v1/jobs/{id}/adapter");
    let (_, tar) = api.bytes(Method::GET, &path, None).await.unwrap();
    // The untrained adapter changes nothing, so its product is zero.
    let worst = largest_change(&archive::files(&tar)["adapter_model.safetensors"]);
    assert!(worst < 1e-6, "{worst}");
}

/// The largest entry of any `B·A`.
fn largest_change(bytes: &[u8]) -> f32 {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let numbers = |name: &str| {
        let view = file.tensor(name).unwrap();
        let read = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
        let numbers: Vec<f32> = view.data().chunks_exact(4).map(read).collect();
        (numbers, view.shape().to_vec())
    };
    let mut worst = 0_f32;
    for name in file
        .names()
        .into_iter()
        .filter(|name| name.contains("lora_A"))
    {
        let ((a, a_shape), (b, b_shape)) =
            (numbers(name), numbers(&name.replace("lora_A", "lora_B")));
        let (rank, inp, out) = (a_shape[0], a_shape[1], b_shape[0]);
        for row in 0..out {
            for column in 0..inp {
                let terms = (0..rank).map(|k| b[row * rank + k] * a[k * inp + column]);
                worst = worst.max(terms.sum::<f32>().abs());
            }
        }
    }
    worst
}

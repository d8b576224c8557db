use super::*;

/// The noise that sites of equal size measured together.
pub(super) fn noise(measured: Option<(f64, f64)>) -> BatchNoise {
    let (name, mut profile) = site("a", 1.0, GIB);
    profile.measurement.noise = measured.map(|(signal, variance)| GradientNoise {
        signal,
        variance,
        records: 20,
    });
    BatchNoise::of(&BTreeMap::from([(name, profile)]))
}

#[test]
fn the_noise_scale_is_the_measured_one_within_the_batches_that_are_looked_at() {
    for (measured, expected) in [
        (None, 8.0),
        (Some((2.0, 10.0)), 5.0),
        (Some((0.1, 10.0)), 32.0),
        (Some((-1.0, 10.0)), 32.0),
        (Some((10.0, 1.0)), 1.0),
        (Some((10.0, -1.0)), 1.0),
        (Some((f64::NAN, 1.0)), 8.0),
    ] {
        let found = noise(measured);
        assert_eq!(found.records, expected, "{measured:?}");
        assert_eq!(found.measured_on == 0, expected == 8.0, "{measured:?}");
    }
}

#[test]
fn sites_pool_their_noise_by_their_records() {
    let (a, mut few) = site("a", 1.0, GIB);
    let (b, mut many) = site("b", 1.0, GIB);
    let noise = |signal, variance| GradientNoise {
        signal,
        variance,
        records: 20,
    };
    (few.measurement.records, many.measurement.records) = (100, 300);
    few.measurement.noise = Some(noise(4.0, 4.0));
    many.measurement.noise = Some(noise(0.0, 16.0));
    let pooled = BatchNoise::of(&BTreeMap::from([(a, few), (b, many)]));
    assert_eq!((pooled.records, pooled.measured_on), (13.0, 40));
}

#[test]
fn a_noisier_gradient_makes_larger_batches_and_the_reason_says_so() {
    let batch = |variance: f64| {
        let (name, mut profile) = site("a", 1.0, 8 * GIB);
        profile.measurement.noise = Some(GradientNoise {
            signal: 1.0,
            variance,
            records: 21,
        });
        let plan = plan(&spec(), &[(name, profile)], 1).expect("possible");
        let text = of(&plan, "a").why.text.clone();
        let says = format!("noise scale is {variance:.1} records, measured on 21");
        assert!(text.contains(&says), "{text}");
        of(&plan, "a").batch
    };
    assert!(batch(2.0) < batch(20.0));
}

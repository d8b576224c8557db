use super::*;

#[test]
fn of_the_modes_that_the_job_allows_the_fastest_without_checkpointing_is_planned() {
    let (name, mut profile) = site("a", 1.0, 8 * GIB);
    let mut add = |base, checkpoint, optimizer, factor: f64| {
        let (mut measured, mut fitted) = (
            profile.measurement.modes[0].clone(),
            profile.modes[0].clone(),
        );
        let mode = Mode {
            base,
            checkpoint,
            optimizer,
            ..mode()
        };
        fitted.cost.seconds_per_token *= factor;
        (measured.mode, fitted.mode) = (mode.clone(), mode);
        profile.measurement.modes.push(measured);
        profile.modes.push(fitted);
    };
    add(Base::Bf16, false, Optimizer::Adamw, 0.5);
    add(Base::Int8, false, Optimizer::Adamw, 0.7);
    add(Base::Int8, true, Optimizer::Adamw, 0.1);
    add(Base::Int8, false, Optimizer::Mezo, 0.1);
    let sites = [(name, profile)];
    for (asked, expected) in [(Base::Auto, Base::Bf16), (Base::Int8, Base::Int8)] {
        let mut spec = spec();
        spec.precision.base = asked;
        let plan = plan(&spec, &sites, 1).expect("possible");
        let chosen = of(&plan, "a").mode();
        let expected = Mode {
            base: expected,
            ..mode()
        };
        assert_eq!(chosen, expected);
    }
    let mut spec = spec();
    spec.precision.base = Base::Nf4;
    let cause = plan(&spec, &sites, 1).expect_err("not measured");
    assert_eq!(cause.sites[0].trouble, Trouble::PlanUnsupported);
}

//! Which merging rule may stand together with what: the matrix rule × server optimizer × uneven ranks ×
//! quantized base × zeroth-order training. Pure; `docs/rules.md` is printed from here.

use super::aggregation::{Normalize, ServerKind, Strategy};
use super::choice::Choice;
use super::spec::{Base, Optimizer, Spec};

/// What of a job decides whether its rule is legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combination {
    /// The rule.
    pub strategy: Strategy,
    /// What the server does with the mean.
    pub server: ServerKind,
    /// Whether sites may train different ranks.
    pub uneven_ranks: bool,
    /// Whether the frozen base may be held in fewer bits than its file has.
    pub quantized_base: bool,
    /// Whether every site trains zeroth-order.
    pub zeroth_order: bool,
}

impl Combination {
    /// That of a job. `adapter.rank: auto` lets the planner give sites different ranks.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self {
            strategy: spec.aggregation.strategy,
            server: spec.aggregation.optimizer.kind,
            uneven_ranks: spec.adapter.rank == Choice::Auto,
            quantized_base: !matches!(spec.precision.base, Base::Source | Base::F32),
            zeroth_order: spec.training.optimizer == Optimizer::Mezo,
        }
    }

    /// All of them, in the order of the matrix.
    pub fn all() -> impl Iterator<Item = Self> {
        let flags = || [false, true].into_iter();
        Strategy::ALL.into_iter().flat_map(move |strategy| {
            ServerKind::ALL.into_iter().flat_map(move |server| {
                flags().flat_map(move |uneven_ranks| {
                    flags().flat_map(move |quantized_base| {
                        flags().map(move |zeroth_order| Self {
                            strategy,
                            server,
                            uneven_ranks,
                            quantized_base,
                            zeroth_order,
                        })
                    })
                })
            })
        })
    }
}

/// Why a combination is not legal: the row of the matrix and what would be legal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {}: {because}; legal: {instead}", strategy.name())]
pub struct Illegal {
    /// The field that would have to change.
    pub field: &'static str,
    /// The rule's row.
    pub strategy: Strategy,
    /// What does not go with it.
    pub because: String,
    /// What would.
    pub instead: String,
}

/// Judges one combination. Nothing depends on the bits of the base: factors and side terms are f32
/// beside it.
///
/// # Errors
/// [`Illegal`], the first reason.
pub fn judge(asked: Combination) -> Result<(), Illegal> {
    let Combination {
        strategy, server, ..
    } = asked;
    let illegal = |field, because: String, instead: String| {
        Err(Illegal {
            field,
            strategy,
            because,
            instead,
        })
    };
    if server.has_state() && !strategy.keeps_coordinates() {
        return illegal(
            "aggregation.optimizer.kind",
            format!(
                "{} keeps moments of each coordinate, and {} turns or restarts them every round",
                server.name(),
                strategy.name()
            ),
            format!(
                "kind fedavg, or strategy {}",
                names(Strategy::keeps_coordinates)
            ),
        );
    }
    if asked.uneven_ranks && !strategy.takes_uneven_ranks() {
        return illegal(
            "adapter.rank",
            format!(
                "auto may give sites different ranks, which {} cannot merge",
                strategy.name()
            ),
            format!(
                "a number for adapter.rank, or strategy {}",
                names(Strategy::takes_uneven_ranks)
            ),
        );
    }
    if asked.zeroth_order && strategy != Strategy::Sum {
        return illegal(
            "aggregation.strategy",
            format!(
                "zeroth-order sites replay each other's steps, which {} turns into other coordinates",
                strategy.name()
            ),
            "strategy sum with adapter.rank a number, that of rank_max; or training.optimizer auto, which is zeroth-order only \
             where gradients do not fit, or adamw"
                .to_owned(),
        );
    }
    if asked.zeroth_order && server.has_state() {
        return illegal(
            "aggregation.optimizer.kind",
            format!(
                "zeroth-order sites replay the mean of the steps, which {} changes",
                server.name()
            ),
            "kind fedavg, or training.optimizer auto or adamw".to_owned(),
        );
    }
    Ok(())
}

/// Why a job may not leave its sites' steps to the planner, if it does. Whatever the rule: what uneven steps do to
/// the mean is the same in all.
pub(super) fn uneven_steps(spec: &Spec) -> Option<&'static str> {
    if spec.training.local_steps != Choice::Auto {
        return None;
    }
    if spec.training.is_zeroth_order() {
        return Some(
            "auto may give sites different numbers of steps, and sites that all train zeroth-order replay one mean \
             of each step's scalars; give a number",
        );
    }
    (spec.aggregation.normalize != Normalize::Fednova).then_some(
        "auto may give sites different numbers of steps, and in a plain mean those of more move the merge further; \
         set aggregation.normalize to fednova, or give a number",
    )
}

fn names(of: impl Fn(Strategy) -> bool) -> String {
    let chosen = Strategy::ALL
        .into_iter()
        .filter(|strategy| of(*strategy))
        .map(Strategy::name);
    chosen.collect::<Vec<_>>().join(", ")
}

/// The matrix for people, in Markdown: one row per rule; a cell says yes where the rule is legal with
/// that and with the plainest of everything else.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for server in ServerKind::ALL {
        text.push_str(&format!(" {} |", server.name()));
    }
    text.push_str(" uneven ranks | quantized base | zeroth-order | merged change |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    for strategy in Strategy::ALL {
        let plain = Combination {
            strategy,
            server: ServerKind::Fedavg,
            uneven_ranks: false,
            quantized_base: false,
            zeroth_order: false,
        };
        let servers = ServerKind::ALL.map(|server| Combination { server, ..plain });
        let others = [
            Combination {
                uneven_ranks: true,
                ..plain
            },
            Combination {
                quantized_base: true,
                ..plain
            },
            Combination {
                zeroth_order: true,
                ..plain
            },
        ];
        text.push_str(&format!("| `{}` |", strategy.name()));
        for combination in servers.into_iter().chain(others) {
            let word = match judge(combination) {
                Ok(()) => "yes",
                Err(_) => "no",
            };
            text.push_str(&format!(" {word} |"));
        }
        text.push_str(&format!(" {} |\n", exactness(strategy)));
    }
    text.push_str(FOOT);
    text
}

const fn exactness(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Product => "exact up to the kept rank",
        Strategy::Stack | Strategy::Ffa | Strategy::Residual => "exact",
        Strategy::Slice | Strategy::Fedit => "not exact",
        Strategy::Sum => "exact for zeroth-order steps, otherwise that of `fedit`",
    }
}

const HEAD: &str = "\
# Merging rules, and what each may be combined with

Printed by `fedpipe rules` from `libs/domain/src/job/legality.rs`, which also refuses a job at submission. A job
names its rule in `aggregation.strategy`, the server's optimizer in `aggregation.optimizer.kind`.

| rule |";

const FOOT: &str = "
- `uneven ranks`: `adapter.rank: auto`. A weight that some sites do not train counts as rank 0 there.
- `quantized base`: always yes, since factors and side terms are f32 beside the base.
- `zeroth-order`: `training.optimizer: mezo`, every site; then only `fedavg` is legal, whatever the rule.
- Two reasons against a combination are independent: it is legal if each of its cells says yes and, with
  zeroth-order, the server's optimizer is `fedavg`.
- `aggregation.normalize: fednova` and `training.proximal` (FedProx) go with every rule. Zeroth-order steps beside steps by gradients
  are normalized among themselves, as these are.
- Uneven steps: `training.local_steps: auto`, with every rule; then `aggregation.normalize: fednova` must be set. Sites
  that all train zeroth-order make equal steps, for they replay one mean of each: `auto` is refused there. In a job that
  gives a number and replays no other's plans (`plan_from`) all sites make as many, and `fednova` changes nothing. A plan
  of uneven steps is replayed with `fednova` alone.
- `training.labels`: a classification head, averaged as it is whatever the rule for factors. `product`, `slice`,
  `fedit`, `ffa` and `sum` take it, with `fedavg` alone; `stack` and `residual` refuse it, since they restart
  factors beside a side term and a head has none, and so do zeroth-order steps, which move factors alone.
";

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand, so that a change of the code is a change of a table.
    #[test]
    fn the_matrix_is_the_one_written_here() {
        let expected = [
            // fedavg, fedavgm, fedadam, fedyogi, fedadagrad, uneven, quantized, zeroth
            (Strategy::Product, "+----++-"),
            (Strategy::Stack, "+----++-"),
            (Strategy::Ffa, "+++++-+-"),
            (Strategy::Slice, "+++++++-"),
            (Strategy::Fedit, "+++++-+-"),
            (Strategy::Residual, "+----++-"),
            (Strategy::Sum, "+++++-++"),
        ];
        let text = markdown();
        println!("{text}");
        for (strategy, cells) in expected {
            let words: Vec<&str> = cells
                .chars()
                .map(|cell| if cell == '+' { "yes" } else { "no" })
                .collect();
            let row = format!("| `{}` | {} |", strategy.name(), words.join(" | "));
            assert!(text.contains(&row), "no row {row} in\n{text}");
        }
    }

    #[test]
    fn a_combination_is_legal_if_each_of_its_parts_is() {
        for asked in Combination::all() {
            let server_fits = !asked.server.has_state()
                || (asked.strategy.keeps_coordinates() && !asked.zeroth_order);
            let ranks_fit = !asked.uneven_ranks || asked.strategy.takes_uneven_ranks();
            let order_fits = !asked.zeroth_order || asked.strategy == Strategy::Sum;
            let legal = server_fits && ranks_fit && order_fits;
            assert_eq!(judge(asked).is_ok(), legal, "{asked:?}");
        }
        assert_eq!(Combination::all().count(), 7 * 5 * 8);
    }

    #[test]
    fn open_steps_are_normalized_and_never_all_zeroth_order() {
        let refused = |steps: &str, optimizer: &str, strategy: &str, normalize: &str| {
            let text = format!(
                r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},
                    "adapter":{{"rank":8,"rank_max":8}},
                    "training":{{"optimizer":"{optimizer}","local_steps":{steps}}},
                    "aggregation":{{"strategy":"{strategy}","normalize":"{normalize}"}}}}"#
            );
            let spec: Spec = serde_json::from_str(&text).expect("a job");
            let refusals = spec.check().err().unwrap_or_default();
            let mut refusals = refusals.into_iter();
            let found = refusals.find(|one| one.field == "training.local_steps");
            found.map(|one| one.problem)
        };
        let open = r#""auto""#;
        for strategy in Strategy::ALL.map(Strategy::name) {
            for optimizer in ["auto", "adamw", "sgd"] {
                assert_eq!(refused(open, optimizer, strategy, "fednova"), None);
                assert_eq!(refused("8", optimizer, strategy, "none"), None);
                let problem = refused(open, optimizer, strategy, "none").expect("a plain mean");
                assert!(problem.contains("aggregation.normalize"), "{problem}");
            }
        }
        assert_eq!(refused("8", "mezo", "sum", "fednova"), None);
        let problem = refused(open, "mezo", "sum", "fednova").expect("one mean of each step");
        assert!(problem.contains("give a number"), "{problem}");
    }

    #[test]
    fn what_is_named_as_legal_is_legal() {
        for asked in Combination::all() {
            let Err(illegal) = judge(asked) else { continue };
            let text = illegal.to_string();
            assert!(
                text.starts_with(&format!("row {}: ", asked.strategy.name())),
                "{text}"
            );
            let mut better = asked;
            match illegal.field {
                "aggregation.optimizer.kind" => better.server = ServerKind::Fedavg,
                "adapter.rank" => better.uneven_ranks = false,
                _ => better.strategy = Strategy::Sum,
            }
            let next = judge(better);
            assert!(
                next.as_ref()
                    .map_or_else(|next| next.field != illegal.field, |()| true),
                "{text}, then {next:?}"
            );
        }
    }

    /// Whoever follows a refusal is not refused again.
    #[test]
    fn what_a_zeroth_order_job_is_told_is_all_that_it_needs() {
        let refused = |optimizer: &str, rank: &str, strategy: &str, server: &str| {
            let text = format!(
                r#"{{"name":"j","model":{{"source":"file:///m"}},"data":{{"dataset":"mail"}},
                    "adapter":{{"rank":{rank},"rank_max":8}},"training":{{"optimizer":"{optimizer}"}},
                    "aggregation":{{"strategy":"{strategy}","optimizer":{{"kind":"{server}"}}}}}}"#
            );
            let spec: Spec = serde_json::from_str(&text).expect("a job");
            let refusals = spec.check().err().unwrap_or_default();
            let texts = refusals.iter().map(ToString::to_string);
            texts.collect::<Vec<_>>().join("; ")
        };
        let open = r#""auto""#;
        let told = refused("mezo", open, "product", "fedavg");
        for named in ["adapter.rank", "rank_max", "training.optimizer auto"] {
            assert!(told.contains(named), "{named} in {told}");
        }
        assert_eq!(refused("mezo", "8", "sum", "fedavg"), "");
        let told = refused("mezo", "8", "sum", "fedadam");
        assert!(told.contains("training.optimizer auto or adamw"), "{told}");
        for optimizer in ["auto", "adamw"] {
            assert_eq!(refused(optimizer, open, "product", "fedavg"), "");
            assert_eq!(refused(optimizer, "8", "sum", "fedadam"), "");
        }
    }
}

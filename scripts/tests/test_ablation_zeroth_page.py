"""The zeroth-order parts of the ablation: their pages and plots, on made-up runs."""

import pathlib
import sys
import unittest
import xml.etree.ElementTree as tree

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches")]

import ablation_cells as cells
import ablation_zeroth as zeroth
import ablation_zeroth_page as page
import ablation_zeroth_plot as plot
from made_runs import kept_before, run

MAIL = cells.TASKS["mail"]


class Page(unittest.TestCase):
    def test_the_table_says_how_far_it_stays_behind(self) -> None:
        runs = {"tuned": [run(2.5)], "mask": [run(2.6)], "adamw": [run(1.0)]}
        text = "\n".join(page.table("small-mail", {"seeds": [1], "rounds": 2, "cells": runs}))
        self.assertIn("The best without gradients is `tuned`.", text)
        self.assertIn("`tuned` stays 1.5000 nats behind first-order AdamW (96 passes against 96; its loss falls by 25 % of what AdamW's does; "
                      "balanced accuracy 0.700 against 0.700)", text)  # fmt: skip
        self.assertIn("0.700 of `tuned` (1 seed(s), 90 held-out records), is +0.200 from the constant answer's 0.5 (one seed promises nothing;", text)
        self.assertIn("first-order AdamW's is 0.700.", text)
        self.assertIn("| 2 | 4.0 | 96 | 48 | 2.0 KiB | 128–256 MiB | 512 MiB |", text)
        self.assertNotIn("No accuracy", text)
        self.assertIn("1 seed(s).", text)
        self.assertIn("by which no fall is clear", text)

    def test_a_fall_is_clear_where_all_seeds_agree_on_it(self) -> None:
        self.assertIn("falls by 0.5000 ± 0.", page.fell([run(2.5), run(2.51), run(2.49)]))
        self.assertIn("clearly, as promised", page.fell([run(2.5), run(2.51), run(2.49)]))
        self.assertIn("NOT as promised", page.fell([run(2.5), run(3.6), run(2.7)]))
        self.assertIn("does not fall", page.fell([run(3.1)]))

    def test_an_accuracy_is_as_promised_where_its_whole_interval_is(self) -> None:
        of = lambda *scores: page.risen({"tuned": [run(2.5, exact=score) for score in scores]}, ["tuned"], MAIL)
        self.assertIn("is +0.100 from the constant answer's 0.5 (NOT as promised: at least +0.15", of(0.6, 0.6))
        self.assertIn("(as promised: at least +0.15", of(0.65, 0.65))
        self.assertIn("is +0.200 from the constant answer's 0.5 (NOT as promised", of(0.6, 0.8))
        self.assertIn("(one seed promises nothing; asked is at least +0.15", of(0.9))

    def test_an_extension_with_fewer_seeds_is_compared_with_the_same_seeds_and_promises_no_more_than_its_interval(self) -> None:
        tuned = [run(2.5, exact=0.70), run(2.4, exact=0.72), run(2.3, exact=0.71)]
        mask = [run(2.6, exact=0.6), run(2.5, exact=0.9)]
        text = "\n".join(page.judged({"tuned": tuned, "mask": mask}, MAIL))
        self.assertIn("`mask` against `tuned`, by loss: hurts.", text)
        self.assertIn("of `tuned` (3 seed(s)", text)
        self.assertIn("(as promised: at least +0.15", text)
        self.assertIn("`mask` comes to 0.750 ± 1.906 with 2 seed(s), which promises less.", text)

    def test_a_wide_interval_of_few_seeds_does_not_take_back_what_many_promise(self) -> None:
        tuned = [run(2.5), run(2.51), run(2.49), run(2.5), run(2.5)]
        text = "\n".join(page.judged({"tuned": tuned, "mask": [run(2.3), run(2.5)]}, cells.TASKS["gsm8k"]))
        self.assertIn("The best without gradients is `tuned`, by the lower end of what it falls by.", text)
        self.assertIn("(clearly, as promised)", text)

    def test_the_page_says_what_comes_down_and_what_scalars_are_counted_as(self) -> None:
        runs = {"tuned": [run(2.5)], "scaling": [run(2.5)], "paper": [run(2.9)], "adamw": [run(1.0) | {"adapter_bytes": 4 << 20}]}
        text = "\n".join(page.table("small-mail", {"seeds": [1], "rounds": 2, "cells": runs}))
        self.assertIn("scalars are counted as 4·H·P + 512 bytes", text)
        self.assertIn("(`tuned`, `scaling`) the whole adapter (3.0 MiB) once", text)
        self.assertIn("(`scaling`: of up to 4 before it too)", text)
        self.assertIn("for `paper`, `adamw` the whole adapter (3.0 MiB–4.0 MiB) in every round.", text)

    def test_runs_that_were_kept_before_are_shown_as_far_as_they_tell(self) -> None:
        runs = {"tuned": [kept_before(2.5)], "adamw": [kept_before(1.0)]}
        found = {"seeds": [1], "rounds": 2, "cells": runs}
        text = "\n".join(page.table("small-mail", found))
        self.assertIn("| 2 | – | 96 | 48 | 2.0 KiB | – | 512 MiB |", text)
        self.assertIn("for `adamw` the whole adapter in every round.", text)
        self.assertIn(f"(1 seed(s), at most {3 * MAIL.held_out} held-out records)", text)
        self.assertEqual(plot.mean_curve(runs["tuned"], plot.PEAK), [])
        tree.fromstring(plot.plots({"zeroth": {"small-mail": found}})["zeroth-small-mail.svg"])

    def test_a_task_without_choices_says_why_it_has_no_accuracy(self) -> None:
        text = "\n".join(page.table("small-gsm8k", {"seeds": [1], "rounds": 2, "cells": {"tuned": [run(2.9, exact=None)]}}))
        self.assertIn("free answers are not scored. Losses are of 90 held-out records: of the 96 that sites hold those that fit 128 tokens", text)

    def test_cells_of_other_passes_say_so_where_they_are_compared(self) -> None:
        paper = [run(2.9) | {"passes": 600.0}]
        text = "\n".join(page.judged({"tuned": [run(2.5)], "mask": [run(2.6)], "paper": paper}, MAIL))
        self.assertIn("`paper` against `tuned`, by balanced accuracy: one seed (600 passes against 96).", text)
        self.assertIn("The best without gradients is `tuned`.", "\n".join(page.judged({"tuned": [run(2.5)], "words": [run(2.4)]}, MAIL)))
        questions = cells.TASKS["gsm8k"]
        text += "\n".join(page.judged({"tuned": [run(2.5)], "paper": paper}, questions))
        self.assertIn("`paper` against `tuned`, by loss: one seed (600 passes against 96).", text)
        self.assertIn("`mask` against `tuned`, by loss: one seed.", text)

    def test_the_mixed_fleet_is_judged_by_what_its_own_sites_learned(self) -> None:
        alone = [run(1.3), run(1.31), run(1.32)]
        better, same, worse = ([run(loss + noise) for noise in (0.0, 0.012, 0.019)] for loss in (1.1, 1.3, 1.5))
        self.assertIn("it is better (as promised)", page.mixed(better, alone))
        self.assertIn("not measurably worse (as promised)", page.mixed(same, alone))
        self.assertIn("it is worse (NOT as promised)", page.mixed(worse, alone))
        self.assertIn(": worse, by one seed", page.mixed(worse[:1], alone[:1]))
        fewer = run(1.1)
        fewer["curve"][0]["records"] = 60
        self.assertIn("were not scored on the same records", page.mixed([fewer], alone[:1]))
        sites = lambda last: {"sites": {"site-1": {"optimizer": "adamw"}, "site-3": {"optimizer": last}}}
        self.assertIn("(site-3 by forward passes)", page.mixed([run(1.2) | sites("mezo")], alone[:1]))
        self.assertIn("shows nothing", page.mixed([run(1.2) | sites("adamw")], alone[:1]))

    def test_both_kinds_of_sites_are_a_table_of_their_own(self) -> None:
        found = {"seeds": [1], "rounds": 2, "cells": {"mixed": [run(1.2)], "without": [run(1.3)]}}
        text = "\n".join(page.both("small-mail", found))
        self.assertIn("| two first-order sites and one without room for gradients (`mixed`) | 1.2000 | 0.700 | 1.8000 | 96 | 48 | 2.0 KiB | 128–256 MiB |", text)
        self.assertIn("(site-1, site-3 by forward passes) against its first-order sites alone", text)

    def test_the_papers_cell_says_how_much_of_the_papers_run_it_is(self) -> None:
        text = "\n".join(page.table("small-gsm8k", {"seeds": [1], "rounds": 2, "cells": {"paper": [run(2.9, exact=None) | {"rounds": 19}]}}))
        self.assertIn("(rank 16 and a model of this size, where it has rank 128 and 3B parameters), a stretch of 19 of its 500 rounds | 2.9000 | – |", text)

    def test_what_is_run_once_is_judged_by_what_it_is_for(self) -> None:
        fast = run(2.9) | {"seconds": 12.0, "passes": 48.0}
        long = run(1.5, exact=0.9) | {"rounds": 12}
        runs = {"tuned": [run(2.5, exact=0.6), run(2.4, exact=0.6)], "abreast": [fast], "long": [long]}
        text = "\n".join(page.table("small-mail", {"seeds": [1, 2], "rounds": 2, "cells": runs}))
        self.assertIn("The best without gradients is `tuned`.", text)
        self.assertIn("Passes computed as one take 0.50 of the time.", text)
        self.assertIn("0.600 ± 0.000 of `tuned` (2 seed(s), 90 held-out records), is +0.100 from the constant answer's 0.5 (NOT as promised", text)
        self.assertIn("`long` comes to 0.900 with 1 seed(s), which promises nothing.", text)
        self.assertIn("In 12 rounds (1 seed(s)) the loss falls by 1.5000 nats.", text)
        self.assertNotIn("`abreast` against", text)

    def test_a_long_run_with_several_seeds_is_claimed_with_its_interval(self) -> None:
        long = [run(loss, exact=score) | {"rounds": 24, "passes": 1152.0} for loss, score in ((1.5, 0.8), (1.6, 0.81), (1.4, 0.79))]
        runs = {"tuned": [run(2.5, exact=0.6)] * 5, "long": long, "adamw": [run(1.0)] * 5}
        text = "\n".join(page.table("small-mail", {"seeds": [1, 2, 3, 4, 5], "rounds": 4, "cells": runs}))
        self.assertIn("0.800 ± 0.025 of `long` (3 seed(s), 24 rounds, 90 held-out records), is +0.300 from the constant answer's 0.5 (as promised:", text)
        self.assertIn("first-order AdamW's is 0.700 ± 0.000 (1152 passes against 96).", text)
        self.assertIn("In 24 rounds (3 seed(s)) the loss falls by 1.5000 ± 0.2484 nats.", text)
        self.assertIn("how far it comes (3 seed(s)) | 1.5000", text)

    def test_a_cell_that_trains_the_same_is_named_so_and_is_no_result(self) -> None:
        runs = {cell: [run(2.5, exact=0.7) | {"adapter": "a"}] for cell in ("tuned", "mask")} | {"scaling": [run(2.6) | {"adapter": "b"}]}
        found = {"seeds": [1], "rounds": 4, "cells": runs}
        text = "\n".join(page.table("small-mail", found))
        self.assertIn(f"| {zeroth.CELLS['mask']} | trains the same as `tuned` | | | 2 | 4.0 | 96 |", text)
        self.assertIn("- `mask` trains the same as `tuned`: with each seed", text)
        self.assertNotIn("`mask` against `tuned`", text)
        self.assertIn("`scaling` against `tuned`", text)
        lengths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
        self.assertEqual(len(lengths), 1)
        picture = plot.plots({"zeroth": {"small-mail": found}})["zeroth-small-mail.svg"]
        self.assertIn(">scaling<", picture)
        self.assertNotIn(">mask<", picture)

    def test_rates_are_compared_with_one_rate_for_all_and_with_random_ones(self) -> None:
        of = lambda loss: [run(loss), run(loss + 0.01), run(loss + 0.02)]
        runs = {"fixed": of(2.5), "random": of(2.6), "round-loss": of(2.4), "model-difference": of(2.55)}
        text = "\n".join(page.rates("small-mail", {"seeds": [1, 2, 3], "rounds": 2, "cells": runs}))
        self.assertIn("| one rate for all (`fixed`) | 2.5100 ± 0.0248 | 0.700 ± 0.000 |  | helps |", text)
        self.assertIn("in every round it sends its scalars, counted as 4·H·P + 512 bytes, and fetches the whole adapter (3.0 MiB).", text)
        self.assertIn("The lowest loss is of `round-loss`.", text)
        self.assertIn("one rate for all help measurably: `round-loss`; against random ones: `round-loss`, `model-difference`.", text)


class Plots(unittest.TestCase):
    def picture(self, results: dict, name: str) -> tree.Element:
        return tree.fromstring(plot.plots(results)[name])

    def parts(self, picture: tree.Element, tag: str) -> list[tree.Element]:
        return [part for part in picture.iter() if part.tag.endswith(f"}}{tag}")]

    def words(self, picture: tree.Element) -> list[str]:
        return [part.text or "" for part in self.parts(picture, "text")]

    def test_each_score_is_shown_against_each_cost_with_a_line_for_each_cell(self) -> None:
        runs = {"tuned": [run(2.5), run(2.7)], "adamw": [run(1.0), run(1.2)], "abreast": [run(2.9)], "long": [run(2.0)]}
        results = {"zeroth": {"small-mail": {"seeds": [1, 2], "rounds": 2, "cells": runs}}}
        picture = self.picture(results, "zeroth-small-mail.svg")
        self.assertEqual(len(self.parts(picture, "g")), len(plot.COSTS) * len(plot.SCORES))
        for title in (*plot.COSTS.values(), *plot.SCORES.values(), "tuned", "adamw"):
            self.assertIn(title, self.words(picture))
        # Two cells, two scores: lines against passes and seconds; of the bytes the start has no place, of the peak there is a point.
        self.assertEqual(len(self.parts(picture, "polyline")), 2 * 2 * 2)
        self.assertFalse({"abreast", "long"} & set(self.words(picture)))
        self.assertIn("long", self.words(self.picture(results, "zeroth-small-mail-long.svg")))

    def test_what_a_task_has_no_score_of_has_no_panel(self) -> None:
        results = {"rates": {"small-mail": {"seeds": [1], "rounds": 2, "cells": {"fixed": [run(2.5, exact=None)], "random": [run(2.6, exact=None)]}}}}
        picture = self.picture(results, "rates-small-mail.svg")
        self.assertEqual((len(self.parts(picture, "g")), len(self.parts(picture, "polyline"))), (1, 2))
        self.assertNotIn("balanced accuracy", self.words(picture))

    def test_a_line_is_the_seeds_mean(self) -> None:
        runs = [run(2.5), run(2.7)]
        self.assertEqual(plot.mean_curve(runs), [(0.0, 3.0), (96.0, 2.6)])
        self.assertEqual(plot.mean_curve(runs, plot.SECONDS), [(0.0, 3.0), (48.0, 2.6)])
        self.assertEqual(plot.mean_curve(runs, plot.PEAK), [(2.0**28, 2.6)])
        self.assertEqual(plot.mean_curve([run(2.5, exact=None)], score="balanced_accuracy"), [])

    def test_an_axis_has_its_ends_and_a_logarithmic_one_even_factors(self) -> None:
        axis = plot.Axis(1.0, 1000.0, 0.0, 30.0, logarithmic=True)
        self.assertAlmostEqual(axis.at(10.0), 10.0)
        for found, wanted in zip(axis.ticks(), (1.0, 10.0, 100.0, 1000.0), strict=True):
            self.assertAlmostEqual(found, wanted)
        self.assertEqual(plot.Axis(0.0, 3.0, 10.0, 40.0).at(1.0), 20.0)


if __name__ == "__main__":
    unittest.main()

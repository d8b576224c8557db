"""The page of job fields is held to the source: a row too many, too few, or with other words or another default is named."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import check_job_file  # noqa: E402

SOURCE = '''
/// A job.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name.
    pub name: String,
    #[serde(default)]
    pub steps: Steps,
    #[serde(default)]
    pub scores: Option<Scores>,
    #[serde(default = "day")]
    pub seconds: u64,
}

const fn day() -> u64 {
    86_400
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Steps {
    pub count: Choice<u32>,
    pub rate: f64,
    pub order: Order,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            count: Choice::Fixed(8),
            rate: RATE,
            order: Order::FromFile,
        }
    }
}

const RATE: f64 = 1e-3;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    #[default]
    Shuffle,
    /// As it stands.
    FromFile,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scores {
    pub sample: Option<u32>,
    pub choices: Vec<String>,
}

/// What no job file has.
#[derive(Debug)]
pub struct Refusal {
    pub field: String,
}
'''

PAGE = '''
| field | value | default | what it does | refused |
|---|---|---|---|---|
| `name` | text | required | its name | an empty one |
| `steps.count` | `auto`, or a number | 8 | steps | |
| `steps.rate` | number | 0.001 | rate | |
| `steps.order` | `shuffle`, `from_file` | `from_file` | order | |
| `scores` | the fields below | – | scores | |
| `scores.sample` | number | – | records | |
| `scores.choices` | texts | `[]` | answers | |
| `seconds` | number | 86400 | the end | |
'''


class Page(unittest.TestCase):
    def check(self, old: str, new: str, *said: str):
        """What is found after one change of the page, in parts."""
        self.assertIn(old, PAGE)
        found = check_job_file.differences(PAGE.replace(old, new), SOURCE)
        self.assertEqual(len(found), 1 if said else 0, found)
        for part in said:
            self.assertIn(part, found[0])

    def test_a_page_that_says_what_the_source_says_is_fine(self):
        self.check("steps", "steps")

    def test_a_field_without_a_row_is_named(self):
        self.check("| `scores.sample` | number | – | records | |\n", "", "scores.sample", "no row")

    def test_a_row_without_a_field_is_named(self):
        self.check("| `seconds`", "| `field` | text | – | – | |\n| `seconds`", "field", "no field of a job file")

    def test_two_rows_of_one_field_are_named(self):
        self.check("| `seconds`", "| `scores` | `{}` | – | – | |\n| `seconds`", "scores has two rows")

    def test_a_word_too_few_is_named(self):
        self.check("`shuffle`, `from_file`", "`from_file`", "steps.order", "shuffle")

    def test_a_word_too_many_is_named(self):
        self.check("`auto`, or a number", "`auto`, `all`, or a number", "steps.count", "all")

    def test_a_word_that_is_the_path_of_a_field_is_none_and_that_of_no_field_is(self):
        self.check("`auto`, or a number", "`auto`, or a number up to `steps.rate`")
        self.check("`auto`, or a number", "`auto`, or a number up to `training.rate`", "steps.count", "training.rate")

    def test_a_field_whose_type_fills_more_than_a_line_is_named(self):
        wrapped = SOURCE.replace("    pub order: Order,\n", "    pub order: BTreeMap<\n        String,\n        Order,\n    >,\n")
        self.assertNotEqual(wrapped, SOURCE)
        row = "| `steps.order` | `shuffle`, `from_file` | `from_file` | order | |\n"
        self.assertIn(row, PAGE)
        found = check_job_file.differences(PAGE.replace(row, ""), wrapped)
        self.assertEqual(len(found), 1, found)
        self.assertIn("Steps.order", found[0])

    def test_another_default_is_named_by_value_and_not_by_spelling(self):
        self.check("0.001", "1e-3")
        self.check("0.001", "0.01", "steps.rate", "0.01", "1e-3")
        self.check("86400", "86401", "seconds")
        self.check("| required |", "| – |", "name", "required")
        self.check("| `from_file` |", "| `shuffle` |", "steps.order")

    def test_a_row_of_another_shape_is_named(self):
        self.check("| steps | |", "| steps |", "steps.count", "a row has")

    def test_a_source_that_has_moved_is_not_an_empty_one(self):
        self.assertIn("no struct Spec", check_job_file.differences(PAGE, "")[0])


class Tree(unittest.TestCase):
    def test_the_page_of_this_tree_has_the_fields_of_its_source(self):
        self.assertEqual(check_job_file.check(check_job_file.ROOT), [])


if __name__ == "__main__":
    unittest.main()

//! Reads a job file: YAML, or by its ending JSON or TOML. What is wrong is named with its line.

use std::path::Path;

use anyhow::{Context, anyhow};
use domain::job::Spec;

/// Job files are small; whatever is larger is not one.
const LIMIT_BYTES: u64 = 4 << 20;

/// Reads a job file.
///
/// # Errors
/// An unreadable file, an unknown field, a value of the wrong kind.
pub fn read(path: &Path) -> anyhow::Result<Spec> {
    let shown = path.display();
    let found =
        std::fs::metadata(path).with_context(|| format!("cannot read the job file {shown}"))?;
    anyhow::ensure!(
        found.len() <= LIMIT_BYTES,
        "{shown} has {} bytes: that is no job file",
        found.len()
    );
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the job file {shown}"))?;
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    parse(&text, ending).with_context(|| format!("the job file {shown} is refused"))
}

fn parse(text: &str, ending: &str) -> anyhow::Result<Spec> {
    match ending {
        "json" => Ok(serde_json::from_str(text)?),
        "toml" => Ok(toml::from_str(text)?),
        _ => serde_saphyr::from_str(text)
            .map_err(|error| anyhow!("{}", error.to_string().trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "name: x\nmodel: { source: \"file:///m\" }\ndata: { dataset: mail }\n";

    fn refused(text: &str, ending: &str, parts: &[&str]) {
        let error = format!("{:#}", parse(text, ending).expect_err(text));
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }

    #[test]
    fn the_same_job_is_read_from_yaml_json_and_toml() {
        let yaml = parse(YAML, "yaml").unwrap();
        let json = serde_json::to_string(&yaml).unwrap();
        assert_eq!(parse(&json, "json").unwrap(), yaml);
        let toml =
            "name = \"x\"\nmodel = { source = \"file:///m\" }\ndata = { dataset = \"mail\" }";
        assert_eq!(parse(toml, "toml").unwrap(), yaml);
        assert_eq!(parse(&json, "yaml").unwrap(), yaml);
    }

    #[test]
    fn the_demonstration_s_job_is_read_as_it_is_meant() {
        let spec = parse(include_str!("../../../../demo/job.yaml"), "yaml").unwrap();
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(spec.training.learning_rate, Some(5e-4));
        assert_eq!(spec.adapter.rank, domain::job::Choice::Auto);
        let choices = spec.evaluation.map(|evaluation| evaluation.choices);
        assert_eq!(choices, Some(vec![" yes".to_owned(), " no".to_owned()]));
    }

    #[test]
    fn the_example_of_the_page_of_fields_is_a_legal_job_with_every_section() {
        let page = include_str!("../../../../docs/job-file.md");
        let lines: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("    "))
            .map_while(|line| line.strip_prefix("    "))
            .collect();
        let text = lines.join("\n");
        assert_eq!(parse(&text, "yaml").unwrap().check(), Ok(()));
        let sections = [
            "model",
            "data",
            "adapter",
            "training",
            "precision",
            "planner",
            "rounds",
            "aggregation",
            "evaluation",
            "retention",
        ];
        for section in sections {
            let named = |line: &&str| line.starts_with(&format!("{section}:"));
            assert!(lines.iter().any(named), "{section} in {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        refused(&format!("{YAML}colour: red\n"), "yaml", &["colour", "4"]);
        refused(
            &format!("{YAML}training:\n  local_stepz: 4\n"),
            "yaml",
            &["local_stepz", "5"],
        );
        refused(
            &format!("{YAML}adapter: {{ rank: 70000 }}\n"),
            "yaml",
            &["4"],
        );
        refused(
            "{\"name\": \"x\",\n\"colour\": 1}",
            "json",
            &["colour", "line 2"],
        );
        refused("name = \"x\"\ncolour = 1\n", "toml", &["colour", "line 2"]);
        refused("name: x\n", "yaml", &["model"]);
    }
}

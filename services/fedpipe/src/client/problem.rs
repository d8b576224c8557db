//! A refusal of the API (RFC 9457), as people read it.

use std::fmt;

use reqwest::Response;
use serde::Deserialize;

/// Why the API refused. Each refused field stands on its own line.
#[derive(Debug, Default, Deserialize, thiserror::Error)]
#[serde(default)]
pub struct Problem {
    /// Of the HTTP answer.
    pub status: u16,
    title: String,
    detail: String,
    errors: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    field: String,
    problem: String,
}

impl Problem {
    /// The answer if it is a success, what it says otherwise.
    pub async fn of(answer: Response) -> Result<Response, Self> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        Err(Self::read(status.as_u16(), &text))
    }

    fn read(status: u16, text: &str) -> Self {
        let problem = serde_json::from_str(text).unwrap_or_else(|_| Self {
            title: format!("the answer was HTTP {status}"),
            // Something in between answered: a proxy's page is long.
            detail: text.chars().take(200).collect(),
            ..Self::default()
        });
        Self { status, ..problem }
    }

    /// Whether asking again may help.
    pub const fn is_passing(&self) -> bool {
        matches!(self.status, 429 | 502..=504)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)?;
        for Field { field, problem } in &self.errors {
            write!(f, "\n  {field}: {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refused_field_stands_on_its_own_line() {
        let text = r#"{"type":"urn:x","title":"The job is refused","status":422,"detail":"2 fields are refused","errors":
            [{"field":"adapter.rank","problem":"use 1 to 4"},{"field":"name","problem":"use 1 to 100 printable characters"}]}"#;
        let shown = Problem::read(422, text).to_string();
        assert_eq!(
            shown,
            "The job is refused: 2 fields are refused\n  adapter.rank: use 1 to 4\n  name: use 1 to 100 printable characters"
        );
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_shown_as_it_is() {
        let problem = Problem::read(502, "<html>bad gateway</html>");
        assert_eq!(
            problem.to_string(),
            "the answer was HTTP 502: <html>bad gateway</html>"
        );
        assert!(problem.is_passing());
    }
}

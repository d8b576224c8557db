//! `fedpipe admin add-token`: a token of the API.

use std::path::PathBuf;

use clap::{Args as Arguments, ValueEnum};
use domain::id::Submitter;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::file;
use crate::output;

/// Flags of `fedpipe admin add-token`.
#[derive(Debug, Arguments)]
#[command(after_help = "Examples:
  fedpipe admin add-token dashboard --role viewer              print the token once, and the table for the api's configuration
  fedpipe admin add-token alice --role submitter --output tokens     write tokens/alice.token, which only you may read

viewer looks at jobs, models and the fleet; submitter submits jobs in its own name, controls them and fetches adapters; admin
deletes jobs and submits in anybody's name. The api keeps the digest alone: who lost a token gets a new one. To revoke one, take
its table out and restart the api. The command line takes a token from FEDPIPE_TOKEN or --token.")]
pub struct Args {
    /// Whose token it is; a submitter's jobs carry this name
    #[arg(value_name = "NAME")]
    name: Submitter,
    /// What it may do
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// Write the token to a file of this folder that only you may read, instead of printing it
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Viewer,
    Submitter,
    Admin,
}

impl From<Role> for api::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Submitter => Self::Submitter,
            Role::Admin => Self::Admin,
        }
    }
}

impl Args {
    /// Makes one.
    pub fn run(self) -> anyhow::Result<()> {
        let token = format!("fedpipe_{}", chassis::clock::random_token());
        let table = api::Token {
            name: self.name.clone(),
            role: self.role.into(),
            sha256: Some(hex::encode(Sha256::digest(&token))),
            file: None,
        };
        let block = format!("[[tokens]]\n{}", toml::to_string(&table)?);
        let name = format!("{}.token", self.name);
        let written = match &self.output {
            Some(folder) => Some(file::create(folder, &name, &format!("{token}\n"))?),
            None => None,
        };
        let shown = written.is_none().then_some(&token);
        if self.json {
            return output::json(&json!({ "token": shown, "file": written, "table": table }));
        }
        match (&written, shown) {
            (Some(path), _) => output::line(format!("{} is written\n", path.display()))?,
            (None, Some(token)) => output::line(format!(
                "# the token of {}; it is not kept here\n{token}\n",
                self.name
            ))?,
            (None, None) => {}
        }
        output::line(format!("# the api's configuration\n{}", block.trim_end()))?;
        output::note("next: add the table to the api's configuration and restart it");
        Ok(())
    }
}

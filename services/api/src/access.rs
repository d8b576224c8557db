//! Who may do what: the one table of routes and the least role of each.
//!
//! The guard, the OpenAPI document and the page at `/docs` read it. A route that is not in it is the
//! administrators' alone, and a test finds it.

use axum::http::Method;
use domain::id::Submitter;
use serde::{Deserialize, Serialize};

/// What somebody may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at jobs, models and the fleet.
    Viewer,
    /// Submits jobs in its own name, controls jobs, fetches adapters.
    Submitter,
    /// Deletes jobs, submits in anybody's name.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Submitter, Self::Admin];

    /// Its word in configurations and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Submitter => "submitter",
            Self::Admin => "admin",
        }
    }
}

/// Method, path, and the least role, of every route that asks who calls.
pub const ROUTES: [(&str, &str, Role); 16] = [
    ("GET", "/v1/jobs", Role::Viewer),
    ("POST", "/v1/jobs", Role::Submitter),
    ("GET", "/v1/jobs/{id}", Role::Viewer),
    ("DELETE", "/v1/jobs/{id}", Role::Admin),
    ("POST", "/v1/jobs/{id}/cancel", Role::Submitter),
    ("POST", "/v1/jobs/{id}/pause", Role::Submitter),
    ("POST", "/v1/jobs/{id}/resume", Role::Submitter),
    ("GET", "/v1/jobs/{id}/events", Role::Viewer),
    ("GET", "/v1/jobs/{id}/plan", Role::Viewer),
    ("GET", "/v1/jobs/{id}/rounds", Role::Viewer),
    ("GET", "/v1/jobs/{id}/report", Role::Viewer),
    // What was learned from the data is more than a look at it.
    ("GET", "/v1/jobs/{id}/adapter", Role::Submitter),
    ("GET", "/v1/models", Role::Viewer),
    ("GET", "/v1/models/{digest}", Role::Viewer),
    ("GET", "/v1/workers", Role::Viewer),
    ("GET", "/metrics", Role::Viewer),
];

/// The least role for a request; `route` is the path as the router knows it, `None` where there is no
/// such path: then its answer says no more than that.
pub fn least(method: &Method, route: Option<&str>) -> Role {
    let Some(route) = route else {
        return Role::Viewer;
    };
    let method = match method.as_str() {
        // Answered by the same handler.
        "HEAD" => "GET",
        other => other,
    };
    let found = ROUTES.iter().find(|one| (one.0, one.1) == (method, route));
    found.map_or(Role::Admin, |one| one.2)
}

/// Whoever a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of its token; `None` for the one token without a name, and where none is asked for.
    pub name: Option<Submitter>,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// Whoever is on this machine, or shows the one token without a name.
    pub const ADMIN: Self = Self {
        name: None,
        role: Role::Admin,
    };

    /// In whose name alone it may submit; `None`: in anybody's.
    pub fn bound_to(&self) -> Option<&Submitter> {
        self.name.as_ref().filter(|_| self.role < Role::Admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_is_not_in_the_table_is_the_administrators_alone() {
        assert_eq!(least(&Method::GET, Some("/v1/jobs")), Role::Viewer);
        assert_eq!(least(&Method::HEAD, Some("/v1/jobs")), Role::Viewer);
        assert_eq!(least(&Method::PUT, Some("/v1/jobs")), Role::Admin);
        assert_eq!(least(&Method::GET, Some("/v1/secrets")), Role::Admin);
        assert_eq!(least(&Method::GET, None), Role::Viewer);
    }

    #[test]
    fn whoever_looks_changes_nothing_and_whoever_submits_deletes_nothing() {
        for (method, path, role) in ROUTES {
            let least = match method {
                "GET" => Role::Viewer,
                "POST" => Role::Submitter,
                _ => Role::Admin,
            };
            assert!(role >= least, "{method} {path}");
        }
        let adapter = least(&Method::GET, Some("/v1/jobs/{id}/adapter"));
        assert_eq!(adapter, Role::Submitter);
    }

    #[test]
    fn each_role_may_what_those_before_it_may() {
        assert!(Role::ALL.is_sorted());
        let names = Role::ALL.map(Role::name);
        let written = Role::ALL.map(|role| serde_json::to_value(role).expect("serializes"));
        assert_eq!(
            written.map(|word| word.as_str().map(str::to_owned)),
            names.map(|name| Some(name.to_owned()))
        );
    }
}

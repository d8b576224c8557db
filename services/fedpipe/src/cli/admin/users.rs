//! The users file: who a NATS server knows, and by which public key. It holds no secret.
//!
//! TOML, a line for each: `worker-mail-1 = "U…"`. To revoke one, take its line out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use bus::Key;
use contract::permission::Role;
use contract::server::{Proof, User};

/// Reads a users file, control services first.
pub fn read(path: &Path) -> anyhow::Result<Vec<User>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the users file {shown}"))?;
    parse(&text).with_context(|| format!("the users file {shown} is refused"))
}

/// The file's text with one user more; a file that is missing is an empty one.
///
/// # Errors
/// If the user is in it already, or the file cannot be read.
pub fn with(path: &Path, role: &Role, public: &str) -> anyhow::Result<String> {
    let shown = path.display();
    let mut text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the users file {shown}"));
        }
    };
    let known = parse(&text).with_context(|| format!("the users file {shown} is refused"))?;
    let user = role.user();
    ensure!(
        known.iter().all(|one| one.role != *role),
        "{shown} has {user} already. Next: take its line out to replace its key"
    );
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&line(role, public));
    Ok(text)
}

/// Writes the file, whole or not at all.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let aside = path.with_extension("new");
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path));
    written.with_context(|| format!("cannot write the users file {}", path.display()))
}

/// A user's line of the file.
pub fn line(role: &Role, public: &str) -> String {
    format!("{} = {public:?}\n", role.user())
}

fn parse(text: &str) -> anyhow::Result<Vec<User>> {
    let named: BTreeMap<String, String> = toml::from_str(text)?;
    let mut users = Vec::new();
    for (name, public) in named {
        let role = Role::of_user(&name).with_context(|| {
            format!("{name} is no user: api, profiler, planner, aggregator, or worker- and a site's name")
        })?;
        let public = Key::check_public(&public).with_context(|| name)?;
        let proof = Proof::Key(public);
        users.push(User { role, proof });
    }
    users.sort_by_key(|user| matches!(user.role, Role::Worker(_)));
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_added_once_and_read_back_with_control_services_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let key = |byte| Key::new([byte; 32]).unwrap().public().to_owned();
        let site = Role::Worker("a".parse().unwrap());
        let add = |role: &Role, public: &str| write(&path, &with(&path, role, public)?);
        add(&site, &key(1)).unwrap();
        add(&Role::Planner, &key(2)).unwrap();
        let error = add(&site, &key(3)).unwrap_err();
        assert!(error.to_string().contains("worker-a already"), "{error}");
        let users = read(&path).unwrap();
        let roles: Vec<Role> = users.iter().map(|user| user.role.clone()).collect();
        assert_eq!(roles, [Role::Planner, site]);
        assert_eq!(users[1].proof, Proof::Key(key(1)));
    }

    #[test]
    fn a_line_that_names_nobody_or_no_key_is_refused() {
        let key = Key::new([1; 32]).unwrap();
        for (text, part) in [
            (format!("root = {:?}", key.public()), "root is no user"),
            ("api = \"UX\"".to_owned(), "api"),
            (format!("api = {:?}", key.seed().expose()), "api"),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(part), "{error}");
            assert!(!error.contains(key.seed().expose()), "{error}");
        }
    }
}

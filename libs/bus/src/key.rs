//! A user's nkey: an ed25519 key pair in the form that NATS knows. Whoever holds the seed is the user;
//! the server is told the public half alone, so nothing that it keeps lets anybody in.

use domain::secret::Secret;
use nkeys::{KeyPair, KeyPairType};

/// What is no key of a user.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The text is no seed.
    #[error(
        "it holds no seed of a user's nkey (SU and 56 more characters); `fedpipe admin add-worker NAME` makes one"
    )]
    Seed,
    /// The text is no public key.
    #[error(
        "it is no public key of a user's nkey (U and 55 more characters); `fedpipe admin add-worker NAME` prints one"
    )]
    Public,
}

/// A key pair.
#[derive(Debug, Clone)]
pub struct Key {
    public: String,
    seed: Secret,
}

impl Key {
    /// Makes a pair of 32 bytes that nobody can guess.
    ///
    /// # Errors
    /// Never for any bytes; the library's signature has one.
    pub fn new(random: [u8; 32]) -> Result<Self, Invalid> {
        let pair = KeyPair::new_from_raw(KeyPairType::User, random);
        Self::of(&pair.map_err(|_| Invalid::Seed)?)
    }

    /// Reads the content of a seed file.
    ///
    /// # Errors
    /// [`Invalid::Seed`]; the text is not quoted.
    pub fn from_seed(text: &str) -> Result<Self, Invalid> {
        let pair = KeyPair::from_seed(text.trim()).map_err(|_| Invalid::Seed)?;
        if pair.key_pair_type() != KeyPairType::User {
            return Err(Invalid::Seed);
        }
        Self::of(&pair)
    }

    fn of(pair: &KeyPair) -> Result<Self, Invalid> {
        let seed = pair.seed().map_err(|_| Invalid::Seed)?;
        Ok(Self {
            public: pair.public_key(),
            seed: seed.into(),
        })
    }

    /// What the server is told.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// What its holder keeps.
    #[must_use]
    pub const fn seed(&self) -> &Secret {
        &self.seed
    }

    /// Judges a public key that somebody sent: the text, if it is one of a user.
    ///
    /// # Errors
    /// [`Invalid::Public`].
    pub fn check_public(text: &str) -> Result<String, Invalid> {
        let text = text.trim();
        let pair = KeyPair::from_public_key(text).map_err(|_| Invalid::Public)?;
        if pair.key_pair_type() == KeyPairType::User {
            return Ok(text.to_owned());
        }
        Err(Invalid::Public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_pair_again_and_another_another() {
        let key = Key::new([1; 32]).unwrap();
        let again = Key::from_seed(&format!(" {}\n", key.seed().expose())).unwrap();
        assert_eq!(again.public(), key.public());
        assert_ne!(Key::new([2; 32]).unwrap().public(), key.public());
        assert!(key.public().starts_with('U') && key.public().len() == 56);
        assert!(key.seed().expose().starts_with("SU") && key.seed().expose().len() == 58);
        assert_eq!(Key::check_public(key.public()).unwrap(), key.public());
        assert!(!format!("{key:?}").contains(key.seed().expose()));
    }

    #[test]
    fn what_is_no_key_of_a_user_is_refused() {
        let account = KeyPair::new_from_raw(KeyPairType::Account, [1; 32]).unwrap();
        let key = Key::new([1; 32]).unwrap();
        let seed = key.seed().expose().to_owned();
        for text in [
            "",
            "SU",
            &account.seed().unwrap(),
            &seed[..57],
            key.public(),
        ] {
            assert!(Key::from_seed(text).is_err(), "{text}");
        }
        for text in ["", "U", &account.public_key(), &seed, &key.public()[..55]] {
            assert!(Key::check_public(text).is_err(), "{text}");
        }
    }
}

//! The SSH host key of a new server.

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The generator or the encoder failed.
    #[error("failed to generate a host key")]
    GenerateKey(#[from] russh::keys::ssh_key::Error),
}

/// A fresh host key. The private half goes into one Secret and nowhere else: no `Debug`, no `Display`.
pub struct HostKey {
    private: String,
    public: String,
}

impl HostKey {
    /// Makes an Ed25519 key.
    ///
    /// # Errors
    /// [`KeyError`] where the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?;
        Ok(HostKey {
            private: key.to_openssh(LineEnding::LF)?.to_string(),
            public: key.public_key().to_openssh()?.trim().to_owned(),
        })
    }

    /// Private half, OpenSSH's PEM.
    pub fn private(&self) -> &str {
        &self.private
    }

    /// Public half, OpenSSH's one-line form.
    pub fn public(&self) -> &str {
        &self.public
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::PublicKey;

    use super::*;

    #[test]
    fn both_halves_are_read_by_openssh_s_parser_and_belong_together() {
        let key = HostKey::generate().unwrap();
        let private = PrivateKey::from_openssh(key.private()).unwrap();
        let public = PublicKey::from_openssh(key.public()).unwrap();
        assert_eq!(private.public_key().key_data(), public.key_data());
        assert_eq!(key.public().lines().count(), 1);
        assert!(key.public().starts_with("ssh-ed25519 "));
    }

    #[test]
    fn no_two_servers_share_a_key() {
        assert_ne!(HostKey::generate().unwrap().public(), HostKey::generate().unwrap().public());
    }
}

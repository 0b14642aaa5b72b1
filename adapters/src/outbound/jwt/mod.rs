//! JSON Web Tokens (RFC 7519): verification, and signing of tokens for development.
//!
//! [`JwtVerifier`] verifies tokens according to [`JwtSettings`]. `local_keys` has the keys from settings
//! and files, `remote_keys` those that an identity provider publishes (JWKS, RFC 7517). For development,
//! Belfry generates its own key ([`DevelopmentKey`]), and [`TokenMint`] signs tokens that a verifier
//! with the same settings accepts.

mod algorithms;
mod claim_rules;
mod development;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod jwks;
mod jwks_client;
mod key_material;
mod key_set;
mod local_keys;
mod mint;
mod remote_keys;
mod secret;
mod settings;
mod token_verifier;
mod trusted_key;

pub use development::{DevelopmentKey, DevelopmentKeyError};
pub use error::{GuessableSecret, InvalidJwtSettings};
pub use mint::{TokenMint, TokenMintError};
pub use secret::{GuessableSecretPolicy, Secret};
pub use settings::{JwksSettings, JwtKey, JwtSettings};
pub use token_verifier::JwtVerifier;

#[cfg(test)]
mod signing;

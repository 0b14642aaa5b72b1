//! JSON Web Tokens (RFC 7519): who a token speaks for, and tokens for trying things out.
//!
//! [`JwtVerifier`] believes what [`JwtSettings`] say. Keys that are set or lie in files are in
//! `local_keys`, those that an identity provider publishes (JWKS, RFC 7517) in `remote_keys`. For
//! development there is a key that Belfry makes itself ([`DevelopmentKey`]), and [`TokenMint`] signs
//! tokens that a verifier with the same settings believes.

mod algorithms;
mod claim_rules;
mod development;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod jwks;
mod jwks_fetch;
mod key_material;
mod key_set;
mod local_keys;
mod mint;
mod remote_keys;
mod settings;
mod token_verifier;
mod trusted_key;

pub use development::{DevelopmentKey, DevelopmentKeyError};
pub use mint::{CannotMint, TokenMint};
pub use settings::{InvalidJwtSettings, JwksSettings, JwtKey, JwtSettings, Secret};
pub use token_verifier::JwtVerifier;

#[cfg(test)]
mod signing;

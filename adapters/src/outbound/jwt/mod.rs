//! JSON Web Tokens (RFC 7519): who a token speaks for, and tokens for trying things out.
//!
//! [`JwtVerifier`] believes what [`JwtSettings`] say. For development there is a key that Belfry
//! makes itself ([`DevelopmentKey`]), and [`TokenMint`] signs tokens that a verifier with the same
//! settings believes.

mod claim_rules;
mod development;
mod key_set;
mod mint;
mod settings;
mod token_verifier;

pub use development::{DevelopmentKey, DevelopmentKeyError};
pub use mint::{CannotMint, TokenMint};
pub use settings::{InvalidJwtSettings, JwtKey, JwtSettings, Secret};
pub use token_verifier::JwtVerifier;

#[cfg(test)]
mod signing;

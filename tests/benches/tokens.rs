//! Tokens are verified where they are shown, on the workers that serve everybody else meanwhile, and
//! not on threads of their own, which would take turns on the same cores. That is right as long as one
//! takes well below a millisecond, also one that none of as many keys as may be set has signed. It
//! bounds how fast devices come back after a node was lost, too.

use std::cell::LazyCell;
use std::iter;
use std::sync::Arc;

use belfry_adapters::outbound::jwt::{JwtKey, JwtSettings, JwtVerifier, Secret};
use belfry_adapters::outbound::system::SystemClock;
use belfry_application::ports::{BearerToken, Claims, TokenError, TokenVerifier as _};
use belfry_tests::tokens::Key;
use futures_util::FutureExt as _;

use crate::pieces::Pieces;

const SECRET: &str = "a secret of at least thirty-two bytes";

pub(crate) fn measure(pieces: &mut Pieces) {
    let secret = Secret::new(SECRET.as_bytes()).expect("it is long enough");
    let hs256 = verifier([JwtKey::Secret(secret)]);
    let token = token(&Key::hs256(SECRET));
    pieces.piece("tokens/HS256", || verify(&hs256, &token).expect("it is good"));

    for (name, key) in [("RS256", Key::rs256()), ("ES256", Key::es256()), ("EdDSA", Key::eddsa())] {
        let verifier = verifier([public(&key)]);
        let token = self::token(&key);
        pieces.piece(&format!("tokens/{name}"), || verify(&verifier, &token).expect("it is good"));
    }

    // Made only if they are measured: RSA keys take a while.
    let many = LazyCell::new(|| {
        let others = iter::repeat_with(Key::rs256).take(JwtSettings::MAX_KEYS);
        let verifier = verifier(others.map(|key| public(&key)));
        (verifier, self::token(&Key::rs256()))
    });
    pieces.piece("tokens/RS256 by none of 16 keys", || {
        let (verifier, token) = &*many;
        verify(verifier, token).expect_err("nobody knows the key")
    });
}

fn public(key: &Key) -> JwtKey {
    JwtKey::PublicPem(key.public_pem().to_owned())
}

fn verifier(keys: impl IntoIterator<Item = JwtKey>) -> JwtVerifier {
    let settings = JwtSettings::new(keys);
    JwtVerifier::new(&settings, Arc::new(SystemClock)).expect("the keys are good")
}

fn token(key: &Key) -> BearerToken {
    let token = key.token("u42").sign();
    BearerToken::parse(&token).expect("it is short").expect("it is there")
}

fn verify(verifier: &JwtVerifier, token: &BearerToken) -> Result<Claims, TokenError> {
    verifier.verify(token).now_or_never().expect("no key is fetched")
}

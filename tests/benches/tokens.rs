//! Verifying tokens. This runs on the worker threads that serve all clients; separate threads would only
//! compete for the same cores. It is acceptable while a verification takes well below a millisecond, also
//! with the maximal number of keys and a token that matches none of them. The time also limits how fast
//! devices reconnect after a node is lost.

use std::cell::LazyCell;
use std::iter;
use std::sync::Arc;

use belfry_adapters::outbound::jwt::{JwtKey, JwtSettings, JwtVerifier, Secret};
use belfry_adapters::outbound::system::SystemClock;
use belfry_application::ports::{BearerToken, Claims, TokenError, TokenVerifier as _};
use belfry_tests::tokens::Key;
use futures_util::FutureExt as _;

use crate::microbenchmarks::Microbenchmarks;

const SECRET: &str = "a secret of at least thirty-two bytes";

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    let secret = Secret::new(SECRET.as_bytes()).expect("the secret is long enough");
    let hs256 = verifier([JwtKey::Secret(secret)]);
    let token = token(&Key::hs256(SECRET));
    benches.bench("tokens/HS256", || verify(&hs256, &token).expect("the token is valid"));

    for (name, key) in [("RS256", Key::rs256()), ("ES256", Key::es256()), ("EdDSA", Key::eddsa())] {
        let verifier = verifier([public(&key)]);
        let token = self::token(&key);
        benches.bench(&format!("tokens/{name}"), || {
            verify(&verifier, &token).expect("the token is valid")
        });
    }

    // Created only if this benchmark runs: generating RSA keys is slow.
    let many = LazyCell::new(|| {
        let others = iter::repeat_with(Key::rs256).take(JwtSettings::MAX_KEYS);
        let verifier = verifier(others.map(|key| public(&key)));
        (verifier, self::token(&Key::rs256()))
    });
    benches.bench("tokens/RS256 by none of 16 keys", || {
        let (verifier, token) = &*many;
        verify(verifier, token).expect_err("no key matches")
    });
}

fn public(key: &Key) -> JwtKey {
    JwtKey::PublicPem(key.public_pem().to_owned())
}

fn verifier(keys: impl IntoIterator<Item = JwtKey>) -> JwtVerifier {
    let settings = JwtSettings::new(keys);
    JwtVerifier::new(&settings, Arc::new(SystemClock)).expect("the keys are valid")
}

fn token(key: &Key) -> BearerToken {
    let token = key.token("u42").sign();
    BearerToken::parse(&token).expect("the token is short").expect("there is a token")
}

fn verify(verifier: &JwtVerifier, token: &BearerToken) -> Result<Claims, TokenError> {
    verifier.verify(token).now_or_never().expect("no key is fetched")
}

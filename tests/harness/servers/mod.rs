//! The PostgreSQL and RabbitMQ servers of the tests.
//!
//! A server that tests share comes from the first of these sources that is available:
//!
//! 1. the URLs in `BELFRY_TEST_POSTGRES_URL` and `BELFRY_TEST_AMQP_URL` (and, if there is one,
//!    `BELFRY_TEST_RABBITMQ_MANAGEMENT_URL`);
//! 2. a Docker engine that can be reached, with the images `BELFRY_TEST_POSTGRES_IMAGE` and
//!    `BELFRY_TEST_RABBITMQ_IMAGE`;
//! 3. the server programs of this machine, run in a temporary folder on a free port of the loopback
//!    interface.
//!
//! A server that one test owns alone comes from source 2 or 3: a test never stops a server that others use.
//!
//! A server from source 2 or 3 belongs to a [`supervisor`], a small process whose standard input is a pipe
//! from the test process. When the test process ends, even by SIGKILL or Ctrl-C, the pipe closes and the
//! supervisor removes the server and its data.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

mod docker;
mod local;
mod ports;
mod ready;
mod supervised;
pub mod supervisor;

pub use ports::free as free_port;
pub(crate) use supervised::OwnServer;

use supervised::SupervisedServer;

/// The kinds of server that tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// RabbitMQ.
    Rabbit,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Postgres, Self::Rabbit];

    /// The variable with the URL of a server that runs already.
    fn url_variable(self) -> &'static str {
        match self {
            Self::Postgres => "BELFRY_TEST_POSTGRES_URL",
            Self::Rabbit => "BELFRY_TEST_AMQP_URL",
        }
    }

    /// The name of this kind on the supervisor's command line.
    fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Rabbit => "rabbitmq",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Rabbit => "RabbitMQ",
        })
    }
}

/// How to reach a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `postgres://…` with a superuser, or `amqp://…` with an administrator.
    pub url: String,
    /// RabbitMQ's management API, `http://user:password@host:port`; `None` if there is none.
    pub management: Option<String>,
}

const MANAGEMENT_VARIABLE: &str = "BELFRY_TEST_RABBITMQ_MANAGEMENT_URL";

/// The server that environment variables name; `None` if they name none.
fn given(kind: Kind) -> Option<Access> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(Access {
        url: variable(kind.url_variable())?,
        management: variable(MANAGEMENT_VARIABLE).filter(|_| kind == Kind::Rabbit),
    })
}

/// The server of this kind that all tests of this process share. The first call starts it.
///
/// # Panics
/// When no server can be started; the message says what to install.
pub async fn shared(kind: Kind) -> &'static Access {
    static POSTGRES: OnceLock<Result<Shared, String>> = OnceLock::new();
    static RABBIT: OnceLock<Result<Shared, String>> = OnceLock::new();

    let cell = match kind {
        Kind::Postgres => &POSTGRES,
        Kind::Rabbit => &RABBIT,
    };
    // On a blocking thread: the start takes seconds, and other tests that call this function block, too.
    let server = tokio::task::spawn_blocking(move || cell.get_or_init(|| Shared::of(kind)));
    match server.await.expect("starting a server does not panic") {
        Ok(shared) => &shared.access,
        Err(sentence) => panic!("{sentence}"),
    }
}

struct Shared {
    access: Access,
    /// Keeps the pipe to the supervisor open. A static is never dropped, so the pipe closes when this process
    /// exits.
    _server: Option<SupervisedServer>,
}

impl Shared {
    fn of(kind: Kind) -> Result<Self, String> {
        if let Some(access) = given(kind) {
            return Ok(Self { access, _server: None });
        }
        let server = SupervisedServer::start(kind, true)?;
        Ok(Self { access: server.access().clone(), _server: Some(server) })
    }
}

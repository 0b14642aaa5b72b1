//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use crate::config::Config;

/// Has the process open as many files as it is ever allowed to, and says so where that is too few for
/// the connections that the settings allow.
///
/// Many systems start processes with a soft limit of 1024, for programs that use `select(2)`; those that
/// do not are meant to raise it themselves (see `NOFILE` in systemd.exec(5)).
pub(super) fn provide(config: &Config) {
    let allowed = raise();
    if let Some(problem) = allowed.and_then(|allowed| shortage(config, allowed)) {
        warn!("{problem}");
    }
}

/// The most that may be open from now on; `None` for no limit.
fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            debug!(%error, "RLIMIT_NOFILE stays as it is");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// What to say where so many files are too few.
fn shortage(config: &Config, allowed: u64) -> Option<String> {
    /// The listeners, RabbitMQ, SQLite, the operators' connections, the runtime's own.
    const BESIDES: usize = 64;
    let connections = config.limits.connections;
    let besides = BESIDES.saturating_add(config.database.max_connections as usize);
    let needed = connections.saturating_add(besides) as u64;
    // Who sets no bound has to know what the system bears.
    (connections > 0 && allowed < needed).then(|| {
        format!(
            "limits.connections is {connections}, and RLIMIT_NOFILE lets this process open {allowed} \
             files: when they are used up nobody else gets in, so raise it to {needed} or lower the setting"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config(connections: &str) -> Config {
        let variables = [
            ("BELFRY_LIMITS__CONNECTIONS", connections),
            ("BELFRY_DATABASE__MAX_CONNECTIONS", "16"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Layers { variables: variables.into(), ..Layers::default() }.load().unwrap()
    }

    #[test]
    fn too_few_files_are_told_with_both_names() {
        assert_eq!(shortage(&config("1000"), 1_080), None);
        let problem = shortage(&config("1000"), 1_079).unwrap();
        for part in ["limits.connections is 1000", "RLIMIT_NOFILE", "1079", "1080"] {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(shortage(&config("0"), 10), None);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let lower = hard.map_or(4_096, |hard| hard - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum: hard }).unwrap();
        let allowed = raise();
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
        assert!(allowed.is_none_or(|allowed| allowed > lower), "{allowed:?}");
    }
}

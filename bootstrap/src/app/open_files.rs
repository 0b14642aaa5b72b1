//! The process's limit on open files (`RLIMIT_NOFILE`), which bounds the number of connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info, warn};

use crate::config::Config;

/// A connection limit below the setting, because the process may not open enough files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoweredLimit {
    /// The value of `limits.connections`.
    setting: usize,
    /// The limit in use.
    connections: usize,
    /// The number of files that the process may open.
    open_files: u64,
    /// Whether the setting comes from the operator and not from the defaults.
    is_set_by_operator: bool,
}

/// Raises the soft limit on open files to the hard limit. If that still allows too few files for
/// `limits.connections`, lowers the setting and returns the new limit. Otherwise connections could use up all
/// files, and Belfry could not reach the database any more.
///
/// Many systems start processes with a soft limit of 1024 for programs that use `select(2)`; other programs
/// should raise it (`NOFILE` in systemd.exec(5)).
pub(super) fn fit_connection_limit(config: &mut Config) -> Option<LoweredLimit> {
    let lowered = raise_open_file_limit()
        .and_then(|open_files| lowered_connection_limit(config, open_files))?;
    config.limits.connections = lowered.connections;
    Some(lowered)
}

impl LoweredLimit {
    /// Logs a warning if the operator set a limit that the process cannot reach, and otherwise a line at INFO.
    pub(super) fn log(&self) {
        let Self { setting, connections, open_files, is_set_by_operator } = self;
        if *is_set_by_operator {
            warn!(
                limits.connections = setting,
                connections,
                rlimit_nofile = open_files,
                "connection limit lowered to the open file limit; raise RLIMIT_NOFILE or lower limits.connections"
            );
        } else {
            info!(
                connections,
                rlimit_nofile = open_files,
                "connection limit derived from the open file limit"
            );
        }
    }
}

/// Raises the soft limit to the hard limit. Returns the new soft limit; `None` means no limit.
fn raise_open_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            debug!(%error, "cannot raise RLIMIT_NOFILE");
        }
    }
    getrlimit(Resource::Nofile).current
}

fn lowered_connection_limit(config: &Config, open_files: u64) -> Option<LoweredLimit> {
    /// Files for listeners, RabbitMQ, SQLite, admin connections and the runtime.
    const RESERVED: u64 = 64;
    let setting = config.limits.connections;
    let reserved = RESERVED + u64::from(config.database.max_connections);
    let available = usize::try_from(open_files.saturating_sub(reserved)).unwrap_or(usize::MAX);
    // A setting of 0 means no limit and is never lowered: an operator who sets it accepts the limits of the system.
    (setting > available).then(|| LoweredLimit {
        setting,
        connections: available.max(1),
        open_files,
        is_set_by_operator: config.limits.connections_is_explicit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn config(variables: &[(&str, &str)]) -> Config {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(own).collect();
        Config::load(Layers { variables, ..Layers::default() }).unwrap()
    }

    fn config_with_connections(connections: &str) -> Config {
        config(&[
            ("BELFRY_LIMITS__CONNECTIONS", connections),
            ("BELFRY_DATABASE__MAX_CONNECTIONS", "16"),
        ])
    }

    #[test]
    fn connection_limit_leaves_files_for_everything_else() {
        // 1000 connections, 64 reserved files and 16 database connections need 1080 files.
        assert_eq!(lowered_connection_limit(&config_with_connections("1000"), 1_080), None);
        let lowered = lowered_connection_limit(&config_with_connections("1000"), 1_079).unwrap();
        let expected = LoweredLimit {
            setting: 1000,
            connections: 999,
            open_files: 1_079,
            is_set_by_operator: true,
        };
        assert_eq!(lowered, expected);
        let tiny = lowered_connection_limit(&config_with_connections("1000"), 10).unwrap();
        assert_eq!(tiny.connections, 1, "0 would mean no limit");
        assert_eq!(lowered_connection_limit(&config_with_connections("0"), 10), None);
    }

    #[test]
    fn default_limit_is_not_set_by_the_operator() {
        assert!(!lowered_connection_limit(&config(&[]), 1_024).unwrap().is_set_by_operator);
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_limit() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let lower = hard.map_or(4_096, |hard| hard - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum: hard }).unwrap();
        let allowed = raise_open_file_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
        assert!(allowed.is_none_or(|allowed| allowed > lower), "{allowed:?}");
    }
}

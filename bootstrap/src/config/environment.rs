//! The environment variables that are settings.

use std::ffi::OsString;

use super::error::BadSettings;

/// Prefix of the variables that are settings.
pub(super) const PREFIX: &str = "BELFRY_";

/// The settings among the variables of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SettingVariables {
    /// Full name and value.
    pub(super) settings: Vec<(String, String)>,
    /// Names of the variables that an orchestrator has set.
    pub(super) injected: Vec<String>,
}

impl SettingVariables {
    /// Variables for flags: `--config`, and `--token` and `--url` of `belfry send`.
    const NOT_SETTINGS: [&str; 3] = ["BELFRY_CONFIG", "BELFRY_TOKEN", "BELFRY_URL"];
    /// Prefix of the variables that the tests use.
    const TEST_PREFIX: &str = "BELFRY_TEST_";

    /// Finds the settings. A name or value that is not UTF-8 is an error: otherwise a secret could be lost
    /// silently.
    pub(super) fn of(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, BadSettings> {
        let mut found = Self::default();
        for (name, value) in environment {
            if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let name = name.into_string().map_err(|name| {
                BadSettings::new(format!(
                    "the name of the variable {} is not UTF-8",
                    name.display()
                ))
            })?;
            if Self::NOT_SETTINGS.contains(&name.as_str()) || name.starts_with(Self::TEST_PREFIX) {
                continue;
            }
            let value = value.into_string().map_err(|_| {
                BadSettings::new(format!("the value of the variable {name} is not UTF-8"))
            })?;
            if is_injected(&name[PREFIX.len()..], &value) {
                found.injected.push(name);
            } else {
                found.settings.push((name, value));
            }
        }
        Ok(found)
    }
}

/// Whether an orchestrator has set the variable for a service whose name is `belfry` or begins with
/// `belfry-`. Kubernetes sets such variables in every container of the service's namespace:
/// `{SERVICE}_SERVICE_HOST`, `{SERVICE}_SERVICE_PORT`, `{SERVICE}_SERVICE_PORT_{NAME}`, and those of Docker's
/// container links, such as `{SERVICE}_PORT` and `{SERVICE}_PORT_8080_TCP_ADDR`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
///
/// `name` is without [`PREFIX`]. None of these names has two underscores in a row. The variables of settings do, so
/// no setting is mistaken for one of these.
fn is_injected(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    if words.contains(&"") {
        return false;
    }
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let is_protocol = |word: &str| ["TCP", "UDP", "SCTP"].contains(&word);
    match words.as_slice() {
        [.., "SERVICE", "HOST" | "PORT"] => true,
        [.., "PORT", port, protocol] | [.., "PORT", port, protocol, "PROTO" | "PORT" | "ADDR"]
            if is_number(port) && is_protocol(protocol) =>
        {
            true
        }
        words if words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]) => true,
        // `{SERVICE}_PORT` contains a URL. With a port number, the variable is an unknown setting.
        [.., "PORT"] => value.contains("://"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> SettingVariables {
        let own = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        SettingVariables::of(variables.iter().map(own)).unwrap()
    }

    #[test]
    fn variables_that_an_orchestrator_injects_are_not_settings() {
        for (name, value) in [
            ("BELFRY_SERVICE_HOST", "10.0.0.11"),
            ("BELFRY_SERVICE_PORT", "8080"),
            ("BELFRY_SERVICE_PORT_HTTP", "8080"),
            ("BELFRY_SERVICE_PORT_HTTP_ADMIN", "8081"),
            ("BELFRY_PORT", "tcp://10.0.0.11:8080"),
            ("BELFRY_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
            ("BELFRY_PORT_8080_TCP_PROTO", "tcp"),
            ("BELFRY_PORT_8080_TCP_PORT", "8080"),
            ("BELFRY_PORT_8080_TCP_ADDR", "10.0.0.11"),
            ("BELFRY_PORT_53_UDP", "udp://10.0.0.11:53"),
            ("BELFRY_WEB_SERVICE_HOST", "10.0.0.11"),
            ("BELFRY_WEB_ADMIN_SERVICE_PORT_METRICS", "8081"),
            ("BELFRY_WEB_PORT", "tcp://10.0.0.11:8080"),
            ("BELFRY_WEB_PORT_8080_TCP_ADDR", "10.0.0.11"),
        ] {
            let found = of(&[(name, value)]);
            assert_eq!((found.settings.len(), found.injected), (0, vec![name.to_owned()]));
        }
    }

    #[test]
    fn every_other_name_with_the_prefix_is_a_setting() {
        for (name, value) in [
            ("BELFRY_PORT", "8080"),
            ("BELFRY_HTTP_PORT", "8080"),
            ("BELFRY_HTTP__PORT", "tcp://10.0.0.11:8080"),
            ("BELFRY_HTTP__SERVICE_HOST", "10.0.0.11"),
            ("BELFRY_HTTP_LISTEN", "127.0.0.1:8080"),
            ("BELFRY_SERVICE", "x"),
            ("BELFRY_PORT_8080", "x"),
            ("BELFRY_PORT_HTTP_TCP", "x"),
            ("BELFRY_PORT_8080_TLS", "x"),
            ("BELFRY_CONFIGS", "x"),
            ("BELFRY_TOKENS", "x"),
            ("BELFRY_", "x"),
        ] {
            assert_eq!(of(&[(name, value)]).settings, [(name.to_owned(), value.to_owned())]);
        }
        for name in
            ["BELFRY_CONFIG", "BELFRY_TOKEN", "BELFRY_URL", "BELFRY_TEST_X", "BELFR", "HOME"]
        {
            assert_eq!(of(&[(name, "x")]), SettingVariables::default(), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn variable_that_is_not_utf8_is_an_error() {
        use std::os::unix::ffi::OsStringExt as _;

        let latin1 = |text: &str| OsString::from_vec([text.as_bytes(), b"\xe9"].concat());
        let of = |name: OsString, value: OsString| {
            SettingVariables::of([(name, value)]).map_err(|error| error.to_string())
        };
        let problem = of("BELFRY_AUTH__HS256_SECRET".into(), latin1("s3cret")).unwrap_err();
        assert_eq!(problem, "the value of the variable BELFRY_AUTH__HS256_SECRET is not UTF-8");
        let problem = of(latin1("BELFRY_NODE__NAM"), "a".into()).unwrap_err();
        assert!(problem.contains("BELFRY_NODE__NAM"), "{problem}");
        assert_eq!(of("HOME".into(), latin1("/home/ren")), Ok(SettingVariables::default()));
    }
}

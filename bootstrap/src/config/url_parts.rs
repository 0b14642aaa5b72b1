//! The parts of a connection URL, for checks and for messages without secrets.

use std::fmt;

/// The parts of `scheme://user:password@host:port/path?parameters`, percent-encoded as they are written.
/// Unlike in a URL, there may be several hosts: `host1:1,host2:2`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct UrlParts<'a> {
    scheme: &'a str,
    /// The part before the `@`; `None` without an `@`.
    user_info: Option<&'a str>,
    hosts: &'a str,
    /// Begins with a slash, or is empty.
    path: &'a str,
    query: &'a str,
}

impl<'a> UrlParts<'a> {
    /// Splits the URL (RFC 3986, section 3). `None` if the text is not a URL, or if an `@` follows the authority. Such a
    /// URL probably has a `/`, `?` or `#` in its password, so a part of the password would be taken for the path, the
    /// query or the fragment. In the value of a parameter an `@` is allowed if the authority has one, or if the parameter
    /// is `user`.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        let parts = Self { scheme, user_info, hosts, path, query };
        let is_misplaced = path.contains('@')
            || fragment.contains('@')
            || parts.parameters().any(|(name, value)| {
                name.contains('@') || (value.contains('@') && user_info.is_none() && name != "user")
            });
        (!is_misplaced).then_some(parts)
    }

    /// Whether the URL names several hosts, in its authority or in the parameter `host`.
    pub(super) fn has_several_hosts(&self) -> bool {
        self.hosts.contains(',')
            || self.parameters().any(|(name, value)| {
                ["host", "hostaddr"].contains(&name)
                    && (value.contains(',') || value.to_ascii_lowercase().contains("%2c"))
            })
    }

    /// Whether there is a password beside the user or among the parameters.
    pub(super) fn has_password(&self) -> bool {
        let beside_user = self.user_info.and_then(|it| it.split_once(':'));
        beside_user.is_some_and(|(_, password)| !password.is_empty())
            || self.parameters().any(|(name, _)| name.contains("password"))
    }

    /// Names and values of the parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let parts = self.query.split('&').filter(|part| !part.is_empty());
        parts.map(|part| part.split_once('=').unwrap_or((part, "")))
    }
}

/// Whether the URL has a password. Also `true` if the URL cannot be split and may have one.
pub(super) fn may_have_password(url: &str) -> bool {
    UrlParts::parse(url).map_or_else(|| url.contains('@'), |url| url.has_password())
}

/// The URL without the password and without the values of parameters, which may be secrets.
impl fmt::Display for UrlParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match self.user_info.map(|it| it.split_once(':').unwrap_or((it, ""))) {
            Some((user, "")) => write!(f, "{user}@")?,
            Some((user, _)) => write!(f, "{user}:…@")?,
            None => {}
        }
        write!(f, "{}{}", self.hosts, self.path)?;
        for (at, (name, _)) in self.parameters().enumerate() {
            write!(f, "{}{name}=…", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_and_parameter_values_are_not_displayed() {
        for (url, displayed) in [
            ("sqlite://belfry.db", "sqlite://belfry.db"),
            ("postgres://u:s3cret@h:1/d", "postgres://u:…@h:1/d"),
            ("postgres://u:s3c@ret@h/d?sslmode=s3cret&x", "postgres://u:…@h/d?sslmode=…&x=…"),
            ("amqp://u@h#s3cret", "amqp://u@h"),
            ("postgres:///d?host=/run", "postgres:///d?host=…"),
        ] {
            assert_eq!(UrlParts::parse(url).unwrap().to_string(), displayed, "{url}");
        }
        for url in ["", "s3cret"] {
            assert!(UrlParts::parse(url).is_none(), "{url}");
        }
    }

    #[test]
    fn url_with_an_unescaped_password_cannot_be_split() {
        for password in
            ["s3/cret", "s3?cret", "s3#cret", "s3?a=cret", "s3@b?cret", "s3@b#cret", "1?2"]
        {
            let url = format!("postgres://u:{password}@h/d");
            assert!(UrlParts::parse(&url).is_none(), "{url}");
            assert!(may_have_password(&url), "{url}");
        }
        for url in ["postgres://h/d?user=u@h", "postgres://u:p@h/d?application_name=a@b"] {
            assert!(UrlParts::parse(url).is_some(), "{url}");
        }
    }

    #[test]
    fn several_hosts_are_found_outside_the_password() {
        let several = |url| UrlParts::parse(url).unwrap().has_several_hosts();
        for url in [
            "postgres://h1,h2/d",
            "postgres://u:p@h1:5432,h2:5433/d?sslmode=require",
            "postgres://u:p@/d?host=h1,h2",
            "postgres://h/d?hostaddr=10.0.0.1%2C10.0.0.2",
        ] {
            assert!(several(url), "{url}");
        }
        for url in ["postgres://u,v:p,q@h/d,e?options=a,b", "postgres:///d?host=/run"] {
            assert!(!several(url), "{url}");
        }
    }

    #[test]
    fn password_is_beside_the_user_or_a_parameter() {
        let has_password = |url| UrlParts::parse(url).unwrap().has_password();
        for url in ["amqp://u:p@h", "postgres://h/d?password=p", "postgres://h/d?sslpassword=p"] {
            assert!(has_password(url), "{url}");
        }
        for url in ["amqp://u@h:1", "amqp://u:@h", "postgres://h:5432/d?sslmode=require"] {
            assert!(!has_password(url), "{url}");
        }
    }
}

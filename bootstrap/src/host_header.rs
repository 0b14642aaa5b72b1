//! The `Host` header of requests, which reveals DNS rebinding. In this attack a web site resolves its own name
//! to an address of this machine or network, so that its pages have the same origin as Belfry. The browser
//! still sends the name of the web site.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::HOST;

/// The name or address in the `Host` header, without port, brackets and trailing dot. `None` without the header;
/// browsers always send it.
pub(crate) fn name(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(HOST)?.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(name.trim_start_matches('[').trim_end_matches(']'))
}

/// Whether the name is `localhost` or a loopback address.
pub(crate) fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the name is useless for DNS rebinding: an IP address, a name without a dot, or a name in a domain
/// that the public DNS does not have (RFC 6761, RFC 6762; ICANN reserves `internal`; Kubernetes uses `svc`).
pub(crate) fn is_private(name: &str) -> bool {
    const DOMAINS: [&str; 4] = ["localhost", "local", "internal", "svc"];
    if name.is_empty() {
        return false;
    }
    let domain = name.rsplit_once('.').map(|(_, domain)| domain);
    name.parse::<IpAddr>().is_ok()
        || domain.is_none_or(|it| DOMAINS.iter().any(|private| it.eq_ignore_ascii_case(private)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(host: &str) -> String {
        let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        name(&headers).unwrap().to_owned()
    }

    #[test]
    fn port_brackets_and_final_dot_are_not_part_of_the_name() {
        for (host, expected) in [
            ("localhost", "localhost"),
            ("localhost:8080", "localhost"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8080", "::1"),
            ("[::1]", "::1"),
            ("belfry.:80", "belfry"),
            ("", ""),
        ] {
            assert_eq!(name_of(host), expected, "{host}");
        }
        assert_eq!(name(&HeaderMap::new()), None);
    }

    #[test]
    fn only_loopback_names_are_local_hosts() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST:1"] {
            assert!(is_loopback(&name_of(host)), "{host}");
        }
        for host in
            ["", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(&name_of(host)), "{host}");
        }
    }

    #[test]
    fn names_that_no_web_site_has_are_private() {
        for host in [
            "127.0.0.1:8081",
            "10.1.2.3:8081",
            "[fd00::1]:8081",
            "localhost",
            "belfry:8081",
            "belfry.shop.svc:8081",
            "belfry.shop.svc.cluster.local",
            "ip-10-0-0-1.ec2.internal",
        ] {
            assert!(is_private(&name_of(host)), "{host}");
        }
        for host in ["", "evil.example:8081", "127.0.0.1.nip.io", "localhost.evil.example."] {
            assert!(!is_private(&name_of(host)), "{host}");
        }
    }
}

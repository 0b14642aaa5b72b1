//! What the settings mean to each part.

use belfry_adapters::inbound::rest::{Cors, RequestLimits, RestSettings};
use belfry_adapters::inbound::socketio::SocketIoSettings;
use belfry_adapters::inbound::socketio::engine::EngineSettings;
use belfry_adapters::limits::{PerSecond, UserWork};
use belfry_application::access::Access;
use belfry_application::session::{self, SessionLimit};
use belfry_application::use_cases::RetentionPolicy;

use crate::config::{Config, Http, Limits, Over, RequiredScopes, Retention};

pub(super) fn access(scopes: &RequiredScopes) -> Access {
    let unless_empty = |scope: &str| (!scope.is_empty()).then(|| scope.into());
    Access {
        read: unless_empty(&scopes.read),
        change: unless_empty(&scopes.change),
        create: scopes.create.as_str().into(),
        revoke: scopes.revoke.as_str().into(),
    }
}

pub(super) fn session_limit(limits: &Limits) -> Option<SessionLimit> {
    let on_excess = match limits.over {
        Over::Oldest => session::ExcessPolicy::EvictOldest,
        Over::Newest => session::ExcessPolicy::RejectNewest,
    };
    (limits.sessions_per_user > 0)
        .then_some(SessionLimit { per_user: limits.sessions_per_user, on_excess })
}

pub(super) fn retention_rules(settings: &Retention) -> RetentionPolicy {
    RetentionPolicy {
        notifications: settings.notifications,
        deleted: settings.deleted,
        requests: settings.idempotency_keys,
        revocations: settings.revocations,
        interval: settings.every,
        ..RetentionPolicy::default()
    }
}

pub(super) fn socket_settings(config: &Config) -> SocketIoSettings {
    SocketIoSettings {
        engine: EngineSettings {
            ping_interval: config.socket.ping_interval,
            ping_timeout: config.socket.ping_timeout,
            queue: config.socket.queue,
            queue_bytes: config.socket.queue_bytes,
            max_payload: config.socket.max_payload,
            polling_sessions: unless_zero(config.limits.connections),
            ..EngineSettings::default()
        },
        connect_timeout: config.socket.connect_timeout,
        token_in_query: config.socket.token_in_query,
        handshakes: PerSecond::new(config.limits.handshakes_per_second),
        handshakes_per_address: PerSecond::new(config.limits.handshakes_per_address),
        messages: PerSecond::new(config.limits.messages_per_second),
    }
}

pub(super) fn rest_settings(http: &Http) -> RestSettings {
    RestSettings {
        max_body: http.max_body,
        request_timeout: http.request_timeout,
        cors: Cors {
            origins: http.cors_origins.clone(),
            credentials: http.cors_credentials,
            headers: http.cors_headers.clone(),
        },
        base_path: http.base_path.clone(),
    }
}

/// What REST and the sockets share.
pub(super) fn user_work(config: &Config) -> UserWork {
    // Eight keep a user with many devices busy. Fewer where these would be most of the connections.
    const AT_ONCE: u32 = 8;
    let at_once = (config.database.max_connections / 2).clamp(1, AT_ONCE);
    UserWork::new(PerSecond::new(config.limits.work_per_user), at_once as usize)
}

pub(super) fn request_limits(limits: &Limits, work: UserWork) -> RequestLimits {
    let requests = PerSecond::new(limits.requests_per_second);
    RequestLimits::new(requests, PerSecond::new(limits.writes_per_second), work)
}

/// A limit where 0 stands for none.
pub(super) const fn unless_zero(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

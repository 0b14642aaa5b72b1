//! The routes of the public listener.

use std::sync::Arc;

use axum::Router;
use belfry_adapters::inbound::rest::{self, DraftFactory, RestParts, RestSettings};
use belfry_adapters::inbound::socketio::{SocketIoParts, SocketIoServer};
use belfry_adapters::limits::UserWork;
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::outbound::socketio::SocketIoSessions;
use belfry_application::use_cases::{EraseUser, RevokeTokens, SignIn};
use tower::util::option_layer;

use super::context::AppContext;
use super::security_headers::with_security_headers;
use super::use_cases::Inboxes;
use crate::config::{BadSettings, Config};
use crate::store::Store;
use crate::web;

/// The dependencies of the routes on the rest of the server.
pub(super) struct RouteDeps<'a> {
    pub(super) context: &'a AppContext,
    pub(super) store: &'a Store,
    pub(super) inboxes: Inboxes<'a>,
    pub(super) sessions: &'a Arc<SocketIoSessions>,
    pub(super) sign_in: SignIn,
    pub(super) user_work: UserWork,
    pub(super) revoke_tokens: RevokeTokens,
    /// Signs the tokens of the development page; `None` if a key is configured.
    pub(super) development: Option<Arc<TokenMint>>,
}

/// REST, Socket.IO and the development page.
pub(super) fn public(deps: RouteDeps<'_>) -> Result<Router, BadSettings> {
    let RouteDeps {
        context,
        store,
        inboxes,
        sessions,
        sign_in,
        user_work,
        revoke_tokens,
        development,
    } = deps;
    let Config { http, limits, notifications, socket, .. } = &context.config;
    let clock = &context.clock;
    let settings = Arc::new(http.rest_settings());
    let socket_io = SocketIoServer::new(SocketIoParts {
        sessions: sessions.clone(),
        use_cases: inboxes.socket_use_cases(clock),
        work: user_work.clone(),
        settings: socket.server_settings(limits)?,
    });
    let sockets = socket_routes(socket_io, &settings);
    let cors = settings.cors.clone();
    let development = development.filter(|_| context.config.serves_development_page());
    let page = development.map(|mint| web::routes(&http.base_path, mint, clock.clone()));
    let router = rest::router(RestParts {
        sign_in,
        drafts: DraftFactory {
            ids: context.ids.clone(),
            clock: clock.clone(),
            links: notifications.links(),
        },
        inbox: inboxes.rest_use_cases(clock),
        revoke_tokens,
        erase_user: EraseUser::new(store.erasure.clone()),
        readiness: context.readiness.clone(),
        limits: limits.request_limits(user_work),
        settings,
    })
    .merge(sockets)
    .merge(page.unwrap_or_default());
    let cookie = context.config.auth.cookie.as_ref();
    let router = rest::with_cookie_tokens(router, cookie, &cors);
    Ok(with_security_headers(router))
}

fn socket_routes(server: SocketIoServer, settings: &RestSettings) -> Router {
    let routes = Router::new()
        .route_service("/socket.io/", server.clone())
        .route_service("/socket.io", server);
    rest::check_origin(settings.base_path.nest(routes), &settings.cors)
        .layer(option_layer(rest::cors_layer(&settings.cors)))
}

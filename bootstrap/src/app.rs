//! The application, put together: every port gets its adapter here and nowhere else.

mod admin;
mod events;
mod keys;
mod listening;
mod open_files;
mod runtime;
mod settings;
mod stories;

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use belfry_adapters::inbound::amqp::NodeQueueState;
use belfry_adapters::inbound::rest::{
    self, DraftFactory, Readiness, ReadinessCheck, RestParts, RestSettings,
};
use belfry_adapters::inbound::socketio::{SocketIoParts, SocketIoServer};
use belfry_adapters::outbound::jwt::{JwtVerifier, TokenMint};
use belfry_adapters::outbound::socketio::{SocketIoDelivery, SocketIoSessions};
use belfry_adapters::outbound::system::{SystemClock, UuidV7Ids};
use belfry_adapters::transport::{ListenAddress, Server};
use belfry_application::ports::{Clock, IdGenerator, PortError, Scopes};
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::session::{SessionSettings, Sessions};
use belfry_application::use_cases::{
    ApplyRetention, CatchUp, CreateNotification, RevokeTokens, SignIn,
};
use belfry_domain::UserId;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::option_layer;
use tracing::{error, info, warn};

use crate::config::{Config, Http};
use crate::store::{self, Store};
use crate::{telemetry, web};
pub(crate) use events::broker;
use events::{Events, Needs};
use keys::Keys;
pub(crate) use keys::jwt_settings;
use listening::{serve, url, with_safe_headers};
use runtime::Runtime;
use settings::{
    access, request_limits, rest_settings, retention_rules, session_limit, socket_settings,
    user_work,
};

/// How many devices that have missed something are let catch up at a time. Each asks the store.
const CATCHING_UP_AT_ONCE: usize = 4;

/// Belfry, ready to run: it knows its addresses already.
pub struct App {
    config: Config,
    http: Server,
    admin: Server,
    router: Router,
    admin_router: Router,
    store: Store,
    events: Events,
    events_runtime: Handle,
    retention: ApplyRetention,
    sessions: Arc<SocketIoSessions>,
    database_up: ReadinessCheck,
    revocations_known: ReadinessCheck,
    keys: Keys,
    metrics: PrometheusHandle,
    runtime: Runtime,
    greeting: Vec<String>,
}

impl App {
    /// Puts everything together and binds the addresses. Whatever is merely down now is no error:
    /// it is waited for while the app runs.
    ///
    /// Events are to be taken in, relayed and told on the threads of `events_runtime`, everything else on
    /// those of the caller.
    pub async fn build(config: Config, events_runtime: Handle) -> anyhow::Result<Self> {
        let metrics = telemetry::metrics()?;
        let (http, admin) = listening::open(&config).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn IdGenerator> = Arc::new(UuidV7Ids);
        let jwt = jwt_settings(&config.auth)?;
        let verifier =
            Arc::new(JwtVerifier::new(&jwt, clock.clone()).context("settings in [auth]")?);
        let sign_in = SignIn::new(
            verifier.clone(),
            clock.clone(),
            Arc::new(RevokedTokens::not_loaded()),
            access(&config.auth.scopes),
        );

        let store = store::open(&config.database).await?;
        let inboxes = store.inboxes();
        let sessions = Arc::new(Sessions::new(
            sign_in.clone(),
            CatchUp::new(inboxes.clone(), config.socket.catch_up_limit),
            clock.clone(),
            SessionSettings { limit: session_limit(&config.limits), ..SessionSettings::default() },
        ));
        let revoke_tokens = RevokeTokens::new(store.revocations(), clock.clone());
        let needs = Needs {
            store: &store,
            delivery: Arc::new(SocketIoDelivery::new(sessions.clone())),
            clock: clock.clone(),
            ids: ids.clone(),
            revoke_tokens: revoke_tokens.clone(),
        };
        let events = Events::build(&config, &config.node_name(&http.address()?), needs)?;
        let work = user_work(&config);
        let socket_io = SocketIoServer::new(SocketIoParts {
            sessions: sessions.clone(),
            use_cases: stories::of_devices(&inboxes, &clock),
            work: work.clone(),
            settings: socket_settings(&config),
        });
        let retention = ApplyRetention::new(
            store.retention(),
            clock.clone(),
            retention_rules(&config.retention),
        );
        let readiness = Readiness::default();
        let database_up = readiness.register("database");
        let revocations_known = readiness.register("revocations");
        let keys = Keys::new(verifier, &readiness);
        let create = CreateNotification::new(inboxes.clone());
        let settings = rest_settings(&config.http);
        let mut router = rest::router(RestParts {
            sign_in,
            create,
            drafts: DraftFactory { ids, clock: clock.clone() },
            use_cases: stories::of_callers(&inboxes, &clock),
            revoke_tokens,
            readiness: readiness.clone(),
            limits: request_limits(&config.limits, work),
            settings: settings.clone(),
        })
        .merge(socket_routes(socket_io, &settings));
        let mut greeting = listening::greeting(&config, &http, &admin)?;
        if config.auth.is_development() {
            let key = Arc::new(TokenMint::new(&jwt)?);
            greeting.extend(development_greeting(&config.http, &http.address()?, &key, &*clock));
            router = router.merge(web::routes(&settings.base_path, key, clock));
        }
        let threads = [Handle::current(), events_runtime.clone()];
        let runtime = Runtime::new(threads, &http, &admin, sessions.clone());
        let admin_router =
            with_safe_headers(admin::routes(metrics.clone(), readiness, runtime.clone()));
        // Last, so that what stops the start is all that is said then.
        open_files::provide(&config);
        Ok(Self {
            config,
            http,
            admin,
            router: with_safe_headers(router),
            admin_router,
            store,
            events,
            events_runtime,
            retention,
            sessions,
            database_up,
            revocations_known,
            keys,
            metrics,
            runtime,
            greeting,
        })
    }

    /// What to say on standard output once the app runs: its addresses, and how to try it.
    pub fn greeting(&self) -> Vec<String> {
        self.greeting.clone()
    }

    /// Serves until told to stop, then finishes what is under way, within the bound that is set. Keys for
    /// tokens are read again when `reload` says so.
    pub async fn run(self, reload: Arc<Notify>, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            config,
            http,
            admin,
            router,
            admin_router,
            store,
            events,
            events_runtime,
            retention,
            sessions,
            database_up,
            revocations_known,
            keys,
            metrics,
            runtime,
            greeting: _,
        } = self;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            database = store.kind(),
            events = if config.amqp.url.is_some() { "RabbitMQ" } else { "in-process" },
            "serving"
        );
        let connections = CancellationToken::new();
        let work = TaskTracker::new();
        if let Some(state) = events.node_queue_state() {
            work.spawn(mend_gaps(state, sessions.clone(), connections.clone()));
        }
        let mut working = tokio::spawn({
            let (store, sessions) = (store.clone(), sessions.clone());
            let (stop, end) = (stop.clone(), connections.clone());
            async move {
                if store.become_usable(config.database.migrate, &stop).await? {
                    tokio::join!(
                        store.watch(database_up, stop.clone()),
                        retention.run(stop.clone()),
                        sessions.poll_revocations(store.revocations(), end.clone()),
                        async {
                            let known = sessions.revocations_loaded();
                            if end.run_until_cancelled(known).await.is_some() {
                                revocations_known.up();
                            }
                        },
                        async {
                            // What panicked has said so where it did; the others finish all the same.
                            if let Err(error) = events_runtime.spawn(events.run(stop)).await {
                                error!(%error, "events did not end well");
                            }
                        }
                    );
                }
                Ok::<_, PortError>(())
            }
        });
        work.spawn({
            let (sessions, stop) = (sessions.clone(), connections.clone());
            async move { sessions.run_expiry(stop).await }
        });
        // As long as there are connections: until the end a device may come back with a new token.
        work.spawn(keys.keep(reload, connections.clone()));
        for _ in 0..CATCHING_UP_AT_ONCE {
            let (sessions, stop) = (sessions.clone(), connections.clone());
            work.spawn(async move { sessions.catch_up_lagging(stop).await });
        }
        work.spawn(admin::measure(metrics, runtime, store.outbox(), connections.clone()));
        let mut serving = serve(http, router, &connections);
        let mut serving_admin = serve(admin, admin_router, &connections);

        tokio::select! {
            () = stop.cancelled() => {}
            ended = &mut working => return ended?.context("the database cannot be used"),
            // They accept until they are told to stop, so that these can only have panicked.
            ended = &mut serving => return ended.context("the public listener ended"),
            ended = &mut serving_admin => return ended.context("the admin listener ended"),
        }
        let wind_down = async {
            connections.cancel();
            sessions.drain(config.shutdown.spread).await;
            work.close();
            work.wait().await;
            // A failure here was one of starting, and came when it was over anyway.
            let _ = working.await;
            // They have stopped accepting; what they end with was logged where it happened.
            let _ = tokio::join!(serving, serving_admin);
            store.close().await;
        };
        if tokio::time::timeout(config.shutdown.timeout, wind_down).await.is_ok() {
            info!("stopped");
        } else {
            warn!(timeout = ?config.shutdown.timeout, "stopped before all was done");
        }
        Ok(())
    }
}

/// Whenever events may have passed this node's queue by, its devices catch up with the store.
async fn mend_gaps(
    mut state: watch::Receiver<NodeQueueState>,
    sessions: Arc<SocketIoSessions>,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(state.changed()).await {
        let attached_with_gap =
            matches!(*state.borrow_and_update(), NodeQueueState::Attached { missed: true, .. });
        if attached_with_gap {
            stop.run_until_cancelled(sessions.catch_up_all()).await;
        }
    }
}

fn socket_routes(server: SocketIoServer, settings: &RestSettings) -> Router {
    let routes = Router::new()
        .route_service("/socket.io/", server.clone())
        .route_service("/socket.io", server);
    rest::check_origin(settings.base_path.nest(routes), &settings.cors)
        .layer(option_layer(rest::cors_layer(&settings.cors)))
}

/// How to try it: a page, and a line that makes a notification appear on it.
fn development_greeting(
    http: &Http,
    address: &ListenAddress,
    mint: &TokenMint,
    clock: &dyn Clock,
) -> Vec<String> {
    let scheme = http.scheme();
    // Nobody has signed the certificate of a machine that things are tried on.
    let insecure = if scheme == "https" { "-k " } else { "" };
    let (curl, base) = match address {
        ListenAddress::Tcp(_) => (format!("curl {insecure}"), url(scheme, address)),
        ListenAddress::Unix(path) => (
            format!("curl {insecure}--unix-socket {} ", path.display()),
            format!("{scheme}://localhost"),
        ),
    };
    let base = format!("{base}{}", http.base_path);
    let user = UserId::parse("curl").expect("visible characters only");
    let token = mint.mint(&user, &[Scopes::WRITE], web::TOKEN_LIFE, clock.now());
    vec![
        String::new(),
        format!("  Open  {base}/  and then, to see a notification appear there:"),
        String::new(),
        format!(
            "  {curl}-X POST {base}/v1/notifications -H 'content-type: application/json' \\\n    \
             -H 'authorization: Bearer {token}' \\\n    \
             -d '{{\"userId\":\"alice\",\"title\":\"Hello, Alice\",\"message\":\"It works.\"}}'"
        ),
        String::new(),
        "  This is the development sign-in: on loopback only, for nobody but you.".to_owned(),
    ]
}

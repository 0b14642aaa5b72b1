//! The server: connects every port with its adapter and runs its tasks until shutdown.

mod admin;
mod context;
mod events;
mod gauges;
mod keys;
mod listening;
mod open_files;
mod process_stats;
mod prometheus;
mod risks;
mod routes;
mod security_headers;
mod sessions;
mod startup_banner;
mod storage;
mod tasks;
mod use_cases;

use std::sync::Arc;

use belfry_adapters::outbound::jwt::{JwtSettings, JwtVerifier, TokenMint};
use belfry_adapters::outbound::socketio::{SocketIoDelivery, SocketIoSessions};
use belfry_application::access::Access;
use belfry_application::revoked_tokens::RevokedTokens;
use belfry_application::use_cases::{RevokeTokens, SignIn};
use tokio::runtime::Handle;
use tracing::{info, warn};

use self::context::AppContext;
use self::events::{EventDeps, Events};
pub(crate) use self::keys::jwt_settings;
use self::listening::Listeners;
use self::process_stats::ProcessStats;
use self::prometheus::Prometheus;
pub(crate) use self::risks::log as log_risks;
use self::routes::RouteDeps;
use self::tasks::{Supervisor, Task};
use self::use_cases::Inboxes;
use crate::config::{Config, IngestMode};
use crate::signals::Signals;
use crate::store::Store;

/// A server that is ready to run. Its addresses are bound.
pub struct App {
    context: AppContext,
    tasks: Vec<Task>,
    sessions: Arc<SocketIoSessions>,
    store: Store,
    startup_banner: Vec<String>,
}

impl App {
    /// Builds all parts and binds the addresses. A database or broker that is down is not an error; the
    /// server waits for it.
    ///
    /// Events are received, relayed and delivered on the threads of `events_runtime`. Everything else
    /// runs on the runtime of the caller.
    pub async fn build(
        mut config: Config,
        Signals { stop, reload }: Signals,
        events_runtime: Handle,
    ) -> anyhow::Result<Self> {
        let lowered_limit = open_files::fit_connection_limit(&mut config);
        let metrics = Prometheus::install()?;
        let listeners = Listeners::bind(&config).await?;
        let context = AppContext::new(config, stop);
        let mut tasks = Vec::new();

        let jwt = jwt_settings(&context.config)?;
        let (verifier, keys_task) = keys::build(&context, &jwt, reload)?;
        tasks.push(keys_task);
        let (store, store_tasks) = storage::open(&context).await?;
        tasks.extend(store_tasks);
        let sign_in = sign_in(&context, verifier);
        let user_work = context.config.limits.user_work(context.config.database.max_connections);
        let (sessions, session_tasks) =
            sessions::build(&context, sign_in.clone(), &store, user_work.clone());
        tasks.extend(session_tasks);

        let (revocations, clock) = (store.revocations.clone(), context.clock.clone());
        let revoke_tokens = RevokeTokens::new(revocations, sessions.clone(), clock);
        let node = context.config.node.name_at(&listeners.public.address()?);
        let delivery = Arc::new(SocketIoDelivery::new(sessions.clone()));
        let deps =
            EventDeps { context: &context, store: &store, delivery, revoke_tokens: &revoke_tokens };
        let events = Events::build(&node, &deps)?;
        let node_queue = events.node_queue_state();
        tasks.extend(node_queue.map(|it| sessions::catch_up_after_gaps(&context, &sessions, it)));
        let inbox_owner = events.inbox_owner();
        tasks.push(events.into_task(&store).on(events_runtime.clone()));

        let stats = ProcessStats::new([Handle::current(), events_runtime], &listeners, &sessions);
        tasks.push(gauges::task(&context, metrics.recorder(), stats.clone(), store.outbox.clone()));
        let admin = admin::routes(&context, metrics, stats);
        let development = development_mint(&context, &jwt)?;
        let startup_banner = startup_banner::lines(&context, &listeners, development.as_deref())?;
        let public = routes::public(RouteDeps {
            context: &context,
            store: &store,
            inboxes: match context.config.amqp.ingest.mode {
                IngestMode::Store => Inboxes::Kept(&store.inboxes),
                IngestMode::Forward => Inboxes::KeptElsewhere(inbox_owner),
            },
            sessions: &sessions,
            sign_in,
            user_work,
            revoke_tokens,
            development,
        })?;
        tasks.extend(listeners.serve(&context, public, admin));

        // These warnings come last, so that they do not hide an error that stops the start.
        if let Some(lowered_limit) = lowered_limit {
            lowered_limit.log();
        }
        risks::log(&context.config);
        Ok(Self { context, tasks, sessions, store, startup_banner })
    }

    /// Lines for standard output: the bound addresses and, with a development key, how to try the server.
    pub fn startup_banner(&self) -> &[String] {
        &self.startup_banner
    }

    /// Runs all tasks until a shutdown is requested, then shuts down within `shutdown.timeout`. A task that
    /// fails or ends earlier stops the server with an error.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { context, tasks, sessions, store, startup_banner: _ } = self;
        let Config { amqp, shutdown, .. } = &context.config;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            database = store.kind(),
            events = if amqp.url.is_some() { "RabbitMQ" } else { "in-process" },
            settings_file =
                context.config.settings_file.as_ref().map(|it| it.display().to_string()),
            "server started"
        );
        let mut supervisor = Supervisor::spawn(tasks);
        supervisor.run_until(&context.stop).await?;

        // Listeners no longer accept connections, and no message is consumed. Now the devices are
        // disconnected, so that they move to other nodes. Then the tasks finish their work in flight, and
        // the store closes last.
        let drain = async {
            sessions.drain(shutdown.spread).await;
            supervisor.join().await;
            store.close().await;
        };
        if tokio::time::timeout(shutdown.timeout, drain).await.is_ok() {
            info!("server stopped");
        } else {
            warn!(timeout = ?shutdown.timeout, "shutdown timed out; exiting with unfinished work");
        }
        Ok(())
    }
}

fn sign_in(context: &AppContext, verifier: Arc<JwtVerifier>) -> SignIn {
    let auth = &context.config.auth;
    let access = Access::from(&auth.scopes);
    let revoked = Arc::new(RevokedTokens::not_loaded().with_leeway(auth.leeway));
    SignIn::new(verifier, context.clock.clone(), revoked, access)
}

/// Signs tokens for the development page; `None` if a key is configured.
fn development_mint(
    context: &AppContext,
    jwt: &JwtSettings,
) -> anyhow::Result<Option<Arc<TokenMint>>> {
    let is_development = context.config.auth.is_development();
    Ok(is_development.then(|| TokenMint::new(jwt)).transpose()?.map(Arc::new))
}

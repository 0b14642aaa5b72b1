//! The rate of single-row inserts into PostgreSQL on this machine, as measured by pgbench.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::rig::Rig;

const TABLE: &str = "create table notifications (user_id text not null, id text not null, \
    revision bigint not null, created_at timestamptz not null, kind text not null, \
    title text not null, message text not null, data json, primary key (user_id, id))";

/// pgbench chooses a random `:user`, and PostgreSQL generates the id.
const SCRIPT: &str = "\\set user random(1, 1000)\n\
    insert into notifications values ('u' || :user, gen_random_uuid()::text, 1, now(), \
    'order.shipped', 'Your order is on its way', 'It left our warehouse this morning and will be \
    with you tomorrow.', '{\"orderId\":7}');\n";

/// Inserts per second, one per transaction, by 16 clients for ten seconds.
pub(crate) async fn inserts_per_second(rig: &Rig) -> anyhow::Result<f64> {
    let database = rig.fresh_database().await;
    let mut connection = PgConnection::connect(database.url()).await?;
    sqlx::raw_sql(TABLE).execute(&mut connection).await?;
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), SCRIPT)?;
    let pgbench = program().context("pgbench is not installed")?;
    let output = Command::new(pgbench)
        .args(["--no-vacuum", "--client=16", "--jobs=1", "--time=10", "--protocol=prepared"])
        .arg("--file")
        .arg(script.path())
        .arg(database.url())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("pgbench printed no tps: {text}"))
}

/// The path of pgbench, in the folders of `PATH` or in those of Debian's PostgreSQL packages.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    std::env::split_paths(&path).chain(debian).map(|it| it.join("pgbench")).find(|it| it.exists())
}

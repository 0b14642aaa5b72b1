use sqlx::migrate::Migrator;

/// Whether all migrations of this version are among the applied ones. A newer version may have
/// applied more.
pub(crate) fn is_migrated(migrations: &Migrator, applied: &[i64]) -> bool {
    migrations.iter().all(|migration| applied.contains(&migration.version))
}

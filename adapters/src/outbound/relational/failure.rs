/// Whether an error that no database told is about the very values of this request: they could not be
/// turned into parameters, or what is stored could not be turned into values. All others (the network,
/// a pool that is exhausted or closed, …) another request would meet as well.
pub(crate) fn concerns_the_values(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Configuration(_)
            | sqlx::Error::InvalidArgument(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
    )
}

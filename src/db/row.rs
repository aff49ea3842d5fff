//! Reading a row.

use std::str::FromStr;

use sqlx::Row as _;
use sqlx::any::AnyRow;

/// The text of a column, parsed.
///
/// # Errors
/// When the column is missing, or holds another kind of text.
pub(crate) fn parsed<T>(row: &AnyRow, at: usize) -> sqlx::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.try_get(at)?;
    text.parse()
        .map_err(|err| sqlx::Error::Decode(Box::new(err)))
}

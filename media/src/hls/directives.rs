//! Delivery directives: `_HLS_msn`, `_HLS_part`, `_HLS_skip` (RFC 8216bis 6.2.5).

/// Bytes of a query that are read at all.
const QUERY_BYTES_MAX: usize = 2_048;

/// Which segments a delta update leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Old segments.
    Segments,
    /// Old segments and old date ranges.
    DateRanges,
}

/// What a playlist request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Wait for this segment, or a part of it.
    pub msn: Option<u64>,
    /// Wait for this part of it.
    pub part: Option<u64>,
    /// Send a delta.
    pub skip: Option<Skip>,
}

/// The directives cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadDirectives(pub &'static str);

impl Directives {
    /// Reads a query; parameters that are no directives are left alone, in any order.
    ///
    /// # Errors
    /// [`BadDirectives`] when a directive is repeated, not decimal, or alone where it may not be.
    pub fn parse(query: &str) -> Result<Self, BadDirectives> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(BadDirectives("the query is longer than 2048 bytes"));
        }
        let mut directives = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => set(&mut directives.msn, decimal(value)?)?,
                "_HLS_part" => set(&mut directives.part, decimal(value)?)?,
                "_HLS_skip" => set(&mut directives.skip, skip(value)?)?,
                _ => {}
            }
        }
        if directives.part.is_some() && directives.msn.is_none() {
            return Err(BadDirectives("_HLS_part needs _HLS_msn"));
        }
        Ok(directives)
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), BadDirectives> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadDirectives("a directive may stand once")),
    }
}

fn decimal(value: &str) -> Result<u64, BadDirectives> {
    let is_decimal = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = value.parse().ok().filter(|_| is_decimal);
    number.ok_or(BadDirectives(
        "_HLS_msn and _HLS_part take decimal integers",
    ))
}

fn skip(value: &str) -> Result<Skip, BadDirectives> {
    match value {
        "YES" => Ok(Skip::Segments),
        "v2" => Ok(Skip::DateRanges),
        _ => Err(BadDirectives("_HLS_skip takes YES or v2")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn directives_are_read_in_any_order_beside_other_parameters() {
        let cases = [
            ("", (None, None, None)),
            ("s=abc", (None, None, None)),
            ("_HLS_msn=7", (Some(7), None, None)),
            ("_HLS_part=2&s=x&_HLS_msn=7", (Some(7), Some(2), None)),
            ("_HLS_skip=YES", (None, None, Some(Skip::Segments))),
            (
                "_HLS_skip=v2&_HLS_msn=0",
                (Some(0), None, Some(Skip::DateRanges)),
            ),
        ];
        for (query, (msn, part, skip)) in cases {
            assert_eq!(
                Directives::parse(query),
                Ok(Directives { msn, part, skip }),
                "{query}"
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let long = format!("_HLS_msn=1&x={}", "y".repeat(QUERY_BYTES_MAX));
        for query in [
            "_HLS_part=1",
            "_HLS_msn=-1",
            "_HLS_msn=+1",
            "_HLS_msn=18446744073709551616",
            "_HLS_msn=1&_HLS_msn=2",
            "_HLS_msn=",
            "_HLS_skip=yes",
            &long,
        ] {
            assert!(Directives::parse(query).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_makes_the_reader_panic(query in ".{0,200}") {
            let _ = Directives::parse(&query);
        }
    }
}

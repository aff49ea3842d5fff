//! Errors on the wire: RFC 9457 problems with a stable code.
//!
//! Invariant: clients decide by `code`; `detail` says what to do and never holds a secret.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

/// Entries of `errors[]`.
const BOUNDS_MAX: usize = 20;

/// The stable word for what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Malformed,
    UnknownField,
    UnknownFilter,
    BadCursor,
    Unauthenticated,
    CredentialsWrong,
    Forbidden,
    OriginRefused,
    GrantExceedsOwn,
    AccountSuspended,
    RegistrationClosed,
    NotFound,
    MethodNotAllowed,
    InvalidState,
    LimitReached,
    DuplicateExternalId,
    PriceWindowOverlaps,
    LastOwner,
    RoomEnded,
    RoomNotLive,
    ShelfFull,
    NumberTaken,
    NoMedia,
    HandleTaken,
    NotLive,
    MediaNotLive,
    PublisherBusy,
    IdUsed,
    IdempotencyInProgress,
    Gone,
    PreconditionFailed,
    Stale,
    PreconditionRequired,
    Timeout,
    TooLarge,
    UnsupportedMediaType,
    OutOfBounds,
    HandleInvalid,
    HandleReserved,
    PasswordWeak,
    IdempotencyKeyReused,
    CueTooLarge,
    Unservable,
    AtOutOfRange,
    CardTooLarge,
    CommissionNotAgreed,
    CouponNotActive,
    OfferInvalid,
    OfferExpired,
    OfferNotStarted,
    DealNotStarted,
    DealEnded,
    AmountOutOfRange,
    StockChanged,
    OrderAlreadyPaid,
    OrderClosing,
    SoldOut,
    InsufficientStock,
    PurchaseLimitReached,
    PriceChanged,
    PriceUnconfirmed,
    NotSellable,
    SeveralMerchants,
    SeveralCurrencies,
    EmptyCart,
    AddressRequired,
    InsufficientFunds,
    ProviderNotAvailable,
    IdempotencyKeyMissing,
    RateLimited,
    Internal,
    Busy,
}

impl Code {
    pub(crate) const fn status(self) -> StatusCode {
        self.row().1
    }

    /// The code as a phrase: `out_of_bounds` is "Out of bounds".
    fn title(self) -> String {
        let words = self.row().0.replace('_', " ");
        let mut letters = words.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect()
    }

    /// Whether the same request may succeed later without a change.
    const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::IdempotencyInProgress
                | Self::NotLive
                | Self::MediaNotLive
                | Self::PublisherBusy
                | Self::RateLimited
                | Self::Internal
                | Self::Busy
        )
    }

    const fn row(self) -> (&'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::Malformed => ("malformed", S::BAD_REQUEST),
            Self::UnknownField => ("unknown_field", S::BAD_REQUEST),
            Self::UnknownFilter => ("unknown_filter", S::BAD_REQUEST),
            Self::BadCursor => ("bad_cursor", S::BAD_REQUEST),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED),
            Self::CredentialsWrong => ("credentials_wrong", S::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", S::FORBIDDEN),
            Self::OriginRefused => ("origin_refused", S::FORBIDDEN),
            Self::GrantExceedsOwn => ("grant_exceeds_own", S::FORBIDDEN),
            Self::AccountSuspended => ("account_suspended", S::FORBIDDEN),
            Self::RegistrationClosed => ("registration_closed", S::FORBIDDEN),
            Self::NotFound => ("not_found", S::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED),
            Self::InvalidState => ("invalid_state", S::CONFLICT),
            Self::LimitReached => ("limit_reached", S::CONFLICT),
            Self::LastOwner => ("last_owner", S::CONFLICT),
            Self::DuplicateExternalId => ("duplicate_external_id", S::CONFLICT),
            Self::PriceWindowOverlaps => ("price_window_overlaps", S::CONFLICT),
            Self::NoMedia => ("no_media", S::CONFLICT),
            Self::RoomEnded => ("room_ended", S::CONFLICT),
            Self::RoomNotLive => ("room_not_live", S::CONFLICT),
            Self::ShelfFull => ("shelf_full", S::CONFLICT),
            Self::NumberTaken => ("number_taken", S::CONFLICT),
            Self::HandleTaken => ("handle_taken", S::CONFLICT),
            Self::NotLive => ("not_live", S::CONFLICT),
            Self::MediaNotLive => ("not_live", S::NOT_FOUND),
            Self::PublisherBusy => ("busy", S::CONFLICT),
            Self::IdUsed => ("id_used", S::CONFLICT),
            Self::IdempotencyInProgress => ("idempotency_in_progress", S::CONFLICT),
            Self::PreconditionFailed => ("precondition_failed", S::PRECONDITION_FAILED),
            Self::Gone => ("gone", S::GONE),
            Self::Stale => ("stale", S::PRECONDITION_FAILED),
            Self::PreconditionRequired => ("precondition_required", S::PRECONDITION_REQUIRED),
            Self::Timeout => ("timeout", S::REQUEST_TIMEOUT),
            Self::TooLarge => ("too_large", S::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE),
            Self::OutOfBounds => ("out_of_bounds", S::UNPROCESSABLE_ENTITY),
            Self::HandleInvalid => ("handle_invalid", S::UNPROCESSABLE_ENTITY),
            Self::HandleReserved => ("handle_reserved", S::UNPROCESSABLE_ENTITY),
            Self::PasswordWeak => ("password_weak", S::UNPROCESSABLE_ENTITY),
            Self::IdempotencyKeyReused => ("idempotency_key_reused", S::UNPROCESSABLE_ENTITY),
            Self::CueTooLarge => ("cue_too_large", S::UNPROCESSABLE_ENTITY),
            Self::Unservable => ("unservable", S::UNPROCESSABLE_ENTITY),
            Self::AtOutOfRange => ("at_out_of_range", S::UNPROCESSABLE_ENTITY),
            Self::CardTooLarge => ("card_too_large", S::UNPROCESSABLE_ENTITY),
            Self::CommissionNotAgreed => ("commission_not_agreed", S::UNPROCESSABLE_ENTITY),
            Self::CouponNotActive => ("coupon_not_active", S::UNPROCESSABLE_ENTITY),
            Self::OfferInvalid => ("offer_invalid", S::UNPROCESSABLE_ENTITY),
            Self::OfferExpired => ("offer_expired", S::UNPROCESSABLE_ENTITY),
            Self::OfferNotStarted => ("offer_not_started", S::UNPROCESSABLE_ENTITY),
            Self::DealNotStarted => ("deal_not_started", S::UNPROCESSABLE_ENTITY),
            Self::DealEnded => ("deal_ended", S::UNPROCESSABLE_ENTITY),
            Self::AmountOutOfRange => ("amount_out_of_range", S::UNPROCESSABLE_ENTITY),
            Self::StockChanged => ("stock_changed", S::CONFLICT),
            Self::OrderAlreadyPaid => ("order_already_paid", S::CONFLICT),
            Self::OrderClosing => ("order_closing", S::CONFLICT),
            Self::SoldOut => ("sold_out", S::UNPROCESSABLE_ENTITY),
            Self::InsufficientStock => ("insufficient_stock", S::UNPROCESSABLE_ENTITY),
            Self::PurchaseLimitReached => ("purchase_limit_reached", S::UNPROCESSABLE_ENTITY),
            Self::PriceChanged => ("price_changed", S::UNPROCESSABLE_ENTITY),
            Self::PriceUnconfirmed => ("price_unconfirmed", S::UNPROCESSABLE_ENTITY),
            Self::NotSellable => ("not_sellable", S::UNPROCESSABLE_ENTITY),
            Self::SeveralMerchants => ("several_merchants", S::UNPROCESSABLE_ENTITY),
            Self::SeveralCurrencies => ("several_currencies", S::UNPROCESSABLE_ENTITY),
            Self::EmptyCart => ("empty_cart", S::UNPROCESSABLE_ENTITY),
            Self::AddressRequired => ("address_required", S::UNPROCESSABLE_ENTITY),
            Self::InsufficientFunds => ("insufficient_funds", S::UNPROCESSABLE_ENTITY),
            Self::ProviderNotAvailable => ("provider_not_available", S::UNPROCESSABLE_ENTITY),
            Self::IdempotencyKeyMissing => ("idempotency_key_missing", S::BAD_REQUEST),
            Self::RateLimited => ("rate_limited", S::TOO_MANY_REQUESTS),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR),
            Self::Busy => ("busy", S::SERVICE_UNAVAILABLE),
        }
    }
}

/// A field beyond its bound.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Bound {
    /// JSON pointer of the field.
    pub(crate) pointer: String,
    /// What is wrong with it.
    pub(crate) code: &'static str,
}

/// An error on its way out. The request's id and path are added by [`super::around`].
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    code: Code,
    detail: String,
    bounds: Vec<Bound>,
    retry_after: Option<Duration>,
    /// What else this code tells; behind a pointer, since few do.
    facts: Box<serde_json::Map<String, serde_json::Value>>,
    headers: Vec<(HeaderName, String)>,
    needed: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            bounds: Vec::new(),
            retry_after: None,
            facts: Box::default(),
            headers: Vec::new(),
            needed: None,
        }
    }

    /// Adds a member to the problem that this code is documented to have.
    pub(crate) fn telling(mut self, name: &str, fact: impl Serialize) -> Self {
        let fact = serde_json::to_value(fact).expect("facts are plain text and numbers");
        self.facts.insert(name.into(), fact);
        self
    }

    /// The stable word of its code.
    pub(crate) const fn word(&self) -> &'static str {
        self.code.row().0
    }

    /// Missing, hidden, or another tenant's: one answer for all.
    pub(crate) fn not_found() -> Self {
        Self::new(
            Code::NotFound,
            "there is nothing here, or nothing you may see",
        )
    }

    /// A bounded queue is full.
    pub(crate) fn busy(retry_after: Duration) -> Self {
        Self::new(Code::Busy, "the server is busy; try again").after(retry_after)
    }

    /// A fault that the client cannot mend; the cause is in our log only.
    pub(crate) fn internal(err: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = err, "request failed");
        Self::new(Code::Internal, "the fault is logged under the request id")
    }

    /// Names the fields that are out of bounds, at most [`BOUNDS_MAX`].
    pub(crate) fn bounds(bounds: Vec<Bound>) -> Self {
        let mut error = Self::new(Code::OutOfBounds, "see errors for the fields to change");
        error.bounds = bounds;
        error.bounds.truncate(BOUNDS_MAX);
        error
    }

    pub(crate) fn at(mut self, pointer: impl Into<String>, code: &'static str) -> Self {
        let pointer = pointer.into();
        self.bounds.push(Bound { pointer, code });
        self
    }

    pub(crate) const fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The caller lacks this permission.
    pub(crate) fn lacks(needed: &'static str) -> Self {
        let detail = format!("this needs the permission {needed}");
        let mut error = Self::new(Code::Forbidden, detail);
        error.needed = Some(needed);
        error
    }

    /// A header beside the problem.
    pub(crate) fn with(mut self, name: HeaderName, text: impl Into<String>) -> Self {
        self.headers.push((name, text.into()));
        self
    }

    /// The fields at fault.
    pub(crate) fn errors(&self) -> &[Bound] {
        &self.bounds
    }

    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// The body, complete.
    pub(crate) fn problem(&self, instance: &str, request_id: &str) -> Problem {
        let (code, status) = self.code.row();
        Problem {
            kind: format!("urn:lamplight:problem:{code}"),
            title: self.code.title(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            instance: instance.into(),
            code: code.into(),
            retryable: self.code.is_retryable(),
            retry_after_ms: self
                .retry_after
                .and_then(|d| u64::try_from(d.as_millis()).ok()),
            request_id: request_id.into(),
            needed: self.needed.map(Into::into),
            errors: self.bounds.clone(),
            facts: (*self.facts).clone(),
        }
    }

    /// The response with its whole body.
    pub(crate) fn render(&self, instance: &str, request_id: &str) -> Response {
        let problem = self.problem(instance, request_id);
        let body = serde_json::to_vec(&problem).expect("a problem is plain text and numbers");
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.code == Code::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(whole));
        }
        for (name, text) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.append(name, value);
            }
        }
        response
    }
}

pub(super) const PROBLEM_JSON: &str = "application/problem+json";

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(err: sqlx::Error) -> Self {
        match err {
            sqlx::Error::PoolTimedOut => Self::busy(Duration::from_secs(1)),
            err => Self::internal(&err),
        }
    }
}

/// RFC 9457 problem details.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) status: u16,
    /// For people: what is wrong and what to do.
    pub(crate) detail: String,
    /// The path of the request.
    pub(crate) instance: String,
    /// For programs: stable.
    pub(crate) code: String,
    /// Whether the same request may succeed later.
    pub(crate) retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) request_id: String,
    /// The permission that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) needed: Option<String>,
    /// The fields at fault.
    pub(crate) errors: Vec<Bound>,
    /// Members of single codes: `left`, `current_price`, `restock_possible`.
    #[serde(flatten)]
    #[schema(ignore)]
    pub(crate) facts: serde_json::Map<String, serde_json::Value>,
}

/// Collects the fields that are out of bounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds(Vec<Bound>);

impl Bounds {
    /// Counts characters; control characters other than line breaks are out of bounds too.
    pub(crate) fn text(&mut self, pointer: &str, text: &str, allowed: RangeInclusive<usize>) {
        let is_control = |c: char| c.is_control() && c != '\n';
        if !allowed.contains(&text.trim().chars().count()) {
            self.add(pointer, "length");
        } else if text.chars().any(is_control) {
            self.add(pointer, "characters");
        }
    }

    pub(crate) fn number<T: PartialOrd>(
        &mut self,
        pointer: &str,
        number: T,
        allowed: RangeInclusive<T>,
    ) {
        if !allowed.contains(&number) {
            self.add(pointer, "range");
        }
    }

    pub(crate) fn add(&mut self, pointer: &str, code: &'static str) {
        let pointer = pointer.into();
        self.0.push(Bound { pointer, code });
    }

    pub(crate) fn check(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ApiError::bounds(self.0))
        }
    }
}

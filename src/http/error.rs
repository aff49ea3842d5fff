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

macro_rules! codes {
    ($($name:ident = $word:literal $status:ident;)+) => {
        /// The stable word for what went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $($name,)+
        }

        impl Code {
            const fn row(self) -> (&'static str, StatusCode) {
                match self {
                    $(Self::$name => ($word, StatusCode::$status),)+
                }
            }
        }
    };
}

codes! {
    Malformed = "malformed" BAD_REQUEST;
    UnknownField = "unknown_field" BAD_REQUEST;
    UnknownFilter = "unknown_filter" BAD_REQUEST;
    BadCursor = "bad_cursor" BAD_REQUEST;
    Unauthenticated = "unauthenticated" UNAUTHORIZED;
    CredentialsWrong = "credentials_wrong" UNAUTHORIZED;
    Forbidden = "forbidden" FORBIDDEN;
    OriginRefused = "origin_refused" FORBIDDEN;
    GrantExceedsOwn = "grant_exceeds_own" FORBIDDEN;
    AccountSuspended = "account_suspended" FORBIDDEN;
    RegistrationClosed = "registration_closed" FORBIDDEN;
    NotFound = "not_found" NOT_FOUND;
    MethodNotAllowed = "method_not_allowed" METHOD_NOT_ALLOWED;
    InvalidState = "invalid_state" CONFLICT;
    LimitReached = "limit_reached" CONFLICT;
    DuplicateExternalId = "duplicate_external_id" CONFLICT;
    PriceWindowOverlaps = "price_window_overlaps" CONFLICT;
    LastOwner = "last_owner" CONFLICT;
    RoomEnded = "room_ended" CONFLICT;
    RoomNotLive = "room_not_live" CONFLICT;
    ShelfFull = "shelf_full" CONFLICT;
    NumberTaken = "number_taken" CONFLICT;
    NoMedia = "no_media" CONFLICT;
    HandleTaken = "handle_taken" CONFLICT;
    HandleChangeTooSoon = "handle_change_too_soon" CONFLICT;
    NotLive = "not_live" CONFLICT;
    MediaNotLive = "not_live" NOT_FOUND;
    PublisherBusy = "busy" CONFLICT;
    IdUsed = "id_used" CONFLICT;
    IdempotencyInProgress = "idempotency_in_progress" CONFLICT;
    Gone = "gone" GONE;
    PreconditionFailed = "precondition_failed" PRECONDITION_FAILED;
    Stale = "stale" PRECONDITION_FAILED;
    PreconditionRequired = "precondition_required" PRECONDITION_REQUIRED;
    Timeout = "timeout" REQUEST_TIMEOUT;
    TooLarge = "too_large" PAYLOAD_TOO_LARGE;
    UnsupportedMediaType = "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE;
    OutOfBounds = "out_of_bounds" UNPROCESSABLE_ENTITY;
    HandleInvalid = "handle_invalid" UNPROCESSABLE_ENTITY;
    HandleReserved = "handle_reserved" UNPROCESSABLE_ENTITY;
    PasswordWeak = "password_weak" UNPROCESSABLE_ENTITY;
    IdempotencyKeyReused = "idempotency_key_reused" UNPROCESSABLE_ENTITY;
    CueTooLarge = "cue_too_large" UNPROCESSABLE_ENTITY;
    Unservable = "unservable" UNPROCESSABLE_ENTITY;
    AtOutOfRange = "at_out_of_range" UNPROCESSABLE_ENTITY;
    CardTooLarge = "card_too_large" UNPROCESSABLE_ENTITY;
    CommissionNotAgreed = "commission_not_agreed" UNPROCESSABLE_ENTITY;
    CouponNotActive = "coupon_not_active" UNPROCESSABLE_ENTITY;
    OfferInvalid = "offer_invalid" UNPROCESSABLE_ENTITY;
    OfferExpired = "offer_expired" UNPROCESSABLE_ENTITY;
    OfferNotStarted = "offer_not_started" UNPROCESSABLE_ENTITY;
    DealNotStarted = "deal_not_started" UNPROCESSABLE_ENTITY;
    DealEnded = "deal_ended" UNPROCESSABLE_ENTITY;
    AmountOutOfRange = "amount_out_of_range" UNPROCESSABLE_ENTITY;
    StockChanged = "stock_changed" CONFLICT;
    OrderAlreadyPaid = "order_already_paid" CONFLICT;
    OrderClosing = "order_closing" CONFLICT;
    SoldOut = "sold_out" UNPROCESSABLE_ENTITY;
    InsufficientStock = "insufficient_stock" UNPROCESSABLE_ENTITY;
    PurchaseLimitReached = "purchase_limit_reached" UNPROCESSABLE_ENTITY;
    PriceChanged = "price_changed" UNPROCESSABLE_ENTITY;
    PriceUnconfirmed = "price_unconfirmed" UNPROCESSABLE_ENTITY;
    NotSellable = "not_sellable" UNPROCESSABLE_ENTITY;
    SeveralMerchants = "several_merchants" UNPROCESSABLE_ENTITY;
    SeveralCurrencies = "several_currencies" UNPROCESSABLE_ENTITY;
    EmptyCart = "empty_cart" UNPROCESSABLE_ENTITY;
    AddressRequired = "address_required" UNPROCESSABLE_ENTITY;
    ExceedsUnshipped = "exceeds_unshipped" UNPROCESSABLE_ENTITY;
    InsufficientFunds = "insufficient_funds" UNPROCESSABLE_ENTITY;
    ProviderNotAvailable = "provider_not_available" UNPROCESSABLE_ENTITY;
    IdempotencyKeyMissing = "idempotency_key_missing" BAD_REQUEST;
    RateLimited = "rate_limited" TOO_MANY_REQUESTS;
    Internal = "internal" INTERNAL_SERVER_ERROR;
    Busy = "busy" SERVICE_UNAVAILABLE;
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

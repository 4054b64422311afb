//! The status page: one file, live by asking `/v2/status`.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// What the page may do: run the one script and use the one style that are in it, and ask the server it came from.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let [script, style] = ["script", "style"].map(|tag| STANDARD.encode(Sha256::digest(inside(tag))));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The text of the page's one element of a name.
fn inside(tag: &str) -> &'static str {
    let after = PAGE.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
    after.split_once(&format!("</{tag}>")).map_or("", |(text, _)| text)
}

/// The page, to anybody: there is no figure in it.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(PAGE)).into_response()
}

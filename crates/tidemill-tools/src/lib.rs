//! The built-in tools of Tidemill, one module and one cargo feature each, and named tools made from them by settings.
//!
//! [`builtin`] turns [`Settings`] into the registry that a worker is started with. What a tool promises is in
//! `docs/tools.md`.

#![cfg_attr(
    not(all(
        feature = "echo",
        feature = "exec",
        feature = "http",
        feature = "jq",
        feature = "sleep",
        feature = "template"
    )),
    allow(
        dead_code,
        unreachable_code,
        unused_variables,
        clippy::allow_attributes,
        reason = "what the tools share is more than some of them need"
    )
)]

mod catalog;
#[cfg(feature = "echo")]
mod echo;
#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "http")]
pub mod http;
mod input;
#[cfg(feature = "jq")]
pub mod jq;
mod json;
mod schema;
mod secret;
mod settings;
#[cfg(feature = "sleep")]
mod sleep;
#[cfg(feature = "template")]
pub mod template;

#[cfg(feature = "http")]
pub use self::http::HttpRequest;
pub use catalog::{Error, builtin};
#[cfg(feature = "echo")]
pub use echo::Echo;
#[cfg(feature = "exec")]
pub use exec::ExecRun;
#[cfg(feature = "jq")]
pub use jq::JqTransform;
pub use secret::{REDACTED, Secret};
pub use settings::{NamedTool, Settings};
#[cfg(feature = "sleep")]
pub use sleep::{MAX_MS as MAX_SLEEP_MS, Sleep};
#[cfg(feature = "template")]
pub use template::TemplateRender;

//! Services for people and programs that operate them: what each has used and what it lets go, and changes of them.
//!
//! The command line and the HTTP API both stand on this: they read ([`list`], [`show`], [`overview`]) and change ([`set`],
//! [`remove`], [`control`]) services through the same functions and show the same documents.

mod change;
mod expect;
mod read;
mod usage;
mod view;

pub use change::{Changed, Moved, control, definition, history, remove, set};
pub(crate) use expect::{Prospect, prospect};
pub use read::{list, overview, show, tiers};
pub use view::{
    BreakerView, BudgetView, ConcurrencyView, LearnedView, LimitView, LineView, ServiceView, TierView,
};

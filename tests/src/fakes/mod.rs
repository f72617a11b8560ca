//! Fakes of the services that Muster talks to.

pub mod aws;
mod changes;
mod clock;
pub mod github;
mod http_server;
pub mod imds;

pub use self::changes::NotInTime;
pub use self::clock::Clock;
pub use self::http_server::HangUp;

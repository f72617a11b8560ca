//! Fakes of the services that Muster talks to.

//! The EC2 provider, through the real SDK, against a fake AWS that checks every call against AWS's models.

mod capacity;
mod ending;
mod faults;
mod kit;
mod launching;
mod listing;
mod restart;
mod spot;

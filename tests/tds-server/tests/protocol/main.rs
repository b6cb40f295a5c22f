//! The protocol of the test server, as clients see it: tiberius, FreeTDS's `tsql`, Microsoft's ODBC driver, and one
//! that sends anything.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod broken;
mod foreign;
mod queries;
mod random;
mod raw;
mod requests;
mod scripted;

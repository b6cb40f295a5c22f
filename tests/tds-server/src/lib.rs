//! A server that speaks TDS 7.4 and behaves like an instance of SQL Server as far as Stillpoint's adapter looks:
//! `protocol` knows bytes on the wire and no databases, `instance` knows databases and no bytes on the wire, and `reply`
//! is all that they share. It is for tests: no product code depends on it, and it depends on no product code.

pub mod instance;
pub mod protocol;
pub mod reply;

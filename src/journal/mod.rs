//! The ring file that makes acknowledged changes durable. Knows no volumes.

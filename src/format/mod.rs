//! Encoding and decoding of every on-disk record. Pure: no I/O, no clocks, no locks.

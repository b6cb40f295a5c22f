//! Content id to place: bounded hints that deduplication starts from.

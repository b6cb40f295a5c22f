//! The kernel side of a Stillpoint mount: protocol, session and threads.
//!
//! It defines the trait a file system implements; it knows nothing of stores, volumes or databases.

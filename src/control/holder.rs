//! What a daemon needs of whoever has its store mounted: this process, or one that outlives it.

use std::path::Path;

use super::operations::Operations;
use crate::base::Result;

/// A mounted store.
pub trait Holder: Operations {
    /// The store's directory, absolute.
    fn path(&self) -> &Path;

    /// Says in the status from now on where the API listens on TCP.
    fn set_api(&self, url: Option<&str>);

    /// Waits a moment for the end of the mount; `Some` is how it went.
    fn wait(&self) -> Option<Result<()>>;

    /// Ends all mounts, also of files that are open: what was acknowledged is durable, what is written later is not taken.
    fn end(&self) -> Result<()>;
}

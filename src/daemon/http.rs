//! HTTP on connections of the control socket.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::api::router;
use crate::base::{Error, ErrorKind, Result};
use crate::control::HttpHandler;
use crate::engine::Engine;

/// What serves a connection: the API, on a runtime that all connections share.
pub(super) fn handler(engine: &Arc<Engine>) -> Result<HttpHandler> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("api")
        .enable_all()
        .build()
        .map_err(|e| Error::io("start", "the API's runtime", e))?;
    let router = router(Arc::clone(engine));
    Ok(Arc::new(move |stream| {
        stream.set_nonblocking(true).map_err(|e| Error::io("set up", "an API connection", e))?;
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream)
                .map_err(|e| Error::io("set up", "an API connection", e))?;
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()))
                .await
                .map_err(|e| Error::new(ErrorKind::Io, format!("an API connection: {e}")))
        })
    }))
}

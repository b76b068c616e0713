//! Connections of HTTP: taken, bounded, served, ended.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    serve::Listener,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    sync::{Semaphore, watch::Receiver},
    time::timeout,
};

use crate::{Limits, Stage};

/// What a listener knows of the pool it is in.
pub(crate) struct Place {
    pub(crate) limits: Limits,
    pub(crate) stage: Receiver<Stage>,
    /// Those of all listeners.
    pub(crate) connections: Arc<AtomicU64>,
    /// Held as long as it takes any.
    pub(crate) taking: Counted,
}

/// Counts something for as long as it lasts.
pub(crate) struct Counted(Arc<AtomicU64>);

impl Counted {
    pub(crate) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Serves a socket until the pool stops, then until its connections have ended.
pub(crate) async fn serve<L: Listener<Addr: 'static>>(mut listener: L, router: Router, place: Place) {
    let Place { limits, mut stage, connections, taking } = place;
    let request_max = limits.request_max;
    let router = router.layer(middleware::from_fn(move |request, next| bounded(request_max, request, next)));
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_max);
    let open = GracefulShutdown::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            // Waits a little by itself when there are no file descriptors left.
            (place, listener.accept().await)
        };
        let (place, (stream, peer)) = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage != Stage::Serving) => break,
            taken = next => taken,
        };
        let router = match (&peer as &dyn Any).downcast_ref::<SocketAddr>() {
            Some(address) => router.clone().layer(Extension(ConnectInfo(*address))),
            // A Unix socket has none.
            None => router.clone(),
        };
        let service = TowerToHyperService::new(router);
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        let counted = Counted::new(&connections);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop((place, counted));
        });
    }
    drop(taking);
    // Who has just come has not asked anything yet, and is not to be hung up on for that.
    const MOMENT: Duration = Duration::from_secs(1);
    let _ = timeout(MOMENT, stage.wait_for(|stage| *stage == Stage::Stopping)).await;
    open.shutdown().await;
}

async fn bounded(request_max: Duration, request: Request, next: Next) -> Response {
    let late = |_| (StatusCode::GATEWAY_TIMEOUT, "the request took too long\n").into_response();
    timeout(request_max, next.run(request)).await.unwrap_or_else(late)
}

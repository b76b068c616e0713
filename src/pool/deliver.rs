//! Mail that shards hand over: into a program, to a service, or to whoever keeps reports.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bridge::{Delivered, Delivery, PoolErrand};
use delivery::Means;
use tokio::sync::mpsc;

use crate::{
    PolicyFetching, ReportsIn,
    programs::{self, Programs},
    services::Services,
};

/// Goes on errands as long as there is a shard. How many there are at once, the connections say that routes may have.
pub(crate) async fn run(
    mut desk: mpsc::Receiver<PoolErrand>,
    programs: Option<Arc<dyn Programs>>,
    fetching: Arc<ArcSwap<PolicyFetching>>,
    reports: ReportsIn,
) {
    let services = Arc::new(Services::new());
    while let Some(errand) = desk.recv().await {
        let (programs, services, reports) = (programs.clone(), services.clone(), reports.clone());
        match errand {
            PoolErrand::Deliver(delivery) => {
                let tls = fetching.load().tls.clone();
                tokio::spawn(async move {
                    let delivered = match &*delivery.means {
                        Means::Program(program) => programs::deliver(&delivery, program, programs).await,
                        Means::Service(service) => services.deliver(&delivery, service, tls).await,
                        Means::Reports => reports.deliver(&delivery).await,
                    };
                    answer(delivery, delivered);
                });
            }
            PoolErrand::Say(saying) => {
                tokio::spawn(async move {
                    let said = programs::say(&saying.program, saying.hearing, programs).await;
                    // Whoever asked may be gone.
                    let _ = saying.said.send(said);
                });
            }
        }
    }
}

fn answer(delivery: Box<Delivery>, delivered: Delivered) {
    if delivery.outcome.send(delivered).is_err() {
        // Its shard has ended meanwhile; after the next start it is delivered again.
        tracing::warn!(id = %delivery.id, by = %delivery.means, "nobody is there to hear what became of a message");
    }
}

//! Who is connected: nobody keeps others out by being there.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Connections of one address at a time.
const MOST_OF_ONE: usize = 32;
/// Connections at a time.
const MOST: usize = 256;

/// In the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    task: AbortHandle,
    /// Its request has come.
    has_request: Arc<AtomicBool>,
}

impl Connections {
    /// To be set when the request of a connection has come.
    pub(super) fn request_flag(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    /// Takes a new one, and closes another where there are too many.
    pub(super) fn add(&mut self, peer: IpAddr, task: AbortHandle, has_request: Arc<AtomicBool>) {
        self.0.retain(|connection| !connection.task.is_finished());
        self.0.push(Connection { peer, task, has_request });
        if self.count(peer) > MOST_OF_ONE {
            self.close_one(peer);
        } else if self.0.len() > MOST
            // Of several with as many, whose is the oldest.
            && let Some(most) = self.0.iter().rev().map(|c| c.peer).max_by_key(|peer| self.count(*peer))
        {
            self.close_one(most);
        }
    }

    fn count(&self, peer: IpAddr) -> usize {
        self.0.iter().filter(|connection| connection.peer == peer).count()
    }

    /// The oldest of an address without a request so far, or else its oldest.
    fn close_one(&mut self, peer: IpAddr) {
        let place = |which: &dyn Fn(&Connection) -> bool| {
            self.0.iter().position(|connection| connection.peer == peer && which(connection))
        };
        let silent = place(&|connection| !connection.has_request.load(Ordering::Relaxed));
        if let Some(at) = silent.or_else(|| place(&|_| true)) {
            self.0.remove(at).task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn of_many_the_oldest_silent_one_of_whoever_has_most_goes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut connections = Connections::default();
        let mut tasks = Vec::new();
        let mut add = |connections: &mut Connections, last: u32, is_set: bool| {
            let task = runtime.spawn(std::future::pending::<()>());
            let has_request = connections.request_flag();
            has_request.store(is_set, Ordering::Relaxed);
            connections.add(Ipv4Addr::from(0x0a00_0000 + last).into(), task.abort_handle(), has_request);
            tasks.push(task);
        };
        let peers = |connections: &Connections, last: u32| {
            connections.count(Ipv4Addr::from(0x0a00_0000 + last).into())
        };
        add(&mut connections, 1, true);
        for _ in 0..2 * MOST_OF_ONE {
            add(&mut connections, 1, false);
        }
        assert_eq!(peers(&connections, 1), MOST_OF_ONE);
        assert!(connections.0[0].has_request.load(Ordering::Relaxed), "what is being answered stays");
        add(&mut connections, 2, false);
        for last in 3..300 {
            add(&mut connections, last, false);
        }
        assert_eq!(connections.0.len(), MOST);
        // Where all have one, the oldest goes.
        assert_eq!((peers(&connections, 2), peers(&connections, 299)), (0, 1));
        let ended = || tasks.iter().filter(|task| task.is_finished()).count();
        runtime.block_on(async {
            while ended() < tasks.len() - MOST {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(ended(), tasks.len() - MOST, "no other was closed");
    }
}

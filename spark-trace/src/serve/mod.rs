//! `serve`: the whole machine watched for as long as it runs, its levels as metrics, its recent minutes as recordings.
//!
//! Three threads: the trace, in which a [`watcher`] looks at every reading; a [`keeper`], which writes files; and this
//! one, which answers over [`http`].

pub mod auth;
mod connections;
pub mod http;
pub mod metrics;
pub mod observer;
pub mod oom;
pub mod shared;
pub mod state_dir;
pub mod writer;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use spark_trace_common::{capacities, hook::Profile};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};

pub use auth::{Access, AccessError, DEFAULT_LISTEN};
pub use state_dir::{DEFAULT_STATE, State, StateError};

use observer::Watcher;
use shared::Shared;
use spark_trace_agent as live;
use spark_trace_agent::attach_plan::{HookSelection, SystemCalls};
use spark_trace_agent::{
    monitor::Monitor,
    output::StandardOutput,
    session::{self, Keep, SessionError},
    subject::Spec,
};
use spark_trace_recording::journal::Arguments;
use writer::Keeper;

/// Readings faster than this are `record`'s business.
const FASTEST: Duration = Duration::from_millis(100);
/// Only mappings at least this long are listed one by one: smaller ones come by the thousand on a whole machine.
const MIN_REGION: u64 = 16 << 20;

#[derive(Debug)]
pub struct Options {
    pub listen: SocketAddr,
    pub access: Access,
    pub interval: Duration,
    /// What stays in memory, and in the file.
    pub window: Duration,
    pub state: PathBuf,
    /// Cgroups with metrics of their own.
    pub cgroups: usize,
    /// Recordings of OOM kills that are kept.
    pub keep_oom: usize,
    pub light: bool,
    pub nvml: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {cause}; {}", what_to_do(cause))]
    Listen { address: SocketAddr, cause: io::Error },
    #[error("cannot set up the server: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Trace(#[from] SessionError),
}

fn what_to_do(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "another program, maybe another `spark-trace serve`, has that port: end it or choose another with --listen"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address: see `ip address`",
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "choose another address with --listen",
    }
}

/// Connections that the kernel completes before they are accepted. Beyond, a client is made to try again after a second
/// (net/ipv4/tcp_input.c, tcp_conn_request): whoever opens hundreds at once would delay a scrape by that much.
const BACKLOG: u32 = 1024;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What a service before this one left in TIME_WAIT does not hinder.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until SIGINT or SIGTERM, or until the trace fails. `ready` is called once requests are answered.
pub fn run(options: Options, ready: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    // Several files of each cgroup and one of each process stay open.
    live::raise_open_files();
    let state = State::open(&options.state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is attached: a port that is taken is an error at once.
    let listener = runtime
        .block_on(async { listen(options.listen) })
        .map_err(|cause| ServeError::Listen { address: options.listen, cause })?;
    let address = listener.local_addr()?;

    let shared = Arc::new(Shared::default());
    // One file at a time is written and one waits: more would only be memory.
    let (jobs, taken) = mpsc::sync_channel(1);
    let keeper = Keeper::new(state, options.keep_oom, Arc::clone(&shared));
    let keeper = std::thread::spawn(move || keeper.run(&taken));
    let mut watcher = Watcher::new(Arc::clone(&shared), jobs, options.keep_oom > 0);
    let mut look = Monitor::watch(options.session(), move |seen| watcher.see(seen));

    let folder = options.state;
    let server =
        http::Server { access: options.access, shared, cgroups: options.cgroups, interval: options.interval };
    let wishes = Arc::clone(&server.shared);
    let served = runtime.block_on(async {
        // Loading and attaching takes a moment; the trace itself reports a failure.
        while !server.shared.has_reading() && !look.has_ended() {
            tokio::time::sleep(http::LOOK).await;
        }
        if !look.has_ended() {
            ready(address);
        }
        let look_around = || {
            if state_dir::take_wish(&folder) {
                wishes.wants_file.store(true, Ordering::Relaxed);
            }
            look.has_ended()
        };
        server.serve(listener, look_around).await
    });
    // It ends by the signals that end the trace, or with it; the last file is written by then.
    let ended = look.end();
    drop(look);
    if let Err(panic) = keeper.join() {
        // A defect: passed on, not hidden.
        std::panic::resume_unwind(panic);
    }
    ended?;
    Ok(served?)
}

impl Options {
    fn session(&self) -> session::Options {
        let profile = if self.light { Profile::Light } else { Profile::Default };
        let interval = self.interval.max(FASTEST);
        session::Options {
            spec: Spec::System { argv: Vec::new() },
            hooks: HookSelection { system_calls: SystemCalls::of(None, true), ..profile.into() },
            interval,
            min_region: MIN_REGION,
            keep_fine: None,
            python_min: Some(MIN_REGION),
            unwind_min: None,
            ring_bytes: capacities::RING_BYTES,
            libraries: Vec::new(),
            pause: false,
            duration: None,
            nvml: self.nvml.clone(),
            gpu_interval: interval,
            output: None,
            command_output: StandardOutput::Own,
            keep: Keep::Latest(self.window),
            arguments: Arguments::Hidden,
        }
    }
}

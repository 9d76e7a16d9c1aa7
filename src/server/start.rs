//! The start, in steps that can each fail and then leave nothing behind: read the files, reserve
//! the addresses, lock the data directory and recover the log, listen.
//!
//! Addresses come before the log, so that a port in use is found before anything is written; they
//! listen after it, so that no client waits in a backlog while a long log is read, but is refused
//! and tries again.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::{Broker, security};
use crate::auth::gate::Gate;
use crate::authentication::{AuthenticationMethod, AuthenticationMethods};
use crate::broker::{Core, Security, keep_log, sys, watch_disk};
use crate::config::{AclSubscribe, ClientCertificate, Config, ListenerConfig, StorageKind, Transport};
use crate::data_dir::{DataDir, DataDirError};
use crate::net::{self, BindError, BoundListener, LiveListener, TlsError};
use crate::storage::UnknownFormat;

/// What a program adds to the broker it starts.
#[derive(Default)]
#[non_exhaustive]
pub struct Extensions {
    /// Methods of enhanced authentication that clients of MQTT 5 may ask for.
    pub authentication_methods: Vec<Arc<dyn AuthenticationMethod>>,
}

impl Extensions {
    /// With a method of enhanced authentication more.
    #[must_use]
    pub fn with_authentication_method(mut self, method: Arc<dyn AuthenticationMethod>) -> Self {
        self.authentication_methods.push(method);
        self
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS files of a listener cannot be used.
    #[error("TLS for the listener on {address}: {source}")]
    Tls {
        /// The listener's address.
        address: SocketAddr,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// Users, rules or another part of what makes the broker safe cannot be had as configured.
    #[error("{0}")]
    Security(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

impl StartError {
    /// Only people can mend it: to start again as it is cannot succeed.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::DataDir(DataDirError::LaterFormat { .. }))
    }
}

/// A broker that has read its files and reserved its addresses, and whose log is not touched yet.
pub(super) struct Prepared {
    config: Config,
    gate: Arc<Gate>,
    security: Security,
    listeners: Vec<BoundListener>,
}

impl Prepared {
    /// # Errors
    /// See [`StartError`]; nothing is reserved then.
    pub(super) fn new(config: Config, extensions: Extensions) -> Result<Self, StartError> {
        let security::Loaded { gate, rules } = security::load(&config)?;
        security::announce_policy(&config, &gate, rules.as_deref());
        let security = Security {
            methods: AuthenticationMethods(extensions.authentication_methods),
            rules,
            refuses_subscriptions: config.auth.subscribe == AclSubscribe::Refuse,
        };
        let bind = |listener: &ListenerConfig| {
            net::bind(listener, Arc::clone(&gate)).map_err(|error| start_error(listener.bind, error))
        };
        let listeners = config.listeners.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { config, gate, security, listeners })
    }

    /// The addresses that are reserved, with the real ports.
    pub(super) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.local_addr).collect()
    }

    /// Takes up what the data directory remembers, and listens.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub(super) async fn start(mut self) -> Result<Broker, StartError> {
        let core = self.open().await?;
        self.serve(core).await
    }

    /// Locks the data directory, if there is one, and reads everything that is in it.
    pub(super) async fn open(&mut self) -> Result<Arc<Core>, StartError> {
        let Config { limits, storage, data_dir, .. } = &self.config;
        let (limits, storage, security) = (limits.clone(), *storage, std::mem::take(&mut self.security));
        let Some(path) = data_dir.clone().filter(|_| storage.kind == StorageKind::Disk) else {
            tracing::info!("sessions, queues and retained messages are kept in memory only");
            return Ok(Core::new(limits, security));
        };
        let lock = DataDir::open(&path)?.into_lock();
        tracing::info!(data_dir = %path.display(), sync = storage.sync.name(), "durable log");
        let directory = path.clone();
        let opened =
            tokio::task::spawn_blocking(move || Core::open(&directory, lock, &storage, limits, security));
        let opened = opened.await.map_err(io::Error::other).and_then(|opened| opened);
        opened.map_err(|error| data_dir_error(&path, error).into())
    }

    /// Listens, and starts what runs in the background. The state of the last run is in place
    /// before anybody can connect.
    pub(super) async fn serve(self, core: Arc<Core>) -> Result<Broker, StartError> {
        let local_addrs = self.local_addrs();
        let Self { config, gate, listeners, .. } = self;
        let same_before =
            |n: usize, bind| config.listeners.iter().take(n).filter(|listener| listener.bind == bind).count();
        let live: Arc<[LiveListener]> = listeners
            .iter()
            .zip(&config.listeners)
            .enumerate()
            .map(|(n, (listener, config))| listener.live(same_before(n, config.bind)))
            .collect();
        let mut accepting = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let address = listener.local_addr;
            match listener.listen() {
                Ok(listener) => accepting.push(listener),
                Err(source) => {
                    // Somebody else has come first, while the log was read. Its thread ends before
                    // this is told.
                    let closed = tokio::task::spawn_blocking(move || core.close_log());
                    closed.await.map_err(|error| start_error(address, BindError::Io(error.into())))?;
                    return Err(StartError::Listen { address, source });
                }
            }
        }
        tokio::spawn(security::watch_certificates(Arc::clone(&core), Arc::clone(&live)));
        for (listener, config) in accepting.into_iter().zip(&config.listeners) {
            announce(config, listener.local_addr(), &gate);
            tokio::spawn(listener.run(Arc::clone(&core)));
        }
        tokio::spawn(Arc::clone(&core).run_timers());
        tokio::spawn(Arc::clone(&core).run_background());
        tokio::spawn(keep_log(Arc::clone(&core)));
        tokio::spawn(watch_disk(Arc::clone(&core)));
        tokio::spawn(end_with_log(Arc::clone(&core), Arc::clone(&live)));
        if let Some(interval) = config.sys_interval {
            tokio::spawn(sys::run(Arc::clone(&core), interval));
        }
        let runtime = tokio::runtime::Handle::current();
        Ok(Broker { core, local_addrs, gate, listeners: live, runtime })
    }
}

/// Without its log the broker can acknowledge nothing any more: should the log's thread fall, the
/// broker ends, so that a supervisor starts it anew.
async fn end_with_log(core: Arc<Core>, listeners: Arc<[LiveListener]>) {
    let Some(log) = &core.log else { return };
    log.until_closed().await;
    if log.has_panicked() && !core.is_shutting_down() {
        tracing::error!("the broker ends: it has lost the thread that writes the log");
        listeners.iter().for_each(LiveListener::close);
        core.begin_shutdown();
    }
}

fn data_dir_error(path: &Path, error: io::Error) -> DataDirError {
    let path = path.to_owned();
    match UnknownFormat::cause_of(&error) {
        Some(unknown) => DataDirError::LaterFormat { path, what: unknown.to_string() },
        None => DataDirError::Io { path, error },
    }
}

fn start_error(address: SocketAddr, error: BindError) -> StartError {
    match error {
        BindError::Io(source) => StartError::Listen { address, source },
        BindError::Tls(source) => StartError::Tls { address, source: Box::new(source) },
    }
}

fn announce(config: &ListenerConfig, address: SocketAddr, gate: &Gate) {
    let (tls, certificates) = match &config.transport {
        Transport::Tcp => (false, false),
        Transport::Tls(tls) => (true, tls.client_certificate != ClientCertificate::None),
    };
    tracing::info!(%address, tls, allow_anonymous = config.allow_anonymous, "listening");
    if !config.allow_anonymous && !certificates && !gate.methods().asks(config.auth.as_deref()) {
        tracing::warn!(
            %address,
            "this listener refuses everybody: it has neither allow_anonymous = true, nor client certificates, nor a method of \
             [auth] to tell who may come in"
        );
    }
}

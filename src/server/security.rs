//! Methods, rules and certificates: read at start, where a fault in them keeps the broker from starting, and read again while it runs, where
//! a fault leaves in force what was.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Broker, Closed, StartError};
use crate::auth::acl::{self, Acl};
use crate::auth::gate::{Gate, Methods};
use crate::auth::throttle::ThrottleLimits;
use crate::broker::Core;
use crate::config::{AclSubscribe, AuthConfig, CertificateName, Config, ListenerConfig, Transport};
use crate::net::LiveListener;

/// How often the ends of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(3_600);
/// With fewer days left the end of a certificate or of a list of revoked ones is told in the log, once a day.
const DAYS_WARNED: i64 = 14;

/// What is read from the files that say who may come in and do what.
pub(super) struct Loaded {
    pub(super) gate: Arc<Gate>,
    pub(super) rules: Option<Arc<Acl>>,
}

/// # Errors
/// [`StartError::Security`]: with less than what is configured the broker would be open to more than is meant.
pub(super) fn load(config: &Config) -> Result<Loaded, StartError> {
    let rules = rules(config).map_err(StartError::Security)?;
    let methods = methods(config).map_err(StartError::Security)?;
    let gate = Gate::new(methods, throttle_limits(&config.auth));
    let gate = gate.map_err(|error| StartError::Security(error.to_string()))?;
    Ok(Loaded { gate: Arc::new(gate), rules })
}

fn rules(config: &Config) -> Result<Option<Arc<Acl>>, String> {
    acl::load(config).map(|rules| rules.map(Arc::new)).map_err(|faults| faults.to_string())
}

fn methods(config: &Config) -> Result<Methods, String> {
    let named = |listener: &ListenerConfig| match &listener.transport {
        Transport::Tls(tls) => tls.user_name != CertificateName::None,
        Transport::Tcp => false,
    };
    Methods::load(&config.auth, config.listeners.iter().any(named)).map_err(|error| error.to_string())
}

fn throttle_limits(auth: &AuthConfig) -> ThrottleLimits {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    ThrottleLimits {
        failures_max: count(auth.failures_max),
        address_failures_max: count(auth.address_failures_max),
        user_failures_max: count(auth.user_failures_max),
        window: auth.failures_time,
        delay_max: auth.delay_max,
        ban_time: auth.ban_time,
        ..ThrottleLimits::default()
    }
}

/// One line for each listener: who gets in there, and what decides what they may do.
pub(super) fn announce_policy(config: &Config, gate: &Gate, rules: Option<&Acl>) {
    let AuthConfig { acl_file, subscribe, .. } = &config.auth;
    let rules = match rules {
        None => "none: every client may publish and read everything".to_owned(),
        Some(rules) => format!(
            "{} (users: {}, file: {})",
            rules.rules_count(),
            rules.users_count(),
            acl_file.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
        ),
    };
    for listener in &config.listeners {
        tracing::info!(
            bind = %listener.bind,
            anonymous = if listener.allow_anonymous { "may come in" } else { "are refused" },
            login = gate.methods().names(listener.auth.as_deref()),
            rules,
            subscribe = subscribe.name(),
            refused_publish = listener.refused_publish.name(),
            "policy"
        );
    }
}

impl Broker {
    /// Takes up what can change while the broker runs. Who is connected stays, but for those who logged in by a password file that does
    /// not have their entry any more, or has another hash in it.
    ///
    /// - Methods of authentication with their files; how failures of logins are counted.
    /// - The rules of access: they hold for living sessions, for what waits in queues, and for retained messages from now on.
    /// - The certificates, keys, CAs and revocation lists of TLS listeners, and what a listener asks of clients: all but address and transport.
    /// - `limits`, for every decision from now on; of what a client was told in CONNACK, and its rate of publishing, with its next connection. All but
    ///   `tls_handshakes_max` and `inflight_max`.
    ///
    /// Everything else in `config` needs a restart.
    ///
    /// What is read from files is taken up as a whole or, if something is wrong with it, not at all; returned is what was not. As long as there
    /// is such a fault the settings of listeners, limits and logins stay too: they may count on the file that cannot be used. Reads
    /// files: blocks for a moment.
    ///
    /// # Errors
    /// The broker has been shut down.
    pub fn reload(&self, config: &Config) -> Result<Vec<String>, Closed> {
        self.is_open()?;
        let mut failures = Vec::new();
        let replaced =
            methods(config).and_then(|methods| self.gate.replace(methods).map_err(|error| error.to_string()));
        failures.extend(replaced.err());
        match rules(config) {
            Ok(rules) => {
                announce_policy(config, &self.gate, rules.as_deref());
                self.core.set_rules(rules, config.auth.subscribe == AclSubscribe::Refuse);
            }
            Err(error) => failures.push(error),
        }
        // After the rules: by these it is judged whether their wills are published.
        self.core.end_logins_unless(|user, entry| self.gate.counts(user, entry));
        for listener in self.listeners.iter() {
            failures.extend(listener.reload_files(&config.listeners).err());
        }
        self.note_certificates();
        if failures.is_empty() {
            self.gate.set_throttle_limits(throttle_limits(&config.auth));
            self.core.set_limits(&config.limits);
            self.listeners.iter().for_each(|listener| listener.set_policy(&config.listeners));
        }
        Ok(failures)
    }
}

impl Broker {
    /// Notes how long the certificates of the listeners still hold.
    pub(super) fn note_certificates(&self) {
        note_certificates(&self.core, &self.listeners);
    }
}

/// Looks at the certificates now and each hour until the broker shuts down.
pub(super) async fn watch_certificates(core: Arc<Core>, listeners: Arc<[LiveListener]>) {
    let mut ticks = tokio::time::interval(CERTIFICATES_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => note_certificates(&core, &listeners),
            () = core.shut_down() => return,
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "certificates end by the wall clock")]
fn note_certificates(core: &Core, listeners: &[LiveListener]) {
    let now = SystemTime::now();
    let days = listeners.iter().filter_map(|listener| listener.days_left(now)).min();
    let before = core.metrics.certificate_days_left.set(days);
    if let Some(days) = days.filter(|days| *days < DAYS_WARNED && before != Some(*days)) {
        tracing::warn!(
            days,
            "a certificate of a TLS listener ends soon or has ended; replace the file, it is read again by itself"
        );
    }
    let days = listeners.iter().filter_map(|listener| listener.crl_days_left(now)).min();
    let before = core.metrics.crl_days_left.set(days);
    if let Some(days) = days.filter(|days| *days < DAYS_WARNED && before != Some(*days)) {
        tracing::warn!(
            days,
            "a list of revoked certificates of a TLS listener is over soon or already: then no certificate of its issuer is let in; \
             replace the file, it is read again by itself"
        );
    }
}

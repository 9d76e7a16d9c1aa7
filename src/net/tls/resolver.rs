//! Which certificate a client gets: the one with the name that it asks for (SNI), else the first.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::names::dns_names;

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Resolver {
    default: Arc<CertifiedKey>,
    /// By DNS name in lower case; a wildcard stands there as it is written.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Resolver {
    /// `default` is for clients that ask for no name, or for one that no certificate has.
    pub(super) fn new(default: CertifiedKey) -> Self {
        let default = Arc::new(default);
        let mut resolver = Resolver { default: Arc::clone(&default), by_name: HashMap::new() };
        resolver.enter(&default);
        resolver
    }

    /// Adds a certificate for the names that no earlier one has; false if it has no DNS name at all.
    pub(super) fn add(&mut self, key: CertifiedKey) -> bool {
        self.enter(&Arc::new(key))
    }

    fn enter(&mut self, key: &Arc<CertifiedKey>) -> bool {
        let names = key.cert.first().map(|certificate| dns_names(certificate)).unwrap_or_default();
        let has_names = !names.is_empty();
        for name in names {
            self.by_name.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(key));
        }
        has_names
    }

    /// The certificate for `name`; a wildcard stands for one label, the first.
    pub(super) fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let wildcard = || {
            let (_, rest) = name.split_once('.')?;
            self.by_name.get(&format!("*.{rest}"))
        };
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())))
    }
}

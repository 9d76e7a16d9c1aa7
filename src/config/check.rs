//! What can be judged only when all sources are read: rules over several settings, and files that must be there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::fault::Origin;
use super::layers::{Reading, Report};
use super::limits::MemoryMax;
use super::schema_listener::ListenerDraft;
use super::types::{
    CertificateFiles, CertificateName, ClientCertificate, Config, ListenerConfig, StorageConfig, StorageKind,
    SyncMode, TlsConfig, Transport, is_loopback,
};

/// The listeners the broker will have; faults and origins go to the report. Paths of origins are those of the
/// effective listeners afterwards.
pub(crate) fn listeners(reading: &mut Reading) -> Vec<ListenerConfig> {
    let report = &mut reading.report;
    let bind_origin = report.origins.remove("bind");
    let anonymous_origin = report.origins.remove("allow_anonymous");
    match (bind_origin, &anonymous_origin) {
        (Some(origin), _) => {
            // The listeners of the file are replaced, and with them what is known about them.
            report.origins.retain(|path, _| !path.starts_with("listeners["));
            report.origins.insert("listeners[0].bind".to_owned(), origin.clone());
            report.origins.insert("listeners[0].transport".to_owned(), origin.clone());
            if let Some(anonymous) = anonymous_origin {
                report.origins.insert("listeners[0].allow_anonymous".to_owned(), anonymous);
            }
            // Without a value, it has been reported as a bad one.
            let Some(bind) = reading.bind.bind else { return Vec::new() };
            let allowed = reading.bind.allow_anonymous;
            if !is_loopback(&bind) && allowed != Some(true) {
                let problem = "an address beyond loopback lets in anyone who reaches it, without login: if that is \
                               meant, add --allow-anonymous (or TERNMQ_ALLOW_ANONYMOUS=true)";
                report.fault("bind", Some(format!("\"{bind}\"")), problem.to_owned(), &origin);
            }
            let plain = ListenerConfig::tcp(bind);
            vec![ListenerConfig { allow_anonymous: allowed.unwrap_or(plain.allow_anonymous), ..plain }]
        }
        (None, Some(origin)) => {
            let problem = "speaks of the listener that --bind or TERNMQ_BIND sets, and there is none; in a file it is \
                           allow_anonymous under [[listeners]]";
            report.fault("allow_anonymous", None, problem.to_owned(), origin);
            Vec::new()
        }
        (None, None) => match reading.drafts.take() {
            None => vec![ListenerConfig::default()],
            Some(drafts) => of_file(&drafts, report),
        },
    }
}

fn of_file(drafts: &[Option<ListenerDraft>], report: &mut Report) -> Vec<ListenerConfig> {
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    let mut seen: Vec<(SocketAddr, usize)> = Vec::new();
    for (n, draft) in drafts.iter().enumerate() {
        let Some(draft) = draft else { continue };
        let at = |key: &str| format!("listeners[{n}].{key}");
        let tls = tls(draft, n, report);
        let Some(bind) = draft.bind else {
            missing(&at("bind"), "expected an address and port to listen on", report);
            continue;
        };
        // Port 0 is another port each time.
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == bind && bind.port() != 0) {
            let problem = format!("the same address as listeners[{first}]");
            let origin = report.origin(&at("bind"));
            report.fault(&at("bind"), Some(format!("\"{bind}\"")), problem, &origin);
        }
        seen.push((bind, n));
        listeners.push(ListenerConfig {
            bind,
            transport: tls.map_or(Transport::Tcp, Transport::Tls),
            allow_anonymous: draft.allow_anonymous.unwrap_or_else(|| is_loopback(&bind)),
            refused_publish: draft.refused_publish,
            auth: draft.auth.clone(),
            proxy_protocol_from: draft.proxy_protocol_from.clone(),
        });
    }
    listeners
}

/// Reports a key that has to be there, unless it is there with a value that was already found wrong.
pub(super) fn missing(path: &str, problem: &str, report: &mut Report) {
    if !report.origins.contains_key(path) {
        // Keys of listeners come from the file and nowhere else.
        let origin = report.file.clone().unwrap_or(Origin::Default);
        report.fault(path, None, format!("missing: {problem}"), &origin);
    }
}

fn tls(draft: &ListenerDraft, n: usize, report: &mut Report) -> Option<TlsConfig> {
    let at = |key: &str| format!("listeners[{n}].{key}");
    let has_table = report.origins.contains_key(&at("tls"));
    if !draft.is_tls {
        // With a transport that could not be read nobody knows whether the table belongs there.
        let unreadable = report.faults.iter().any(|fault| fault.path == at("transport"));
        if has_table && !unreadable {
            let origin = report.origin(&at("tls"));
            let problem = "has no effect without transport = \"tls\"".to_owned();
            report.fault(&at("tls"), None, problem, &origin);
        }
        return None;
    }
    let mut need = |path: &Option<PathBuf>, key: &str, what: &str| match path {
        Some(path) => check_file(path, &at(key), report),
        None => missing(&at(key), what, report),
    };
    need(
        &draft.certificate,
        "tls.certificate",
        "transport = \"tls\" needs the server's certificate, a PEM file",
    );
    need(
        &draft.private_key,
        "tls.private_key",
        "transport = \"tls\" needs the certificate's key, a PEM file",
    );
    if draft.client_ca.is_some() || draft.client_certificate != ClientCertificate::None {
        let what = "to ask clients for certificates needs the CA they come from, a PEM file";
        need(&draft.client_ca, "tls.client_ca", what);
    }
    for path in &draft.crl {
        check_file(path, &at("tls.crl"), report);
    }
    let is_asked = draft.client_certificate != ClientCertificate::None;
    let without =
        [("tls.crl", !draft.crl.is_empty()), ("tls.user_name", draft.user_name != CertificateName::None)];
    for (key, _) in without.iter().filter(|(_, is_set)| *is_set && !is_asked) {
        let origin = report.origin(&at(key));
        let problem =
            "needs client_certificate = \"optional\" or \"required\": clients are not asked for one";
        report.fault(&at(key), None, problem.to_owned(), &origin);
    }
    let certificates = certificates(draft, n, report);
    Some(TlsConfig {
        certificate: draft.certificate.clone().unwrap_or_default(),
        private_key: draft.private_key.clone().unwrap_or_default(),
        client_ca: draft.client_ca.clone(),
        client_certificate: draft.client_certificate,
        crl: draft.crl.clone(),
        user_name: draft.user_name,
        certificates,
    })
}

fn certificates(draft: &ListenerDraft, n: usize, report: &mut Report) -> Vec<CertificateFiles> {
    let mut all = Vec::new();
    for (m, files) in draft.certificates.iter().enumerate() {
        let Some(files) = files else { continue };
        let mut need = |path: &Option<PathBuf>, key: &str| {
            let key = format!("listeners[{n}].tls.certificates[{m}].{key}");
            match path {
                Some(path) => check_file(path, &key, report),
                None => missing(&key, "expected a PEM file: a certificate and its key go together", report),
            }
            path.clone().unwrap_or_default()
        };
        all.push(CertificateFiles {
            certificate: need(&files.certificate, "certificate"),
            private_key: need(&files.private_key, "private_key"),
        });
    }
    all
}

/// A file that will be needed must be a file and readable, now, by this user.
pub(super) fn check_file(path: &Path, key: &str, report: &mut Report) {
    // The kind first: opening a pipe would wait for its other end.
    let problem = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Some("expected a file, this is none".to_owned()),
        Ok(_) => fs::File::open(path).err().map(|error| format!("cannot read the file: {error}")),
        Err(error) => Some(format!("cannot read the file: {error}")),
    };
    if let Some(problem) = problem {
        let origin = report.origin(key);
        report.fault(key, Some(format!("{path:?}")), problem, &origin);
    }
}

/// A data directory that is there must be a directory; one that is not will be made at start.
pub(crate) fn data_dir(reading: &mut Reading) {
    let Some(path) = &reading.config.data_dir else { return };
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
        let origin = reading.report.origin("data_dir");
        let problem = "expected a directory, this is none".to_owned();
        reading.report.fault("data_dir", Some(format!("{path:?}")), problem, &origin);
    }
}

/// What is allowed but hardly meant, one sentence each.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = storage_warnings(config);
    for (n, listener) in config.listeners.iter().enumerate() {
        if let Some(all) = listener.proxy_protocol_from.iter().find(|network| network.is_everything()) {
            warnings.push(format!(
                "listeners[{n}].proxy_protocol_from has {all}: whoever connects can claim any address, and has to claim one"
            ));
        }
        if let Transport::Tls(tls) = &listener.transport
            && tls.client_ca.is_some()
            && tls.client_certificate == ClientCertificate::None
        {
            warnings.push(format!(
                "listeners[{n}].tls.client_ca has no effect: client_certificate is \"none\", so clients are not asked \
                 for a certificate"
            ));
        }
    }
    if let MemoryMax::Bytes(bytes) = config.limits.unfinished_bytes_max
        && bytes < config.limits.packet_bytes_max
    {
        warnings.push(
            "limits.unfinished_bytes_max is less than limits.packet_bytes_max: a client that sends a larger packet than \
             that is closed"
                .to_owned(),
        );
    }
    if let Some(warning) = memory_warning(config) {
        warnings.push(warning);
    }
    warnings
}

/// Bounds that are within `limits.memory_max` and leave too little of it.
fn memory_warning(config: &Config) -> Option<String> {
    let MemoryMax::Bytes(all) = config.limits.memory_max else { return None };
    let limits = &config.limits;
    let parts = [limits.retained_bytes_max, limits.unfinished_bytes_max, limits.handshake_bytes_max];
    let set: usize = parts
        .into_iter()
        .map(|part| match part {
            MemoryMax::Bytes(bytes) => bytes,
            MemoryMax::Auto | MemoryMax::Unbounded => 0,
        })
        .fold(0, usize::saturating_add);
    (set > all / 4 * 3).then(|| {
        "limits.retained_bytes_max, limits.unfinished_bytes_max and limits.handshake_bytes_max are within limits.memory_max and leave \
         less than a quarter of it for queues and everything else"
            .to_owned()
    })
}

/// Settings of storage that another one leaves without effect. A default that is spelt out is no mistake.
fn storage_warnings(config: &Config) -> Vec<String> {
    let (storage, default) = (config.storage, StorageConfig::default());
    let mut warnings = Vec::new();
    if storage.kind == StorageKind::Memory {
        let settings = [
            ("data_dir", config.data_dir.is_some()),
            ("storage.sync", storage.sync != default.sync),
            ("storage.sync_interval", storage.sync_interval != default.sync_interval),
        ];
        for (path, _) in settings.iter().filter(|(_, is_set)| *is_set) {
            warnings.push(format!(
                "{path} has no effect: storage.kind is \"memory\", so nothing is kept on disk"
            ));
        }
    } else if storage.sync != SyncMode::Interval && storage.sync_interval != default.sync_interval {
        warnings.push("storage.sync_interval has no effect without storage.sync = \"interval\"".to_owned());
    }
    warnings
}

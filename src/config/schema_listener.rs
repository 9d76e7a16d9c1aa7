//! The settings of listeners, as `schema` has the others.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::auth::AuthMethod;
use super::field::Field;
use super::network::Network;
use super::schema::{METHOD_NAMES, METHODS, Setting, setting};
use super::types::{CertificateName, ClientCertificate, RefusedPublish};

/// A listener while it is being read: everything may be missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerDraft {
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) is_tls: bool,
    pub(crate) allow_anonymous: Option<bool>,
    pub(crate) refused_publish: RefusedPublish,
    pub(crate) auth: Option<Vec<AuthMethod>>,
    pub(crate) proxy_protocol_from: Vec<Network>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) private_key: Option<PathBuf>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) client_certificate: ClientCertificate,
    pub(crate) crl: Vec<PathBuf>,
    pub(crate) user_name: CertificateName,
    /// Tables of their own, [`CERTIFICATE_SETTINGS`]; `None` in the place of what is no table.
    pub(crate) certificates: Vec<Option<CertificateDraft>>,
}

/// A further certificate of a listener while it is being read.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificateDraft {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) private_key: Option<PathBuf>,
}

/// The settings of one `[[listeners.tls.certificates]]`.
pub(crate) const CERTIFICATE_SETTINGS: &[Setting<CertificateDraft>] = &[
    setting("certificate", Field::Path(|c: &mut CertificateDraft| &mut c.certificate)),
    setting("private_key", Field::Path(|c| &mut c.private_key)),
];

/// The settings of one `[[listeners]]`.
pub(crate) const LISTENER_SETTINGS: &[Setting<ListenerDraft>] = &[
    setting("bind", Field::Address(|l: &mut ListenerDraft| &mut l.bind)),
    setting("transport", Field::Choice(&["tcp", "tls"], |l, n| l.is_tls = n == 1, |l| usize::from(l.is_tls))),
    setting("allow_anonymous", Field::Switch(|l| &mut l.allow_anonymous)),
    setting(
        "refused_publish",
        Field::Choice(
            &["ack_and_count", "disconnect"],
            |l, n| {
                l.refused_publish = match n {
                    0 => RefusedPublish::AckAndCount,
                    _ => RefusedPublish::Disconnect,
                }
            },
            |l| usize::from(l.refused_publish == RefusedPublish::Disconnect),
        ),
    ),
    setting(
        "auth",
        Field::Words(
            METHOD_NAMES,
            |l, chosen| l.auth = Some(chosen.iter().filter_map(|n| METHODS.get(*n).copied()).collect()),
            |l| {
                let place = |method| METHODS.iter().position(|known| known == method);
                Some(l.auth.as_ref()?.iter().filter_map(place).collect())
            },
        ),
    ),
    setting("proxy_protocol_from", Field::Networks(|l| &mut l.proxy_protocol_from)),
    setting("tls.certificate", Field::Path(|l| &mut l.certificate)),
    setting("tls.private_key", Field::Path(|l| &mut l.private_key)),
    setting("tls.client_ca", Field::Path(|l| &mut l.client_ca)),
    setting(
        "tls.client_certificate",
        Field::Choice(
            &["none", "optional", "required"],
            |l, n| {
                l.client_certificate = match n {
                    0 => ClientCertificate::None,
                    1 => ClientCertificate::Optional,
                    _ => ClientCertificate::Required,
                }
            },
            |l| match l.client_certificate {
                ClientCertificate::None => 0,
                ClientCertificate::Optional => 1,
                ClientCertificate::Required => 2,
            },
        ),
    ),
    setting("tls.crl", Field::Paths(|l| &mut l.crl)),
    setting(
        "tls.user_name",
        Field::Choice(
            &["none", "cn", "san"],
            |l, n| {
                l.user_name = match n {
                    0 => CertificateName::None,
                    1 => CertificateName::Cn,
                    _ => CertificateName::San,
                }
            },
            |l| match l.user_name {
                CertificateName::None => 0,
                CertificateName::Cn => 1,
                CertificateName::San => 2,
            },
        ),
    ),
];

/// The one listener that environment or flags can put in the place of the configured ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct BindOverride {
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) allow_anonymous: Option<bool>,
}

/// The settings of that listener; they are no keys of the file.
pub(crate) const BIND_SETTINGS: &[Setting<BindOverride>] = &[
    Setting { path: "bind", field: Field::Address(|b: &mut BindOverride| &mut b.bind), flag: Some("--bind") },
    Setting {
        path: "allow_anonymous",
        field: Field::Switch(|b| &mut b.allow_anonymous),
        flag: Some("--allow-anonymous"),
    },
];

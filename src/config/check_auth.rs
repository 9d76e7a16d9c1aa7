//! Rules over the settings of `[auth]`, and the files they name.

use super::auth::{AuthConfig, AuthMethod, HttpConfig, JwtConfig};
use super::check::{check_file, missing};
use super::layers::{Reading, Report};
use super::types::{CertificateName, Config, ListenerConfig, Transport};

/// Judges `[auth]`; `listeners` are those the broker will have.
pub(crate) fn auth(reading: &mut Reading, listeners: &[ListenerConfig]) {
    let (auth, report) = (&reading.config.auth, &mut reading.report);
    let files = [
        ("auth.acl_file", &auth.acl_file),
        ("auth.password_file", &auth.password_file),
        ("auth.http.token_file", &auth.http.token_file),
        ("auth.http.ca", &auth.http.ca),
        ("auth.jwt.key_file", &auth.jwt.key_file),
    ];
    for (key, path) in files {
        if let Some(path) = path {
            check_file(path, key, report);
        }
    }
    if auth.jwt.key_file.is_some() && auth.jwt.algorithm.is_none() {
        let problem = "auth.jwt.key_file needs the one algorithm that tokens are signed with";
        missing("auth.jwt.algorithm", problem, report);
    }
    methods(auth, has_certificate_users(listeners), report);
}

/// A method that is listed must have what it works with: a broker that cannot judge must not start as if it could.
fn methods(auth: &AuthConfig, has_certificate_users: bool, report: &mut Report) {
    let configured = auth.configured(has_certificate_users);
    // Faults in what a method needs have been reported where they stand.
    let is_reported = |report: &Report, needs: &str| report.faults.iter().any(|fault| fault.path == needs);
    for method in auth.methods.iter().flatten().filter(|method| !configured.contains(method)) {
        let needs = match method {
            AuthMethod::Certificate => "tls.user_name = \"cn\" or \"san\" in a listener",
            AuthMethod::PasswordFile => "auth.password_file",
            AuthMethod::Jwt => "auth.jwt.key_file",
            AuthMethod::Http => "auth.http.url",
        };
        if !is_reported(report, needs) {
            let origin = report.origin("auth.methods");
            let problem = format!("needs {needs}");
            report.fault("auth.methods", Some(format!("\"{}\"", method.name())), problem, &origin);
        }
    }
}

fn has_certificate_users(listeners: &[ListenerConfig]) -> bool {
    listeners.iter().any(|listener| match &listener.transport {
        Transport::Tls(tls) => tls.user_name != CertificateName::None,
        Transport::Tcp => false,
    })
}

/// What is allowed in `[auth]` but hardly meant.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let auth = &config.auth;
    let mut warnings = Vec::new();
    if let Some(methods) = &auth.methods {
        let configured = auth.configured(has_certificate_users(&config.listeners));
        for method in configured.iter().filter(|method| !methods.contains(method)) {
            let name = method.name();
            warnings.push(format!(
                "what is set for the method \"{name}\" has no effect: auth.methods leaves it out"
            ));
        }
    }
    if auth.http.url.is_none() && auth.http != HttpConfig::default() {
        warnings.push("auth.http has no effect without auth.http.url".to_owned());
    }
    if auth.jwt.key_file.is_none() && auth.jwt != JwtConfig::default() {
        warnings.push("auth.jwt has no effect without auth.jwt.key_file".to_owned());
    }
    warnings.extend(http_warnings(&auth.http));
    warnings
}

fn http_warnings(http: &HttpConfig) -> Vec<String> {
    let uri = http.url.as_deref().and_then(|url| url.parse::<hyper::Uri>().ok());
    let Some(uri) = uri.filter(|uri| uri.scheme_str() == Some("http")) else { return Vec::new() };
    let mut warnings = Vec::new();
    if http.ca.is_some() {
        warnings.push("auth.http.ca has no effect: auth.http.url is no https:// URL".to_owned());
    }
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    // A name of one label is one of this machine or of its containers.
    let is_near =
        address.map_or_else(|_| !host.contains('.'), |address| address.to_canonical().is_loopback());
    if !is_near {
        warnings
            .push(format!("auth.http.url: passwords go to {host} unencrypted; https:// would protect them"));
    }
    warnings
}

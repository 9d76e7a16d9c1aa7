//! What is written in certificates: names and ends; pure. Whether a certificate is to be trusted is rustls's business, and settled
//! before.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::config::CertificateName;

/// Longest user name that is taken from a certificate, in bytes.
const USER_BYTES_MAX: usize = 256;

/// The user name in a client's certificate (DER). `None` if there is none of the kind that is asked for, or more than one (which of
/// them counts would be anybody's guess, and an attack's chance), or one that is empty, longer than 256 bytes, no text, or has control
/// characters, U+0000 among them.
pub(crate) fn certificate_user(der: &[u8], how: CertificateName) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = match how {
        CertificateName::None => return None,
        CertificateName::Cn => {
            // All are counted, those that cannot be read as text, too.
            let names = certificate.subject().iter_common_name();
            names.map(|name| name.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        }
        CertificateName::San => {
            let names = &certificate.subject_alternative_name().ok()??.value.general_names;
            let text = |name: &GeneralName<'_>| match name {
                GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
                    Some((*text).to_owned())
                }
                // Might be a name of those kinds which the parser could not read.
                GeneralName::Invalid(..) => Some(String::new()),
                _ => None,
            };
            names.iter().filter_map(text).collect()
        }
    };
    let name = names.pop().filter(|_| names.is_empty())?;
    let is_good = !name.is_empty() && name.len() <= USER_BYTES_MAX && !name.chars().any(char::is_control);
    is_good.then_some(name)
}

/// The DNS names of a server's certificate, wildcards as they are written.
pub(super) fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

/// When the first certificate of a chain ends, in seconds since 1970; 0, long over, if none can be read.
pub(super) fn first_end<T: AsRef<[u8]>>(chain: &[T]) -> i64 {
    let ends = chain.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der.as_ref()).ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.min().unwrap_or(0)
}

/// When the first of these lists of revoked certificates is over, in seconds since 1970; `None` if none says when.
pub(super) fn first_list_end<T: AsRef<[u8]>>(lists: &[T]) -> Option<i64> {
    let ends = lists.iter().filter_map(|der| {
        let (_, list) = CertificateRevocationList::from_der(der.as_ref()).ok()?;
        Some(list.next_update()?.timestamp())
    });
    ends.min()
}

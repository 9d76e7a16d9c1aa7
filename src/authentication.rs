//! Enhanced authentication (MQTT 5 section 4.12): the place where a program that embeds the broker adds a method.
//!
//! A client names a method in CONNECT; the method then exchanges data with it in AUTH packets until it lets the client in or refuses it. The
//! broker itself brings no method: without one of that name the client is refused with 0x8C. `net::authenticate` runs the exchange.

use std::fmt;
use std::sync::Arc;

use crate::protocol::ReasonCode;

/// What a method answers to the client's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationStep {
    /// More is needed: this goes to the client in AUTH 0x18, at most 65,535 bytes.
    Continue(Vec<u8>),
    /// The client is who it says; this may go with the answer.
    Success(Option<Vec<u8>>),
    /// The client is refused with this code, which is an error code of CONNACK and DISCONNECT such as
    /// [`ReasonCode::NotAuthorized`].
    Refused(ReasonCode),
}

/// One run of a method with one client.
pub trait AuthenticationExchange: Send {
    /// The client's data: that of CONNECT or of the re-authentication first, then that of each AUTH. Must not block.
    fn step(&mut self, data: Option<&[u8]>) -> AuthenticationStep;

    /// The user that the client has proved to be, asked after [`AuthenticationStep::Success`] at the beginning of a connection: whose the
    /// session is, and whose the rules of access are. `None` (the default): an anonymous client.
    fn user(&self) -> Option<String> {
        None
    }
}

/// A method of enhanced authentication.
pub trait AuthenticationMethod: Send + Sync {
    /// The name by which clients ask for it.
    fn name(&self) -> &str;

    /// Begins with a client; `client_id` may be empty if the broker is to make one up.
    fn begin(&self, client_id: &str) -> Box<dyn AuthenticationExchange>;
}

/// The methods of a broker.
#[derive(Default, Clone)]
pub(crate) struct AuthenticationMethods(pub(crate) Vec<Arc<dyn AuthenticationMethod>>);

impl AuthenticationMethods {
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<dyn AuthenticationMethod>> {
        self.0.iter().find(|method| method.name() == name)
    }
}

impl fmt::Debug for AuthenticationMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|method| method.name())).finish()
    }
}

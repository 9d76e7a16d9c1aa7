//! `Gate`: asks the methods of a broker, in their order, who a client is.
//!
//! The first method that knows the client lets it in; one that refuses it leaves the word to the next. A client that shows nothing is
//! anonymous, which is the listener's affair. A certificate names its user where that is a method; else it is enough by itself only where
//! no method is asked, and beside methods it stands for nobody. A password that is omitted is none, not an empty one.
//!
//! Failures are counted by address and user ([`throttle`](super::throttle)) and slow down, then ban, whoever goes on; no more checks are under way
//! together than may still fail ([`lanes`](super::lanes)). An answer that no
//! method can give (a server that is silent, a queue that is full) lets nobody in either, and is told apart: it is not the client's fault.
//!
//! Passwords are judged on a pool of their own. New files replace the methods as a whole ([`Gate::replace`]).

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::entry::EntryId;
use super::http::{HttpAnswer, HttpAuth, HttpAuthError, Question};
use super::jwt::{JwtKeyError, JwtVerifier};
use super::lanes::Lanes;
use super::password::{PasswordFile, PasswordFileError};
use super::pool::{Limits, Pool};
use super::throttle::{AddressGroup, Admission, Throttle, ThrottleLimits};
use crate::config::{AuthConfig, AuthMethod};
use crate::escape::escape;

/// What a client's certificate says of it; its listener's CA has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// Nothing: there is none, or it lacks the name that it is asked for.
    None,
    /// That its CA has signed it, on a listener that asks for no name in it: enough where no method is asked.
    Good,
    /// Its user.
    Names(String),
}

/// What a client shows.
pub(crate) struct Login<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) certificate: Certificate,
    /// Whether the listener takes clients that show nothing.
    pub(crate) allow_anonymous: bool,
    /// The listener's own choice of methods.
    pub(crate) methods: Option<&'a [AuthMethod]>,
}

/// A client that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Who it is; `None`: anonymous.
    pub(crate) user: Option<Arc<str>>,
    /// When it has to leave.
    pub(crate) until: Option<SystemTime>,
    /// The entry of the password file that let it in, without which it has to leave.
    pub(crate) entry: Option<EntryId>,
}

/// Why a client may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It shows nothing, and the listener does not take anonymous clients.
    Anonymous,
    /// No method knows it.
    Unknown,
    /// Its address, or the user at its address, has failed too often.
    Banned,
    /// A method could not be asked.
    Unavailable,
}

/// Why the methods cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error("auth.password_file: {0}")]
    PasswordFile(#[from] PasswordFileError),
    #[error("auth.jwt: {0}")]
    Jwt(#[from] JwtKeyError),
    #[error("auth.http: {0}")]
    Http(#[from] HttpAuthError),
    #[error("auth: no thread for password hashes: {0}")]
    Pool(#[from] std::io::Error),
}

/// The methods with what they have read.
pub(crate) struct Methods {
    order: Vec<AuthMethod>,
    password_file: Option<Arc<PasswordFile>>,
    jwt: Option<JwtVerifier>,
    http: Option<HttpAuth>,
}

impl Methods {
    /// Reads the files of the methods in use.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(crate) fn load(config: &AuthConfig, has_certificate_users: bool) -> Result<Self, GateError> {
        let order = config.methods.clone().unwrap_or_else(|| config.configured(has_certificate_users));
        let path = config.password_file.as_ref().filter(|_| order.contains(&AuthMethod::PasswordFile));
        let password_file = path.map(|path| PasswordFile::read(path)).transpose()?.map(Arc::new);
        for warning in password_file.iter().flat_map(|file| file.warnings()) {
            tracing::warn!("{warning}");
        }
        let jwt = order.contains(&AuthMethod::Jwt).then(|| JwtVerifier::load(&config.jwt)).transpose()?;
        let http = order.contains(&AuthMethod::Http).then(|| HttpAuth::new(&config.http)).transpose()?;
        Ok(Self { order, password_file, jwt, http })
    }

    /// Whether any method is asked on a listener with this choice.
    pub(crate) fn asks(&self, listener: Option<&[AuthMethod]>) -> bool {
        self.of(listener).next().is_some()
    }

    /// For people: which methods are asked.
    pub(crate) fn names(&self, of_listener: Option<&[AuthMethod]>) -> String {
        let names: Vec<&str> = self.of(of_listener).map(|method| method.name()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    fn of<'a>(&'a self, listener: Option<&'a [AuthMethod]>) -> impl Iterator<Item = AuthMethod> + 'a {
        let chosen = listener.unwrap_or(&self.order);
        chosen.iter().copied().filter(|method| self.order.contains(method))
    }
}

/// See the module's documentation.
pub(crate) struct Gate {
    methods: RwLock<Arc<Methods>>,
    /// Once there is a password file.
    pool: Mutex<Option<Arc<Pool>>>,
    throttle: Arc<Mutex<Throttle>>,
    lanes: Arc<Lanes>,
    started: Instant,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("methods", &self.methods.read().order).finish_non_exhaustive()
    }
}

enum Answer {
    In(Admitted),
    No,
    NotAsked,
    Unavailable,
}

impl Gate {
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn new(methods: Methods, limits: ThrottleLimits) -> Result<Self, GateError> {
        let throttle = Arc::new(Mutex::new(Throttle::new(limits)));
        let gate = Self {
            methods: RwLock::new(Arc::new(methods)),
            pool: Mutex::default(),
            lanes: Lanes::new(Arc::clone(&throttle)),
            throttle,
            started: Instant::now(),
        };
        gate.start_pool(&gate.methods())?;
        Ok(gate)
    }

    fn start_pool(&self, methods: &Methods) -> Result<(), GateError> {
        let mut pool = self.pool.lock();
        if pool.is_none() && methods.password_file.is_some() {
            *pool = Some(Arc::new(Pool::start(Pool::default_threads(), Limits::default())?));
        }
        Ok(())
    }

    /// The methods in use.
    pub(crate) fn methods(&self) -> Arc<Methods> {
        Arc::clone(&self.methods.read())
    }

    /// Asks others from now on. Who is in stays in, but for those whose entry of the password file does not count any more
    /// ([`counts`](Self::counts)): the caller sees to them.
    ///
    /// # Errors
    /// The system gives no thread; everything stays as it was.
    pub(crate) fn replace(&self, methods: Methods) -> Result<(), GateError> {
        self.start_pool(&methods)?;
        *self.methods.write() = Arc::new(methods);
        Ok(())
    }

    /// Counts failures by other bounds from now on. Bans in force run out.
    pub(crate) fn set_throttle_limits(&self, limits: ThrottleLimits) {
        self.throttle.lock().set_limits(limits);
    }

    /// Whether this entry is the user's in the password file in use.
    pub(crate) fn counts(&self, user: &str, entry: EntryId) -> bool {
        self.methods().password_file.as_ref().and_then(|file| file.entry(user)) == Some(entry)
    }

    /// Who the client is, if it may come in. Slow where it has failed before, `patience` at most.
    ///
    /// # Errors
    /// Why it may not; said in the log. A failure whose answer would be late comes when `patience` is over; a login that was not judged by
    /// then is [`Refused::Unavailable`]: its password may have been the right one.
    pub(crate) async fn admit(&self, login: &Login<'_>, patience: Duration) -> Result<Admitted, Refused> {
        let has_failed = AtomicBool::new(false);
        match tokio::time::timeout(patience, self.judge(login, &has_failed)).await {
            Ok(result) => result,
            Err(_) if has_failed.load(Ordering::Acquire) => Err(Refused::Unknown),
            Err(_) => {
                let name = login.user.unwrap_or_default();
                tracing::warn!(peer = %login.peer, user_name = %escape(name), "login not judged within limits.connect_timeout");
                Err(Refused::Unavailable)
            }
        }
    }

    async fn judge(&self, login: &Login<'_>, has_failed: &AtomicBool) -> Result<Admitted, Refused> {
        let methods = self.methods();
        if let Certificate::Names(user) = &login.certificate
            && methods.of(login.methods).any(|method| method == AuthMethod::Certificate)
        {
            return Ok(Admitted { user: Some(Arc::from(user.as_str())), until: None, entry: None });
        }
        let asked = methods.of(login.methods).any(|method| method != AuthMethod::Certificate);
        let shows_login = login.user.is_some() || login.password.is_some();
        if !shows_login || !asked {
            // A name that nobody can confirm is none.
            return if login.allow_anonymous || (!asked && login.certificate != Certificate::None) {
                Ok(Admitted { user: None, until: None, entry: None })
            } else if shows_login {
                Err(Refused::Unknown)
            } else {
                Err(Refused::Anonymous)
            };
        }
        let (address, name) = (login.peer.ip(), login.user.unwrap_or_default());
        let admission = self.throttle.lock().admit(self.now(), address, name);
        let after = unless_banned(login, admission)?;
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let place = self.lanes.enter(address, name).await;
        // Also if it has not waited: the ban may have begun, and its lane be empty since.
        let admission = self.throttle.lock().admit_again(self.now(), address, name);
        unless_banned(login, admission)?;
        match self.ask(&methods, login).await {
            Answer::In(admitted) => {
                self.throttle.lock().succeeded(self.now(), address, name);
                Ok(admitted)
            }
            Answer::Unavailable => Err(Refused::Unavailable),
            Answer::No | Answer::NotAsked => {
                has_failed.store(true, Ordering::Release);
                let delay = self.failed(login);
                // It counts now: the next one has not to wait for a late answer.
                drop(place);
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                Err(Refused::Unknown)
            }
        }
    }

    async fn ask(&self, methods: &Methods, login: &Login<'_>) -> Answer {
        let mut result = Answer::NotAsked;
        for method in methods.of(login.methods) {
            let answer = match method {
                AuthMethod::Certificate => Answer::NotAsked,
                AuthMethod::PasswordFile => self.ask_file(methods, login).await,
                AuthMethod::Jwt => ask_jwt(methods, login),
                AuthMethod::Http => ask_http(methods, login).await,
            };
            result = match (result, answer) {
                (_, Answer::In(admitted)) => return Answer::In(admitted),
                (Answer::Unavailable, _) | (_, Answer::Unavailable) => Answer::Unavailable,
                (before, Answer::NotAsked) => before,
                (_, Answer::No) => Answer::No,
            };
        }
        result
    }

    async fn ask_file(&self, methods: &Methods, login: &Login<'_>) -> Answer {
        let (Some(file), Some(user), Some(password)) = (&methods.password_file, login.user, login.password)
        else {
            return Answer::NotAsked;
        };
        let (file, name, password) = (Arc::clone(file), user.to_owned(), password.to_vec());
        let job = move || file.verify(&name, &password);
        let pool = self.pool.lock().clone();
        let Some(pool) = pool else { return Answer::Unavailable };
        let checked = match pool.submit(AddressGroup::of(login.peer.ip()), job) {
            Ok(pending) => pending.await.map_err(|lost| lost.to_string()),
            Err(busy) => Err(busy.to_string()),
        };
        match checked {
            Ok(true) => {
                let entry = methods.password_file.as_ref().and_then(|file| file.entry(user));
                Answer::In(Admitted { user: Some(Arc::from(user)), until: None, entry })
            }
            Ok(false) => Answer::No,
            Err(error) => {
                tracing::warn!(peer = %login.peer, user_name = %escape(user), %error, "login not judged");
                Answer::Unavailable
            }
        }
    }

    /// Counts a failure, and says it in one line that tools can look for; how late its answer is to be.
    fn failed(&self, login: &Login<'_>) -> Duration {
        let name = login.user.unwrap_or_default();
        let failure = self.throttle.lock().failed(self.now(), login.peer.ip(), name);
        tracing::warn!(
            peer = %login.peer,
            user_name = %escape(name),
            client_id = %escape(login.client_id),
            "login failed"
        );
        if let Some(banned) = failure.banned {
            tracing::warn!(
                peer = %login.peer,
                user_name = %escape(name),
                banned = banned.name(),
                "login banned: too many failures (auth.failures_max, auth.address_failures_max), for auth.ban_time"
            );
        }
        failure.delay
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// How long the check has to wait, unless it is not to be made at all.
fn unless_banned(login: &Login<'_>, admission: Admission) -> Result<Duration, Refused> {
    match admission {
        Admission::Check { after } => Ok(after),
        Admission::Refuse { banned, remaining } => {
            tracing::info!(
                peer = %login.peer,
                user_name = %escape(login.user.unwrap_or_default()),
                banned = banned.name(),
                remaining_seconds = remaining.as_secs(),
                "login refused: banned after too many failures (auth.failures_max, auth.ban_time)"
            );
            Err(Refused::Banned)
        }
    }
}

fn ask_jwt(methods: &Methods, login: &Login<'_>) -> Answer {
    let (Some(jwt), Some(token)) = (&methods.jwt, login.password) else { return Answer::NotAsked };
    match jwt.check(token, login.user, wall_clock()) {
        Ok(identity) => {
            let (user, until) = (Some(Arc::from(identity.user)), Some(identity.expires_at));
            Answer::In(Admitted { user, until, entry: None })
        }
        Err(fault) => {
            tracing::debug!(peer = %login.peer, %fault, "token refused");
            Answer::No
        }
    }
}

async fn ask_http(methods: &Methods, login: &Login<'_>) -> Answer {
    let (Some(http), Some(user), Some(password)) = (&methods.http, login.user, login.password) else {
        return Answer::NotAsked;
    };
    match http.check(Question { user, password, client_id: login.client_id }).await {
        HttpAnswer::Allowed => Answer::In(Admitted { user: Some(Arc::from(user)), until: None, entry: None }),
        HttpAnswer::Denied => Answer::No,
        HttpAnswer::Unavailable(why) => {
            tracing::warn!(peer = %login.peer, user_name = %escape(user), %why, "the HTTP back end gave no answer: login not judged");
            Answer::Unavailable
        }
    }
}

/// Tokens name times of the wall clock.
#[allow(clippy::disallowed_methods, reason = "what a token says of time is about the wall clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

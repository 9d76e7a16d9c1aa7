//! stub
pub(crate) struct Acl;
pub(crate) enum Access {
    Read,
    Write,
}
pub(crate) struct Who<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) client_id: &'a str,
}
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) rule: Option<String>,
}
impl Acl {
    pub(crate) fn decide(&self, who: Who<'_>, access: Access, topic: &str) -> Decision {
        let _ = (who.user, who.client_id, topic);
        Decision { allowed: matches!(access, Access::Read), rule: None }
    }
    pub(crate) fn may_subscribe(&self, who: Who<'_>, topic: &str) -> Decision {
        self.decide(who, Access::Read, topic)
    }
}

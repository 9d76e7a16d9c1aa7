//! stub
pub(crate) mod acl;

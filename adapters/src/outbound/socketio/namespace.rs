/// A namespace that devices connect to. Both behave the same: existing clients use one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `/`
    Root,
    /// `/notifications`
    Notifications,
}

impl Namespace {
    /// All namespaces, each at the index `namespace as usize`.
    pub const ALL: [Self; 2] = [Self::Root, Self::Notifications];

    /// The path that clients connect to.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Notifications => "/notifications",
        }
    }

    /// The namespace with that path; `None` if it does not exist.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.path() == path)
    }

    /// Its prefix in a Socket.IO packet, after the packet type; empty for the root.
    pub(crate) const fn packet_prefix(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Notifications => "/notifications,",
        }
    }
}

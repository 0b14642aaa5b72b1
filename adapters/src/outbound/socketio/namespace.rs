/// A namespace that devices connect to. Both are the same to Belfry: clients in the field use one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `/`
    Root,
    /// `/notifications`
    Notifications,
}

impl Namespace {
    /// All of them, each at its own index.
    pub const ALL: [Self; 2] = [Self::Root, Self::Notifications];

    /// Its path, as clients name it.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Notifications => "/notifications",
        }
    }

    /// The namespace of that path; `None` if it does not exist.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.path() == path)
    }

    /// How a Socket.IO packet names it, between its type and the rest: not at all for the root.
    pub(crate) const fn in_packet(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Notifications => "/notifications,",
        }
    }
}

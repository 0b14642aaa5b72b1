use std::fmt;
use std::str::FromStr;

/// A namespace that devices connect to. All namespaces behave the same. There are several because existing clients
/// use different ones.
#[derive(Clone, Copy)]
pub struct Namespace(&'static Entry);

/// The data of one namespace. The entries of the configured namespaces are created at start and never freed.
struct Entry {
    /// The position of the namespace in [`Namespaces`].
    index: usize,
    path: &'static str,
    packet_prefix: &'static str,
}

impl Namespace {
    /// `/`
    pub const ROOT: Self = Self(&Entry { index: 0, path: "/", packet_prefix: "" });

    /// `/notifications`
    pub const NOTIFICATIONS: Self =
        Self(&Entry { index: 1, path: "/notifications", packet_prefix: "/notifications," });

    /// The path that clients connect to.
    pub const fn path(self) -> &'static str {
        self.0.path
    }

    /// The text that follows the type in a Socket.IO packet, such as `/notifications,`; empty for the root.
    pub(crate) const fn packet_prefix(self) -> &'static str {
        self.0.packet_prefix
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.0.index == other.0.index
    }
}

impl Eq for Namespace {}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// The namespaces of a server: `/`, `/notifications`, and at most [`MAX_FURTHER`](Self::MAX_FURTHER) further ones that
/// the operator configures.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces(&'static [Namespace]);

/// More namespaces than [`Namespaces::MAX_FURTHER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {} further namespaces are possible", Namespaces::MAX_FURTHER)]
pub struct TooManyNamespaces;

impl Namespaces {
    /// The maximum number of further namespaces.
    pub const MAX_FURTHER: usize = 6;

    /// `/` and `/notifications`
    pub const BUILT_IN: Self = Self(&[Namespace::ROOT, Namespace::NOTIFICATIONS]);

    /// The built-in namespaces and `further`. Call it once, at start: the further namespaces are never freed.
    pub fn with(further: &[NamespacePath]) -> Result<Self, TooManyNamespaces> {
        let mut all = Self::BUILT_IN.0.to_vec();
        for NamespacePath(path) in further {
            if all.iter().any(|known| known.path() == path) {
                continue;
            }
            if all.len() == Self::BUILT_IN.0.len() + Self::MAX_FURTHER {
                return Err(TooManyNamespaces);
            }
            let packet_prefix = format!("{path},").leak();
            let entry = Entry { index: all.len(), path: path.clone().leak(), packet_prefix };
            all.push(Namespace(Box::leak(Box::new(entry))));
        }
        Ok(if all.len() == Self::BUILT_IN.0.len() { Self::BUILT_IN } else { Self(all.leak()) })
    }

    /// The namespace with that path; `None` if it does not exist.
    pub fn find(self, path: &str) -> Option<Namespace> {
        self.iter().find(|namespace| namespace.path() == path)
    }

    /// Iterates over all namespaces.
    pub fn iter(self) -> impl Iterator<Item = Namespace> {
        self.0.iter().copied()
    }

    /// The number of namespaces.
    #[expect(clippy::len_without_is_empty, reason = "there are at least two")]
    pub const fn len(self) -> usize {
        self.0.len()
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::BUILT_IN
    }
}

/// The path of a further namespace, such as `/ws/notifications`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespacePath(String);

/// The text is not a [`NamespacePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a namespace is a slash and 1 to 100 letters, digits, slashes, dots, hyphens or underscores: \
     /ws/notifications"
)]
pub struct InvalidNamespace;

impl FromStr for NamespacePath {
    type Err = InvalidNamespace;

    fn from_str(raw: &str) -> Result<Self, InvalidNamespace> {
        const MAX_LENGTH: usize = 101;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte);
        let is_valid = raw.starts_with('/') && raw.len() <= MAX_LENGTH && raw.bytes().all(is_plain);
        if is_valid { Ok(Self(raw.to_owned())) } else { Err(InvalidNamespace) }
    }
}

/// A value for each namespace. The values of the further namespaces are allocated together, when one of them is first
/// accessed for a change.
#[derive(Debug)]
pub(crate) struct NamespaceMap<T> {
    built_in: [T; BUILT_IN],
    further: Option<Box<[T; Namespaces::MAX_FURTHER]>>,
}

const BUILT_IN: usize = Namespaces::BUILT_IN.len();

impl<T: Default> Default for NamespaceMap<T> {
    fn default() -> Self {
        Self { built_in: Default::default(), further: None }
    }
}

impl<T: Default> NamespaceMap<T> {
    /// `None` for a further namespace if no value of any further namespace has been changed.
    pub(crate) fn get(&self, namespace: Namespace) -> Option<&T> {
        match namespace.0.index {
            index @ 0..BUILT_IN => Some(&self.built_in[index]),
            index => Some(&self.further.as_ref()?[index - BUILT_IN]),
        }
    }

    pub(crate) fn get_mut(&mut self, namespace: Namespace) -> &mut T {
        match namespace.0.index {
            index @ 0..BUILT_IN => &mut self.built_in[index],
            index => &mut self.further.get_or_insert_default()[index - BUILT_IN],
        }
    }

    /// The values of the built-in namespaces, and of the further ones if one of these may have been changed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.built_in.iter().chain(self.further.iter().flat_map(|further| further.iter()))
    }
}

/// A value for each namespace that is initialised once. The values of the further namespaces are allocated together,
/// when one of them is first initialised.
#[derive(Debug)]
pub(crate) struct NamespaceCache<T> {
    built_in: [std::sync::OnceLock<T>; BUILT_IN],
    further: std::sync::OnceLock<Box<[std::sync::OnceLock<T>; Namespaces::MAX_FURTHER]>>,
}

impl<T> Default for NamespaceCache<T> {
    fn default() -> Self {
        Self { built_in: Default::default(), further: std::sync::OnceLock::new() }
    }
}

impl<T> NamespaceCache<T> {
    pub(crate) fn get_or_init(&self, namespace: Namespace, init: impl FnOnce() -> T) -> &T {
        match namespace.0.index {
            index @ 0..BUILT_IN => self.built_in[index].get_or_init(init),
            index => self.further.get_or_init(Box::default)[index - BUILT_IN].get_or_init(init),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(count: usize) -> Vec<NamespacePath> {
        (0..count).map(|n| format!("/n{n}").parse().unwrap()).collect()
    }

    #[test]
    fn namespaces_are_found_by_their_path() {
        let further = ["/ws/notifications", "/notifications", "/ws/notifications"];
        let further = further.map(|path| path.parse().unwrap());
        let namespaces = Namespaces::with(&further).unwrap();
        assert_eq!(namespaces.len(), 3, "each path counts once");
        let found = namespaces.find("/ws/notifications").unwrap();
        assert_eq!(found.packet_prefix(), "/ws/notifications,");
        assert_eq!(namespaces.find("/"), Some(Namespace::ROOT));
        assert_eq!(namespaces.find("/ws"), None);
        assert_eq!(Namespaces::BUILT_IN.find("/ws/notifications"), None);
    }

    #[test]
    fn number_of_namespaces_is_limited() {
        assert!(Namespaces::with(&paths(Namespaces::MAX_FURTHER)).is_ok());
        assert!(Namespaces::with(&paths(Namespaces::MAX_FURTHER + 1)).is_err());
    }

    #[test]
    fn malformed_path_is_rejected() {
        for raw in
            ["", "ws", "/a,b", "/a b", "/a\"", "/a?b", "/ü", &format!("/{}", "x".repeat(101))]
        {
            assert_eq!(raw.parse::<NamespacePath>(), Err(InvalidNamespace), "{raw}");
        }
    }

    #[test]
    fn values_of_further_namespaces_are_separate() {
        let namespaces = Namespaces::with(&paths(Namespaces::MAX_FURTHER)).unwrap();
        let (mut map, cache) = (NamespaceMap::default(), NamespaceCache::default());
        for (n, namespace) in namespaces.iter().enumerate() {
            *map.get_mut(namespace) = n;
            cache.get_or_init(namespace, || n);
        }
        for (n, namespace) in namespaces.iter().enumerate() {
            assert_eq!(map.get(namespace), Some(&n));
            assert_eq!(cache.get_or_init(namespace, || 99), &n);
        }
        // The sum of 0 to 7, for two built-in and six further namespaces.
        assert_eq!(map.iter().sum::<usize>(), 28);
    }
}

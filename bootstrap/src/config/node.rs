use belfry_adapters::transport::ListenAddress;
use serde::Deserialize;

/// `node.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Node {
    #[serde(default)]
    pub name: Option<String>,
}

impl Node {
    /// The configured name, or the host name and the listening port (for a Unix socket the file name).
    /// The default is the same after a restart, unless `http.listen` has port 0.
    pub fn name_at(&self, address: &ListenAddress) -> String {
        self.name.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
                .or_else(|_| std::env::var("HOSTNAME"))
                .unwrap_or_else(|_| "belfry".to_owned());
            let host = host.trim();
            match address {
                ListenAddress::Tcp(address) => format!("{host}-{}", address.port()),
                ListenAddress::Unix(path) => {
                    let name = path.file_stem().unwrap_or_default();
                    format!("{host}-{}", name.to_string_lossy())
                }
            }
        })
    }
}

//! A SQLite file on a full disk: the database can still be read, and writes work again when there is room.

use std::fs;
use std::process::Command;

use belfry_tests::http::Http;
use belfry_tests::process::{Belfry, Builder};
use belfry_tests::wait::until_true;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::setup::{Setup, User, ready, service, until_ready};

/// A disk that becomes full.
#[derive(Debug, Clone, Copy)]
enum Disk {
    /// A file system of 4 MB in a mount namespace of the process. Half of it is filled from the start.
    Small,
    /// A limit on the size of the process's files, beyond which writes fail with an I/O error.
    FileSizeLimit,
}

impl Disk {
    /// The command that runs another command in a mount namespace of its own.
    const NAMESPACE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];

    /// The disks that this machine allows. A container may forbid `Small`.
    fn all() -> Vec<Self> {
        let [unshare, options @ ..] = Self::NAMESPACE;
        let mount = ["sh", "-c", "mount -t tmpfs tmpfs /mnt"];
        let mounted = Command::new(unshare).args(options).args(mount).status();
        let small = mounted.is_ok_and(|status| status.success()).then_some(Self::Small);
        small.into_iter().chain([Self::FileSizeLimit]).collect()
    }

    fn start_on(self, belfry: Builder) -> Builder {
        match self {
            Self::Small => {
                let script = "mkdir data && mount -t tmpfs -o size=4m tmpfs data && \
                    head -c 2000000 /dev/zero >data/filler && exec \"$@\"";
                let wrapper = [&Self::NAMESPACE[..], &["sh", "-c", script, "sh"]].concat();
                belfry.run_by(&wrapper).database("sqlite://data/belfry.db")
            }
            Self::FileSizeLimit => belfry.run_by(&["env", "--ignore-signal=XFSZ"]),
        }
    }

    fn make_full(self, belfry: &Belfry) {
        // The small disk becomes full by itself, because the test writes until then.
        if let Self::FileSizeLimit = self {
            limit_file_size(belfry, Some(500_000));
        }
    }

    fn make_room(self, belfry: &Belfry) {
        match self {
            Self::Small => {
                let root = format!("/proc/{}/root", belfry.pid());
                let folder = belfry.folder().strip_prefix("/").unwrap();
                let root = std::path::Path::new(&root).join(folder);
                fs::remove_file(root.join("data/filler")).unwrap();
            }
            Self::FileSizeLimit => limit_file_size(belfry, None),
        }
    }
}

/// Sets the limit in bytes; `None` removes it.
fn limit_file_size(belfry: &Belfry, current: Option<u64>) {
    let pid = Pid::from_raw(belfry.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

fn batch(user: &User) -> Value {
    let draft = json!({ "userId": user.id(), "title": "Large", "message": "m".repeat(4_000) });
    json!({ "notifications": vec![draft; 20] })
}

async fn create(service: &Http, user: &User) -> u16 {
    service.post("/v1/notifications/batch", &batch(user)).await.status
}

#[tokio::test]
async fn node_on_a_full_disk_is_not_ready_and_recovers_when_there_is_room() {
    for disk in Disk::all() {
        let backends = Setup::Embedded.backends().await;
        let belfry = ready(disk.start_on(backends.belfry()).start().await).await;
        let (service, ada) = (service(&belfry), User::new("ada", &belfry));
        assert_eq!(create(&service, &ada).await, 201, "{disk:?}");
        disk.make_full(&belfry);
        until_true("the disk is full", async || create(&service, &ada).await == 503).await;

        let health = belfry.http();
        let is_unready = async || health.get("/health/ready").await.status == 503;
        until_true("belfry is not ready", is_unready).await;
        let body = health.get("/health/ready").await.expect(503);
        assert_eq!(body["checks"]["database"], "down", "{disk:?}: {body}");
        let reason = body["reasons"]["database"].as_str().unwrap();
        assert!(reason.contains("disk") || reason.contains("storage"), "{disk:?}: {body}");
        ada.http().get("/v1/notifications?limit=1").await.expect(200);

        disk.make_room(&belfry);
        until_true("there is room", async || create(&service, &ada).await == 201).await;
        until_ready(&belfry).await;
        assert_eq!(create(&service, &ada).await, 201, "{disk:?}");
    }
}

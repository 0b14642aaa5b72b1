//! These tests are about the harness: a shell runs in the place of `belfry`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};

use super::{Belfry, Builder};
use crate::child::ChildProcess;
use crate::wait::{PATIENCE, until_true};

/// A shell in the place of `belfry`. It prints the addresses, then runs `then`.
///
/// The script is an argument and not a file. A child that another test starts at this moment inherits every
/// open file for an instant, and a file that is open for writing cannot be executed (`ETXTBSY`, execve(2)).
fn builder(then: &str) -> Builder {
    let addresses = "echo listening on http://127.0.0.1:1/; echo admin on http://127.0.0.1:2";
    shell(&format!("{addresses}\n{then}"))
}

fn shell(script: &str) -> Builder {
    Belfry::builder().program(Path::new("/bin/sh")).arg("-c").arg(script)
}

#[tokio::test]
async fn addresses_are_read_from_standard_output() {
    let belfry = builder("exec sleep 60").start().await;
    assert_eq!(belfry.url(), "http://127.0.0.1:1");
    assert_eq!(belfry.admin_url(), "http://127.0.0.1:2");
}

#[tokio::test]
async fn process_gets_its_settings_and_nothing_of_the_environment() {
    let builder = builder("env; echo complete; exec sleep 60");
    let belfry = builder.setting("amqp.ingest.mode", "forward").start().await;
    belfry.log_line("complete").await;
    let log = belfry.log();
    assert!(log.contains("BELFRY_AMQP__INGEST__MODE=forward"), "{log}");
    assert!(!log.contains("CARGO"), "{log}");
}

#[tokio::test]
async fn exit_before_serving_is_reported_with_status_and_log() {
    let failure = shell("echo no such setting >&2; exit 3").try_start().await.unwrap_err();
    assert_eq!(failure.status.unwrap().code(), Some(3));
    assert_eq!(failure.log, "no such setting");
}

#[tokio::test]
async fn process_terminates_gracefully_and_restarts() {
    let then = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let mut belfry = builder(then).start().await;
    // Before the trap is set, the signal would end the shell at once.
    belfry.log_line("ready").await;
    let first = belfry.pid();
    assert_eq!(belfry.terminate().await.code(), Some(0));
    assert!(belfry.log().ends_with("bye"));
    belfry.restart().await;
    assert_ne!(belfry.pid(), first);
    assert!(belfry.is_running());
}

#[tokio::test]
#[should_panic(expected = "belfry panicked")]
async fn panic_of_the_process_fails_the_test() {
    let then = "echo thread main panicked at src/main.rs >&2; exec sleep 60";
    let belfry = builder(then).start().await;
    belfry.log_line("panicked").await;
}

#[tokio::test]
async fn process_and_folder_are_removed_when_the_test_process_is_killed() {
    const TO_BE_KILLED: &str = "BELFRY_TEST_TO_BE_KILLED";
    if std::env::var_os(TO_BE_KILLED).is_some() {
        let belfry = builder("exec sleep 60").start().await;
        println!("\npid {} {}", belfry.pid(), belfry.folder().display());
        return tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let this_test =
        "process::tests::process_and_folder_are_removed_when_the_test_process_is_killed";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", this_test]);
    command.env(TO_BE_KILLED, "1");
    let mut test = ChildProcess::new(&mut command, None).unwrap();
    let line = test.wait_for(PATIENCE, |lines| {
        let mut lines = lines.iter();
        lines.find_map(|line| line.text.strip_prefix("pid ").map(str::to_owned))
    });
    let line = line.await.unwrap();
    let (pid, folder) = line.split_once(' ').unwrap();
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    test_kill_process(pid).expect("it runs");
    test.kill();
    until_true("the process is gone", async || is_gone(pid)).await;
    let folder = Path::new(folder);
    until_true("the folder is gone", async || !folder.exists()).await;
}

/// Whether the process has ended. A zombie counts as ended: it stays if the machine's init process does not
/// reap orphans.
fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

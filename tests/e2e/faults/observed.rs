//! The inbox of a user as it is in the database, and as each device has received it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use belfry_tests::clients::{Device, DeviceRecord};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::ledger::Ledger;
use crate::setup::User;

/// A user's rows in the database.
#[derive(Debug)]
pub(super) struct Rows {
    inbox: InboxRow,
    /// In the order of their creation.
    notifications: Vec<NotificationRow>,
}

#[derive(Debug, sqlx::FromRow)]
struct InboxRow {
    revision: i64,
    /// The unread count in the inbox's row.
    unread: i64,
    /// The number of unread notification rows.
    count: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct NotificationRow {
    id: String,
    is_read: bool,
    is_deleted: bool,
}

impl NotificationRow {
    fn number(&self) -> usize {
        number_in(&self.id)
    }
}

/// The number of a notification, which its id ends with.
fn number_in(id: &str) -> usize {
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{id} is not an id of a producer"))
}

impl Rows {
    /// Reads the rows; `None` while the user has no inbox, or the database cannot be reached.
    pub(super) async fn of(database: &str, user: &str) -> Option<Self> {
        let mut connection = PgConnection::connect(database).await.ok()?;
        let inbox: InboxRow = sqlx::query_as(
            "SELECT revision, unread,
               (SELECT count(*) FROM notifications n WHERE n.user_id = i.user_id
                  AND read_at IS NULL AND deleted_at IS NULL) AS count
             FROM inboxes i WHERE user_id = $1",
        )
        .bind(user)
        .fetch_optional(&mut connection)
        .await
        .ok()??;
        let notifications = sqlx::query_as(
            "SELECT id, read_at IS NOT NULL AS is_read, deleted_at IS NOT NULL AS is_deleted
             FROM notifications WHERE user_id = $1 ORDER BY created_revision",
        )
        .bind(user)
        .fetch_all(&mut connection)
        .await
        .ok()?;
        Some(Self { inbox, notifications })
    }

    /// Whether each confirmed notification is stored once, and is read and deleted as recorded.
    pub(super) fn match_ledger(&self, ledger: &Ledger) -> bool {
        let numbers: BTreeSet<_> = self.numbers().collect();
        self.notifications.len() == ledger.created
            && numbers.into_iter().eq(0..ledger.created)
            && self
                .notifications
                .iter()
                .all(|row| ledger.allows(row.number(), row.is_read, row.is_deleted))
    }

    pub(super) fn assert_exact_count(&self, user: &User) {
        let InboxRow { unread, count, .. } = self.inbox;
        assert_eq!(unread, count, "{}: the inbox's count differs from its rows", user.id());
    }

    pub(super) fn assert_in_order(&self, user: &User) {
        let numbers: Vec<_> = self.numbers().collect();
        assert!(numbers.is_sorted(), "{}: stored in the order {numbers:?}", user.id());
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        self.notifications.iter().map(NotificationRow::number)
    }
}

/// The inbox as a device has received it.
#[derive(Debug)]
pub(super) struct DeviceView<'a> {
    device: &'a Device,
    /// The received notifications, in the order of arrival.
    new: Vec<Value>,
    /// The numbers of the notifications that are marked as read.
    read: BTreeSet<usize>,
    /// The numbers of the notifications that are deleted.
    deleted: BTreeSet<usize>,
    /// The revisions of all changes, in the order of arrival.
    revisions: Vec<i64>,
    /// The received unread counts with their revisions, in the order of arrival.
    counts: Vec<(i64, i64)>,
    /// The payloads of `notification:sync`, in the order of arrival.
    syncs: Vec<Value>,
}

impl<'a> DeviceView<'a> {
    pub(super) fn of(device: &'a Device) -> Self {
        let mut this = Self {
            device,
            new: Vec::new(),
            read: BTreeSet::new(),
            deleted: BTreeSet::new(),
            revisions: Vec::new(),
            counts: Vec::new(),
            syncs: Vec::new(),
        };
        for DeviceRecord { name, args, .. } in device.records() {
            let payload = args.into_iter().next().unwrap_or_default();
            if let Some(name) = name {
                this.apply(&name, payload);
            }
        }
        this
    }

    /// Applies an event like an application that keeps its list up to date.
    fn apply(&mut self, name: &str, payload: Value) {
        let integer = |key: &str| payload[key].as_i64();
        let numbers = || payload["ids"].as_array().into_iter().flatten().map(number_of);
        match name {
            "notification:new" => {
                self.revisions.extend(integer("revision"));
                if payload["isRead"] == true {
                    self.read.insert(number_of(&payload["id"]));
                }
                self.new.push(payload);
            }
            "notification:marked_read" => {
                self.revisions.extend(integer("revision"));
                self.read.extend(numbers());
                if payload["all"] == true {
                    self.read.extend(self.new.iter().map(|new| number_of(&new["id"])));
                }
            }
            "notification:deleted" => {
                self.revisions.extend(integer("revision"));
                self.deleted.extend(numbers());
            }
            "notification:unread_count" => {
                self.counts.push((integer("count").unwrap(), integer("revision").unwrap()));
            }
            "notification:sync" => self.syncs.push(payload),
            _ => {}
        }
    }

    pub(super) fn received(&self) -> usize {
        self.new.len()
    }

    pub(super) fn syncs(&self) -> usize {
        self.syncs.len()
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        self.new.iter().map(|new| number_of(&new["id"]))
    }

    /// Whether the device has the same inbox as the database.
    pub(super) fn matches(&self, rows: &Rows) -> bool {
        let InboxRow { revision, count, .. } = rows.inbox;
        self.counts.last() == Some(&(count, revision)) && self.differences(rows).is_empty()
    }

    /// Describes each notification that is not the same as in the database. A notification that was created
    /// and deleted while the device was offline is not replayed, and counts as deleted here.
    fn differences(&self, rows: &Rows) -> Vec<String> {
        let received: BTreeSet<_> = self.numbers().collect();
        let mut differences = Vec::new();
        for row in &rows.notifications {
            let number = row.number();
            let is_listed = received.contains(&number) && !self.deleted.contains(&number);
            if is_listed == row.is_deleted {
                differences.push(format!("{number} is listed: {is_listed}"));
            } else if is_listed && self.read.contains(&number) != row.is_read {
                differences.push(format!("{number} is read: {}", !row.is_read));
            }
        }
        differences
    }

    pub(super) fn describe_differences(&self, rows: &Rows) -> String {
        let mut text = format!("on the device {:?}", self.differences(rows));
        let _ = write!(text, ", last count and revision: {:?}", self.counts.last());
        let _ =
            write!(text, ", last sync: {:?}, in the database {:?}", self.syncs.last(), rows.inbox);
        text
    }

    pub(super) fn assert_in_order(&self, user: &User, rows: &Rows) {
        let transcript = || self.device.transcript();
        for new in &self.new {
            assert_eq!(new["userId"], user.id(), "from another inbox: {}", transcript());
        }
        for sync in self.syncs.iter().skip(1) {
            assert_eq!(sync["recovered"], true, "not recovered: {}", transcript());
        }
        let received: Vec<_> = self.numbers().collect();
        let distinct: BTreeSet<_> = received.iter().copied().collect();
        assert_eq!(
            received.len(),
            distinct.len(),
            "some arrived twice, {received:?}: {}",
            transcript()
        );
        let stored: Vec<_> = rows.numbers().filter(|number| distinct.contains(number)).collect();
        assert!(received == stored, "the order is {stored:?}, not {received:?}: {}", transcript());
        let changes_in_order = self.revisions.is_sorted_by(|earlier, later| earlier < later);
        assert!(changes_in_order, "an older change after a newer one: {}", transcript());
        let counts_in_order = self.counts.is_sorted_by_key(|(_, revision)| *revision);
        assert!(counts_in_order, "a stale count after a newer one: {}", transcript());
    }
}

fn number_of(id: &Value) -> usize {
    number_in(id.as_str().expect("an id is a text"))
}

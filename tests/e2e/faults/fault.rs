//! The faults that a test can inject.

use std::time::Duration;

/// How long a device's network fails. The last one is longer than Socket.IO's ping timeout of 20 seconds.
pub(super) const LENGTHS: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// A fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Every node is killed with SIGKILL, one after the other, and restarted on its port after this time.
    KillNodes(Duration),
    /// The leader is killed with SIGKILL, and restarted when another node has become the leader.
    KillLeader,
    /// A node that is not the leader is killed with SIGKILL and restarted.
    KillFollower,
    /// All connections of nodes and producers to the broker are cut, three times.
    CutBroker,
    /// The broker is unreachable for a while.
    HideBroker,
    /// The broker is killed and restarted.
    KillBroker,
    /// The broker is stopped gracefully and restarted ten seconds later.
    StopBroker,
    /// The broker closes all connections, twice (`rabbitmqctl close_all_connections`).
    CloseBrokerConnections,
    /// The broker raises its memory alarm for a while, which blocks publishers.
    BlockPublishers,
    /// The queues of all nodes are deleted.
    DeleteNodeQueues,
    /// The ingest queue is deleted three times.
    DeleteIngestQueue,
    /// The database terminates all connections, repeatedly.
    TerminateBackends,
    /// The database server is killed and restarted.
    KillDatabase,
    /// The database rejects writes of notifications, then of outbox entries, with SQLSTATE 53100 (disk full).
    FillDisk,
    /// Devices drop their connections, repeatedly; their library reconnects.
    DropDevices,
    /// All connections of devices are cut and refused for this time.
    CutDevices(Duration),
    /// All bytes from and to devices are held back for this time; connections stay open.
    FreezeDevices(Duration),
    /// Each user's first device is cut off and the second is frozen: those of user `n` for `LENGTHS[n]`.
    BreakEachDevice,
}

/// The component that a fault affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Component {
    Nodes,
    Broker,
    Database,
    Devices,
}

impl Fault {
    /// Faults of every kind, for the soak test.
    pub(super) const ALL: [Self; 22] = [
        Self::KillNodes(Duration::from_millis(300)),
        Self::KillNodes(Duration::from_secs(2)),
        Self::KillLeader,
        Self::KillFollower,
        Self::CutBroker,
        Self::HideBroker,
        Self::KillBroker,
        Self::StopBroker,
        Self::CloseBrokerConnections,
        Self::BlockPublishers,
        Self::DeleteNodeQueues,
        Self::DeleteIngestQueue,
        Self::TerminateBackends,
        Self::KillDatabase,
        Self::FillDisk,
        Self::DropDevices,
        Self::CutDevices(LENGTHS[0]),
        Self::CutDevices(LENGTHS[3]),
        Self::CutDevices(LENGTHS[4]),
        Self::FreezeDevices(LENGTHS[2]),
        Self::FreezeDevices(LENGTHS[4]),
        Self::BreakEachDevice,
    ];

    pub(super) fn needs_own_broker(self) -> bool {
        matches!(
            self,
            Self::KillBroker
                | Self::StopBroker
                | Self::CloseBrokerConnections
                | Self::BlockPublishers
        )
    }

    pub(super) fn needs_own_database(self) -> bool {
        self == Self::KillDatabase
    }

    /// Whether both faults can be injected at the same time and each still has its effect.
    pub(super) fn combines_with(self, other: Self) -> bool {
        let (component, other_component) = (self.component(), other.component());
        // `DeleteIngestQueue` waits until everything is stored, and `KillLeader` until another node is the
        // leader. Neither happens while another fault affects nodes, broker or database.
        let needs_servers = |fault| matches!(fault, Self::DeleteIngestQueue | Self::KillLeader);
        let is_blocked = |fault, by| needs_servers(fault) && by != Component::Devices;
        component != other_component
            && !is_blocked(self, other_component)
            && !is_blocked(other, component)
    }

    fn component(self) -> Component {
        match self {
            Self::KillNodes(_) | Self::KillLeader | Self::KillFollower => Component::Nodes,
            Self::CutBroker
            | Self::HideBroker
            | Self::KillBroker
            | Self::StopBroker
            | Self::CloseBrokerConnections
            | Self::BlockPublishers
            | Self::DeleteNodeQueues
            | Self::DeleteIngestQueue => Component::Broker,
            Self::TerminateBackends | Self::KillDatabase | Self::FillDisk => Component::Database,
            Self::DropDevices
            | Self::CutDevices(_)
            | Self::FreezeDevices(_)
            | Self::BreakEachDevice => Component::Devices,
        }
    }
}

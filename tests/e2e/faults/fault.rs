use std::time::Duration;

/// How long a device's network fails: from a hiccup to a drive through a tunnel, shorter and longer than
/// Socket.IO's ping timeout.
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
    /// SIGKILL of every node, one after the other; each is restarted on its port after this time.
    KillNodes(Duration),
    /// SIGKILL of the leader, which relays the outbox; it is restarted when another node relays.
    KillLeader,
    /// SIGKILL of a node that is not the leader.
    KillFollower,
    /// All connections to the broker, of nodes and producers, are cut three times.
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
    /// Devices lose their connections, repeatedly; their library reconnects.
    DropDevices,
    /// All connections of devices are cut and refused for this time.
    CutDevices(Duration),
    /// All bytes from and to devices are held back for this time; connections stay open.
    FreezeDevices(Duration),
    /// The first device of the nth user is cut off and the second is frozen, for the nth of [`LENGTHS`].
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
    /// Faults of every kind, for the soak.
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

    /// Whether both can be injected at the same time and each still have its effect.
    pub(super) fn combines_with(self, other: Self) -> bool {
        let (own, others) = (self.component(), other.component());
        // They wait until everything is stored, and until another node relays: servers must work.
        let waits = |fault| matches!(fault, Self::DeleteIngestQueue | Self::KillLeader);
        let hinders = |fault, component| waits(fault) && component != Component::Devices;
        own != others && !hinders(self, others) && !hinders(other, own)
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

use std::time::Duration;

/// How long a device's network is broken: from what a person does not notice to a way through a tunnel,
/// on both sides of Socket.IO's ping timeout.
pub(super) const LENGTHS: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9 of every node, one after the other, each started again on its port after so long.
    KillNodes(Duration),
    /// kill -9 of the node that relays the outbox; it is started again when another does.
    KillLead,
    /// kill -9 of a node that does not relay.
    KillFollower,
    /// Each connection to the broker is cut, nodes' and producers', three times.
    CutBroker,
    /// The broker cannot be reached for a while.
    HideBroker,
    /// The broker is killed and started again.
    KillBroker,
    /// The broker is stopped in good order and started again ten seconds later.
    StopBroker,
    /// The broker itself closes all connections, twice (`rabbitmqctl close_all_connections`).
    CloseBrokerConnections,
    /// The broker raises its memory alarm for a while: it reads nothing from who publishes.
    BlockPublishers,
    /// The queues of all nodes are deleted.
    DeleteNodeQueues,
    /// The queue that producers send to is deleted, three times.
    DeleteIngestQueue,
    /// Everybody's connections to the database are ended by it, again and again.
    TerminateBackends,
    /// The database's server is killed and started again.
    KillDatabase,
    /// The database refuses to write notifications, then events, for want of disk space
    /// (SQLSTATE 53100).
    FillDisk,
    /// Devices lose their connections, again and again, and come back when their library does.
    DropDevices,
    /// All devices' connections are cut and refused for so long.
    CutDevices(Duration),
    /// What goes from and to all devices is held back for so long; nobody is told.
    FreezeDevices(Duration),
    /// The nth person's first device is cut off and the second is frozen, for the nth of [`LENGTHS`].
    BreakEachDevice,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Nodes,
    Broker,
    Database,
    Devices,
}

impl Fault {
    /// Some of every sort, for a soak.
    pub(super) const ALL: [Self; 22] = [
        Self::KillNodes(Duration::from_millis(300)),
        Self::KillNodes(Duration::from_secs(2)),
        Self::KillLead,
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

    /// Whether both can strike at the same time and each still be what it says.
    pub(super) fn goes_with(self, other: Self) -> bool {
        let (part, others) = (self.part(), other.part());
        let alone = |fault| matches!(fault, Self::DeleteIngestQueue | Self::KillLead);
        // The one waits until everything is stored and the other until another node relays: nothing
        // else may be in the way of either.
        let in_the_way = |fault, part| alone(fault) && part != Part::Devices;
        part != others && !in_the_way(self, others) && !in_the_way(other, part)
    }

    fn part(self) -> Part {
        match self {
            Self::KillNodes(_) | Self::KillLead | Self::KillFollower => Part::Nodes,
            Self::CutBroker
            | Self::HideBroker
            | Self::KillBroker
            | Self::StopBroker
            | Self::CloseBrokerConnections
            | Self::BlockPublishers
            | Self::DeleteNodeQueues
            | Self::DeleteIngestQueue => Part::Broker,
            Self::TerminateBackends | Self::KillDatabase | Self::FillDisk => Part::Database,
            Self::DropDevices
            | Self::CutDevices(_)
            | Self::FreezeDevices(_)
            | Self::BreakEachDevice => Part::Devices,
        }
    }
}

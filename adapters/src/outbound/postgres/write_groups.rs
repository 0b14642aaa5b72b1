use crate::outbound::relational::{CreateWrite, Edit, EditWrite, GroupCommit};

/// The groups of concurrent writes: one for each kind, because a statement handles one kind.
#[derive(Debug, Default)]
pub(super) struct WriteGroups {
    pub(super) create: GroupCommit<CreateWrite>,
    mark_read: GroupCommit<EditWrite>,
    mark_all_read: GroupCommit<EditWrite>,
    delete: GroupCommit<EditWrite>,
}

impl WriteGroups {
    /// The groups for edits of this kind.
    pub(super) const fn of(&self, edit: &Edit) -> &GroupCommit<EditWrite> {
        match edit {
            Edit::MarkRead(_) => &self.mark_read,
            Edit::MarkAllRead => &self.mark_all_read,
            Edit::Delete(_) => &self.delete,
        }
    }
}

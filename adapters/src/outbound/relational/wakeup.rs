/// Wakes the outbox's leader when it is dropped.
///
/// A write that is cancelled may have been committed, so cancellation wakes the leader too. A
/// needless wakeup costs one read of the outbox.
#[derive(Debug)]
pub(crate) struct Wakeup<F: FnMut()>(Option<F>);

impl<F: FnMut()> Wakeup<F> {
    pub(crate) fn on_drop(wake: F) -> Self {
        Self(Some(wake))
    }

    /// Cancels the wakeup, because nothing was written.
    pub(crate) fn cancel(mut self) {
        self.0 = None;
    }
}

impl<F: FnMut()> Drop for Wakeup<F> {
    fn drop(&mut self) {
        if let Some(wake) = &mut self.0 {
            wake();
        }
    }
}

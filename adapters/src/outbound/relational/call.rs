/// A call that is made when this is dropped: after a change, also where the work was given up half
/// way and nobody knows whether it was committed. A call too many costs one look into the outbox.
#[derive(Debug)]
pub(crate) struct Call<F: FnMut()>(Option<F>);

impl<F: FnMut()> Call<F> {
    pub(crate) fn when_dropped(call: F) -> Self {
        Self(Some(call))
    }

    /// There is nothing to tell after all.
    pub(crate) fn spare(mut self) {
        self.0 = None;
    }
}

impl<F: FnMut()> Drop for Call<F> {
    fn drop(&mut self) {
        if let Some(call) = &mut self.0 {
            call();
        }
    }
}

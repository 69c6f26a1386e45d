//! placeholder
use super::{Opening, upper::*};
use crate::{
    outbox::CloseReason,
    socket::{self, Accept},
};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
pub struct Settings {}
impl Settings {
    pub fn of(_: &socket::Settings, _: Accept) -> Self {
        Self {}
    }
}
pub struct SocketIo {}
impl SocketIo {
    pub fn new(_: Arc<Settings>, _: Opening) -> Self {
        Self {}
    }
}
impl Upper for SocketIo {
    fn take(&mut self, _: Message) -> Result<(), Fault> {
        Ok(())
    }
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Down> {
        Poll::Pending
    }
    fn let_go(&mut self, _: usize) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn tick(&mut self, _: Instant) {}
    fn close(&mut self, _: CloseReason) {}
    fn is_over(&self) -> bool {
        false
    }
}

//! RTCP that peers send: requests of receivers, reports of senders.

use std::time::Instant;

use crate::discard::Discard;
use crate::shard::Shard;
use crate::shard::producer::Producer;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

impl Shard {
    pub(super) fn receive_rtcp(&mut self, _now: Instant, key: Key<Transport>, bytes: &mut [u8]) -> Result<(), Discard> {
        let transport = self.transports.at_mut(key).ok_or(Discard::UnknownSource)?;
        let keys = transport.keys.as_mut().ok_or(Discard::NoKeys)?;
        keys.inbound.open_rtcp(bytes).map_err(|_| Discard::MalformedRtcp)?;
        Ok(())
    }

    pub(super) fn request_key_frames(&mut self, _now: Instant, _key: Key<Producer>) {}
}

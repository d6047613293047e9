//! A room as its worker knows it: who sends, and who speaks.

use std::time::Instant;

use crate::ids::RoomId;
use crate::media::audio_level::RoomAudio;
use crate::shard::command::RoomSettings;
use crate::shard::producer::Producer;
use crate::shard::table::Key;
use crate::shard::timers::Armed;
use crate::shard::transport::Transport;

pub struct Room {
    pub id: RoomId,
    pub settings: RoomSettings,
    pub transports: Vec<Key<Transport>>,
    pub producers: Vec<Key<Producer>>,
    pub audio: RoomAudio,
    /// Of `audio`.
    pub armed: Armed,
}

impl Room {
    pub fn new(id: RoomId, settings: RoomSettings, now: Instant) -> Self {
        let audio = RoomAudio::new(settings.audio_top_n, now);
        Room { id, settings, transports: Vec::new(), producers: Vec::new(), audio, armed: Armed::default() }
    }
}

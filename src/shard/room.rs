//! A room as its worker knows it: who sends, and who speaks.

use crate::ids::RoomId;
use crate::shard::command::RoomSettings;
use crate::shard::producer::Producer;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

pub struct Room {
    pub id: RoomId,
    pub settings: RoomSettings,
    pub transports: Vec<Key<Transport>>,
    pub producers: Vec<Key<Producer>>,
}

impl Room {
    pub fn new(id: RoomId, settings: RoomSettings) -> Self {
        Room { id, settings, transports: Vec::new(), producers: Vec::new() }
    }
}

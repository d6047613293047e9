//! A pinned core: glommio executor, ring and shard, tick by tick.

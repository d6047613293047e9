//! Who speaks: levels, the loudest N, the dominant speaker.

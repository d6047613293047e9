//! What a payload says of itself: key frame, layer, picture.

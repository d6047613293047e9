//! Which producers a participant watches, and how large: the application's policy as a pure function of who is there
//! and who speaks.

use crate::client::signaling::Producer;
use crate::media::source::Class;
use crate::scenario::View;

/// The layer of a small tile and of a large picture.
const SMALL: u8 = 0;
const LARGE: u8 = 2;

/// What a participant wants of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    /// Audio, or video at this layer of its simulcast.
    Watch(Option<u8>),
}

/// `own` is the place of the viewer among the room's participants, `of` the place of the producer's owner; `room` counts
/// the room's participants who send.
pub fn wish(view: &View, producer: &Producer, own: usize, of: usize, room: usize, speaker: Option<usize>) -> Wish {
    match producer.class {
        Class::Microphone if view.audio => Wish::Watch(None),
        Class::Share if view.shares => Wish::Watch(None),
        Class::Camera => match view.tiles {
            None => Wish::Watch(Some(LARGE)),
            Some(_) if view.speaker && speaker == Some(of) => Wish::Watch(Some(LARGE)),
            Some(tiles) if distance(own, of, room) <= tiles => Wish::Watch(Some(SMALL)),
            Some(_) => Wish::Nothing,
        },
        _ => Wish::Nothing,
    }
}

/// Tiles show the next participants in the circle of senders.
fn distance(own: usize, of: usize, room: usize) -> usize {
    let room = room.max(1);
    match (of + room - own % room) % room {
        0 => room,
        steps => steps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> Producer {
        Producer { id: String::new(), peer: String::new(), class: Class::Camera }
    }

    #[test]
    fn a_viewer_sees_its_tiles_small_and_the_speaker_large() {
        let view = View { tiles: Some(16), speaker: true, ..View::default() };
        for own in 0..50 {
            let speaker = (own + 30) % 50;
            let wishes: Vec<_> =
                (0..50).filter(|of| *of != own).map(|of| wish(&view, &camera(), own, of, 50, Some(speaker))).collect();
            assert_eq!(wishes.iter().filter(|wish| **wish == Wish::Watch(Some(SMALL))).count(), 16);
            assert_eq!(wishes.iter().filter(|wish| **wish == Wish::Watch(Some(LARGE))).count(), 1);
        }
    }

    #[test]
    fn without_tiles_everybody_is_seen_large() {
        assert_eq!(wish(&View::default(), &camera(), 0, 1, 2, None), Wish::Watch(Some(LARGE)));
    }
}

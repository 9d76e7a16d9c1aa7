//! Payloads: a name that tells them apart, and padding of any size, which is written out on the wire only.
//!
//! `p0.17` is itself. `p0.17 +3000` is on the wire `p0.17 +3000 `, and 3,000 letters that depend on
//! the name and their places. One that is read back wrong in any byte stays what it is, and so is
//! another payload than the one that was sent.

use std::rc::Rc;

/// A payload with so many letters of padding.
pub fn padded(name: &str, letters: u32) -> Rc<str> {
    if letters == 0 { name.into() } else { format!("{name} +{letters}").into() }
}

/// What tells a payload apart, without its padding.
pub fn short(payload: &str) -> &str {
    payload.split(' ').next().unwrap_or(payload)
}

/// How many bytes it has on the wire.
pub fn size(payload: &str) -> u64 {
    (payload.len() + padding(payload).map_or(0, |(_, letters)| 1 + letters)) as u64
}

/// The bytes on the wire.
pub fn write(payload: &str, out: &mut Vec<u8>) {
    out.extend(payload.as_bytes());
    if let Some((name, letters)) = padding(payload) {
        out.push(b' ');
        out.extend((0..letters).map(|place| letter(name, place)));
    }
}

/// A payload from the wire.
pub fn read(bytes: &[u8]) -> Rc<str> {
    whole(bytes).unwrap_or_else(|| Rc::from(String::from_utf8_lossy(bytes)))
}

fn whole(bytes: &[u8]) -> Option<Rc<str>> {
    let space = |from: usize| Some(from + bytes.get(from..)?.iter().take(64).position(|byte| *byte == b' ')?);
    let end = space(space(0)? + 1)?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let (name, letters) = padding(head)?;
    let found = bytes.get(end + 1..)?;
    let first = seed(name);
    let is_right =
        found.len() == letters && found.iter().zip(0..).all(|(byte, place)| *byte == letter_of(first, place));
    is_right.then(|| head.into())
}

fn padding(payload: &str) -> Option<(&str, usize)> {
    let (name, letters) = payload.split_once(" +")?;
    Some((name, letters.parse().ok()?))
}

fn seed(name: &str) -> usize {
    name.bytes().fold(0, |sum, byte| sum * 3 % 65_521 + usize::from(byte))
}

fn letter(name: &str, place: usize) -> u8 {
    letter_of(seed(name), place)
}

fn letter_of(seed: usize, place: usize) -> u8 {
    b'a' + ((seed + place * 7 + place / 251) % 26) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(payload: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(payload, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_and_a_wrong_byte_is_seen() {
        for payload in ["", "a.1", &*padded("a.2", 1), &*padded("b.3", 100_000)] {
            let mut bytes = wire(payload);
            assert_eq!(size(payload), bytes.len() as u64);
            assert_eq!(&*read(&bytes), payload);
            let Some(last) = bytes.last_mut() else { continue };
            *last ^= 1;
            assert_ne!(&*read(&bytes), payload);
            bytes.pop();
            assert_ne!(&*read(&bytes), payload);
        }
        assert_ne!(wire("a.1 +9")[7..], wire("a.2 +9")[7..]);
        assert_eq!(short(&padded("a.2", 7)), "a.2");
    }
}

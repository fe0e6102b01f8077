//! Test inputs for parsers: many small alterations of a valid input, the same in every run.

/// Alterations tried for each parser.
const CASES: u32 = 1 << 18;

/// Calls `check` with altered copies of `seed`.
pub(crate) fn each(seed: &[u8], start: u64, mut check: impl FnMut(&[u8])) {
    let mut state = start | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let mut body = Vec::new();
    for _ in 0..CASES {
        body.clear();
        body.extend_from_slice(seed);
        for _ in 0..=next() % 4 {
            let at = next() % (body.len() + 1);
            match next() % 5 {
                0 => body.insert(at, next() as u8),
                1 if at < body.len() => drop(body.remove(at)),
                2 if at < body.len() => body[at] = next() as u8,
                3 => body.truncate(at),
                _ => {
                    let piece = body[at..(at + next() % 16).min(body.len())].to_vec();
                    let to = next() % (body.len() + 1);
                    body.splice(to..to, piece);
                }
            }
        }
        check(&body);
    }
}

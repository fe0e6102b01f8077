//! Random requests and random changes: what we sign is taken, what was changed is refused, and nothing panics.

use super::*;

/// A cheap deterministic generator for test cases.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[test]
fn what_we_sign_verifies_under_the_servers_rules() {
    let mut random = XorShift(0x5eed);
    let now = Timestamp::from_secs(1_795_262_400);
    for round in 0..2_000 {
        let word = |random: &mut XorShift| -> String {
            (0..1 + random.below(12)).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
        };
        let mut target = format!("/{}", word(&mut random));
        if round % 3 == 0 {
            target.push_str(&format!("/{}%20{}", word(&mut random), word(&mut random)));
        }
        if round % 2 == 0 {
            target.push_str(&format!("?b=%26{}&a={}&z", word(&mut random), word(&mut random)));
        }
        let body: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8).collect();
        let mut request = Owned {
            method: if body.is_empty() { "GET" } else { "POST" }.to_owned(),
            target,
            headers: vec![("Host".to_owned(), b"127.0.0.1:8899".to_vec())],
            body,
        };
        if !request.body.is_empty() {
            request.set("Content-Type", "application/x-amz-json-1.1");
            request.set("X-Amz-Target", &format!("Munjigi.{}  \t{}", word(&mut random), word(&mut random)));
        }
        let credentials = Credentials {
            access_key_id: "AKIAMUNJIGIEXAMPLE01".to_owned(),
            secret: SecretKey::new(word(&mut random)),
            session_token: (round % 5 == 0).then(|| Secret::new(word(&mut random))),
        };
        let added = request.with(|request| sign(request, &credentials, "local-1", "munjigi", now)).unwrap();
        for (name, value) in &added {
            request.set(name, value);
        }
        let presented = request.with(|request| parse(request, TargetForm::CanonicalOnly)).unwrap();
        let key = SigningKey::derive(&credentials.secret, presented.scope());
        let verified = presented.verify(&key, now, &Rules::new(&["local-1"], "munjigi")).unwrap();
        assert_eq!(verified.session_token(), credentials.session_token.as_ref().map(|token| token.expose().as_str()));
    }
}

/// What a request means, read in another way than the verifier does: two requests of one meaning may share a signature.
fn meaning(request: &Owned, signed: &str) -> impl PartialEq + std::fmt::Debug + use<> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut query: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    query.sort();
    let mut headers: Vec<(String, Vec<Vec<u8>>)> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let words = value.split(|b| *b == b' ' || *b == b'\t').filter(|word| !word.is_empty());
            (name.to_lowercase(), words.map(<[u8]>::to_vec).collect())
        })
        .filter(|(name, _)| signed.split(';').any(|own| own == name))
        .collect();
    headers.sort();
    (request.method.clone(), path.to_owned(), query, headers, request.body.clone())
}

#[test]
fn mutated_requests_never_panic_and_never_verify() {
    let fixture = fixture();
    let vectors: Vec<(&Vector, Owned, String)> = fixture
        .vectors
        .iter()
        .map(|vector| {
            let signed = vector.canonical_request.rsplit('\n').nth(1).unwrap().to_owned();
            (vector, owned(vector), signed)
        })
        .filter(|(vector, ..)| form(vector) == TargetForm::CanonicalOnly)
        .collect();
    let mut random = XorShift(0xfeed_beef);
    let mut verified = 0_u32;
    for round in 0..1_usize << 18 {
        let which = round % vectors.len();
        let (vector, original, signed) = &vectors[which];
        let mut request = original.clone();
        for _ in 0..1 + random.below(3) {
            mutate(&mut request, &mut random);
        }
        let Ok(presented) = request.with(|request| parse(request, TargetForm::CanonicalOnly)) else { continue };
        let key = key_for(&fixture, &presented);
        let regions = [vector.region.as_str()];
        let rules = Rules { max_expires: Some(Duration::from_secs(60)), ..Rules::new(&regions, &vector.service) };
        if presented.verify(&key, fixture.now, &rules).is_ok() {
            verified += 1;
            assert_eq!(meaning(&request, signed), meaning(original, signed), "{}: {request:?}", vector.name);
        }
    }
    assert!(verified < 1 << 17, "most mutations are refused, {verified} were harmless");
}

fn mutate(request: &mut Owned, random: &mut XorShift) {
    match random.below(8) {
        0 => request.method = mutate_text(&request.method, random),
        1 | 2 => request.target = mutate_text(&request.target, random),
        3 | 4 => {
            let index = random.below(request.headers.len());
            if let Some((_, value)) = request.headers.get_mut(index) {
                mutate_bytes(value, random);
            }
        }
        5 => {
            let index = random.below(request.headers.len());
            if let Some((name, _)) = request.headers.get_mut(index) {
                *name = mutate_text(name, random);
            }
        }
        6 => {
            let index = random.below(request.headers.len());
            match random.below(3) {
                0 if index < request.headers.len() => {
                    request.headers.remove(index);
                }
                1 => request.headers.push(("x-amz-target".to_owned(), b"X.Y".to_vec())),
                _ => {
                    if let Some(header) = request.headers.get(index).cloned() {
                        request.headers.push(header);
                    }
                }
            }
        }
        _ => mutate_bytes(&mut request.body, random),
    }
}

fn mutate_text(text: &str, random: &mut XorShift) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mutate_bytes(&mut bytes, random);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut XorShift) {
    let at = random.below(bytes.len());
    match random.below(4) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => {
            bytes.remove(at);
        }
        2 => bytes.insert(at, random.next() as u8),
        _ => {
            const PIECES: [&[u8]; 8] = [b"%2F", b"&", b"=", b";", b"/../", b"X-Amz-Signature=", b",", b"\xea\xb0\x80"];
            let piece = PIECES[random.below(PIECES.len())];
            bytes.splice(at..at, piece.iter().copied());
        }
    }
}

//! Just enough of Rust's grammar to tell code from comments and literals.

/// A copy of the same length and lines in which comments and the inside of literals are blank.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, is_code) = token(bytes, at);
        if !is_code {
            blank(&mut code, at, end);
        }
        at = end;
    }
    String::from_utf8(code).expect("only whole characters are made blank")
}

fn blank(code: &mut [u8], from: usize, to: usize) {
    for byte in code.iter_mut().take(to).skip(from) {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Where the token that begins at `at` ends, and whether it stays.
fn token(bytes: &[u8], at: usize) -> (usize, bool) {
    let rest = bytes.get(at..).unwrap_or_default();
    let byte = rest.first().copied().unwrap_or_default();
    if rest.starts_with(b"//") {
        return (line_end(bytes, at), false);
    }
    if rest.starts_with(b"/*") {
        return (comment_end(bytes, at), false);
    }
    if byte == b'"' {
        return (string_end(bytes, at + 1), false);
    }
    if byte == b'\'' {
        return character(bytes, at);
    }
    if is_word(byte) {
        return word(bytes, at);
    }
    (at + 1, true)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter()
        .position(|&byte| byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut at = at;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character literal, or a lifetime, which is code.
fn character(bytes: &[u8], at: usize) -> (usize, bool) {
    let rest = bytes.get(at + 1..).unwrap_or_default();
    if rest.first() == Some(&b'\\') {
        let closing = rest.iter().skip(2).position(|&byte| byte == b'\'');
        return (closing.map_or(bytes.len(), |length| at + length + 4), false);
    }
    let length = rest.iter().take(6).position(|&byte| byte == b'\'');
    let one = length.and_then(|length| std::str::from_utf8(rest.get(..length)?).ok());
    match one {
        Some(one) if one.chars().count() == 1 => (at + one.len() + 2, false),
        _ => (at + 1, true),
    }
}

/// A name or number; a raw or byte string where it is the prefix of one.
fn word(bytes: &[u8], at: usize) -> (usize, bool) {
    let rest = bytes.get(at..).unwrap_or_default();
    let length = rest.iter().take_while(|&&byte| is_word(byte)).count();
    let end = at + length;
    let prefix = rest.get(..length).unwrap_or_default();
    if !matches!(prefix, b"r" | b"b" | b"br" | b"c" | b"cr") {
        return (end, true);
    }
    let after = bytes.get(end..).unwrap_or_default();
    let hashes = after.iter().take_while(|&&byte| byte == b'#').count();
    if after.get(hashes) != Some(&b'"') || (hashes > 0 && !prefix.ends_with(b"r")) {
        return (end, true);
    }
    if !prefix.ends_with(b"r") {
        return (string_end(bytes, end + 1), false);
    }
    let mut closing = vec![b'"'];
    closing.extend(std::iter::repeat_n(b'#', hashes));
    let inside = bytes.get(end + hashes + 1..).unwrap_or_default();
    let length = inside
        .windows(closing.len())
        .position(|window| window == closing);
    let start = end + hashes + 1;
    let end = length.map_or(bytes.len(), |length| start + length + closing.len());
    (end, false)
}

/// The byte after the bracket that closes the one at `open`.
pub(super) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The places at which a whole word stands.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code.as_bytes().get(at.wrapping_sub(1)).copied();
        let after = code.as_bytes().get(at + word.len()).copied();
        let is_free = |byte: Option<u8>| byte.is_none_or(|byte| !is_word(byte));
        (is_free(before) && is_free(after)).then_some(at)
    })
}

/// The name that begins at `at`, which may be empty.
pub(super) fn name_at(code: &str, at: usize) -> &str {
    let rest = code.get(at..).unwrap_or_default();
    let end = rest
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_literals_are_blank_and_code_stays() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x \" y", z)"#, r"f(        , z)"),
            (r##"f(r#"a "b" c"#, d)"##, "f(            , d)"),
            ("f('\\'', '\"', x)", "f(    ,    , x)"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("b\"bytes\" + br", "         + br"),
            ("let r = b'x';", "let r = b   ;"),
        ];
        for (text, expected) in cases {
            assert_eq!(code_only(text), expected, "of {text}");
        }
    }
}

//! Splits Rust source text into tokens: names, string literals, comments and marks, each with its line.
//!
//! This is enough for rules about names, comments and paths. Unlike `syn`, it keeps comments that are not
//! documentation, and reads the arguments of macros like other code.

/// One token and the line that it starts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An identifier or keyword.
    Name(String),
    /// The content of a string literal, unescaped.
    Text(String),
    /// One line of a comment, with its slashes.
    Comment(String),
    /// Any other character; a path separator is two of them.
    Mark(char),
    /// A number, character, byte or lifetime.
    Other,
}

impl Token {
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.kind {
            TokenKind::Name(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn is_name(&self, name: &str) -> bool {
        self.name() == Some(name)
    }

    pub(crate) fn is(&self, mark: char) -> bool {
        self.kind == TokenKind::Mark(mark)
    }

    pub(crate) fn comment(&self) -> Option<&str> {
        match &self.kind {
            TokenKind::Comment(text) => Some(text),
            _ => None,
        }
    }
}

/// All tokens of a file.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { rest: text, line: 1, found: Vec::new() };
    while reader.step() {}
    reader.found
}

/// The tokens of a file without comments and without items that only tests compile.
pub(crate) struct Product {
    pub(crate) tokens: Vec<Token>,
    /// Names of the modules that only tests compile.
    pub(crate) test_modules: Vec<String>,
}

/// Reads a file without its comments and without the items under a `cfg` that names `test`.
pub(crate) fn product(text: &str) -> Product {
    let all: Vec<Token> = tokens(text).into_iter().filter(|it| it.comment().is_none()).collect();
    let mut product = Product { tokens: Vec::new(), test_modules: Vec::new() };
    let mut at = 0;
    while at < all.len() {
        let Some(end) = attribute_end(&all, at) else {
            product.tokens.push(all[at].clone());
            at += 1;
            continue;
        };
        if is_test_cfg(&all[at..end]) {
            let item = &all[end..item_end(&all, end)];
            if let Some(name) = item.iter().position(|it| it.is_name("mod")) {
                product.test_modules.extend(item[name + 1].name().map(str::to_owned));
            }
            at = end + item.len();
        } else {
            product.tokens.extend_from_slice(&all[at..end]);
            at = end;
        }
    }
    product
}

/// The index after the attribute that starts at `at`; `None` if none starts there.
fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let is_attribute = tokens[at].is('#') && tokens.get(at + 1)?.is('[');
    is_attribute.then(|| closing(tokens, at + 1) + 1)
}

fn is_test_cfg(attribute: &[Token]) -> bool {
    let has = |name: &str| attribute.iter().any(|token| token.is_name(name));
    has("cfg") && has("test") && !has("not")
}

/// The index after the item that starts at `at`. It ends at its semicolon, at the comma of a field, or with its
/// braces.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    const KEYWORDS: [&str; 9] =
        ["const", "enum", "fn", "impl", "mod", "static", "struct", "trait", "type"];
    let mut is_field = true;
    while at < tokens.len() {
        is_field &= !tokens[at].name().is_some_and(|name| KEYWORDS.contains(&name));
        match tokens[at].kind {
            TokenKind::Mark('(' | '[') => at = closing(tokens, at),
            TokenKind::Mark('{') => return closing(tokens, at) + 1,
            TokenKind::Mark(';') => return at + 1,
            TokenKind::Mark(',') if is_field => return at + 1,
            // The end of the surrounding block: the last field or variant.
            TokenKind::Mark('}' | ')') => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The index of the bracket that closes the one at `opening`.
fn closing(tokens: &[Token], opening: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(opening) {
        match token.kind {
            TokenKind::Mark('(' | '[' | '{') => depth += 1,
            TokenKind::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    found: Vec<Token>,
}

impl<'a> Reader<'a> {
    /// Reads one token or one space; returns false at the end of the text.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        if first.is_whitespace() {
            self.take(first.len_utf8());
        } else if self.rest.starts_with("//") {
            self.comment(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.comment(block_comment_end(self.rest));
        } else if let Some(prefix) = string_prefix(self.rest) {
            self.string(prefix);
        } else if first == '\'' {
            let end = quoted_end(self.rest);
            self.push(TokenKind::Other, end);
        } else if first.is_ascii_digit() {
            let end = self.word_end();
            self.push(TokenKind::Other, end);
        } else if first.is_alphabetic() || first == '_' {
            // The name of the raw identifier `r#type` is `type`.
            let raw_prefix = if self.rest.starts_with("r#") { 2 } else { 0 };
            self.take(raw_prefix);
            let end = self.word_end();
            self.push(TokenKind::Name(self.rest[..end].to_owned()), end);
        } else {
            self.push(TokenKind::Mark(first), first.len_utf8());
        }
        true
    }

    fn word_end(&self) -> usize {
        let ends = |c: char| !(c.is_alphanumeric() || c == '_');
        self.rest.find(ends).unwrap_or(self.rest.len())
    }

    fn comment(&mut self, end: usize) {
        for (n, line) in self.rest[..end].lines().enumerate() {
            let kind = TokenKind::Comment(line.trim().to_owned());
            self.found.push(Token { line: self.line + n, kind });
        }
        self.take(end);
    }

    /// A string literal whose first quote is `prefix` bytes away.
    fn string(&mut self, prefix: usize) {
        let head = &self.rest[..prefix];
        let body = &self.rest[prefix + 1..];
        let (content, end) = if head.contains('r') {
            let close = format!("\"{}", "#".repeat(head.matches('#').count()));
            let length = body.find(&close).unwrap_or(body.len());
            (body[..length].to_owned(), (length + close.len()).min(body.len()))
        } else {
            unescaped(body)
        };
        self.push(TokenKind::Text(content), prefix + 1 + end);
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        self.found.push(Token { line: self.line, kind });
        self.take(length);
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

/// The length of the block comment that starts here, with the comments nested in it.
fn block_comment_end(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the prefix, such as `br##`, of the string literal that starts here; `None` if none starts here.
fn string_prefix(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let hashes = text[prefix..].find(|c| c != '#')?;
    let is_string = text[prefix + hashes..].starts_with('"');
    (is_string && (hashes == 0 || text[..prefix].contains('r'))).then_some(prefix + hashes)
}

/// The length of the character literal (`'a'` or `'\''`) or lifetime that starts here.
fn quoted_end(text: &str) -> usize {
    let mut rest = text.char_indices().skip(1);
    match (rest.next(), rest.next()) {
        (Some((_, '\\')), Some((escaped, _))) => {
            let after = escaped + 1;
            text[after..].find('\'').map_or(text.len(), |end| after + end + 1)
        }
        (_, Some((end, '\''))) => end + 1,
        _ => {
            let ends = |c: char| !(c.is_alphanumeric() || c == '_');
            text[1..].find(ends).map_or(text.len(), |end| end + 1)
        }
    }
}

/// The content of a literal up to its closing quote, and the length that it has in the source.
fn unescaped(body: &str) -> (String, usize) {
    let mut content = String::new();
    let mut rest = body.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return (content, at + 1),
            '\\' => match rest.next() {
                // A literal that continues on the next line contains neither the line break nor the indentation.
                Some((_, '\n')) => {
                    while rest.as_str().starts_with(char::is_whitespace) {
                        rest.next();
                    }
                }
                Some((_, 'n')) => content.push('\n'),
                Some((_, escaped)) => content.push(escaped),
                None => {}
            },
            c => content.push(c),
        }
    }
    (content, body.len())
}

#[test]
#[expect(clippy::needless_raw_string_hashes, reason = "the text itself contains a raw string")]
fn every_kind_of_token_is_read() {
    let text = r##"// a "comment"
let r#type = br#"raw "text""#; /* two
lines */ 'a' '"' '\'' &'static "a \"b\" \
    c" x"##;
    let name = |name: &str| TokenKind::Name(name.to_owned());
    let text_of = |text: &str| TokenKind::Text(text.to_owned());
    let comment = |text: &str| TokenKind::Comment(text.to_owned());
    let expected = [
        (1, comment("// a \"comment\"")),
        (2, name("let")),
        (2, name("type")),
        (2, TokenKind::Mark('=')),
        (2, text_of("raw \"text\"")),
        (2, TokenKind::Mark(';')),
        (2, comment("/* two")),
        (3, comment("lines */")),
        (3, TokenKind::Other),
        (3, TokenKind::Other),
        (3, TokenKind::Other),
        (3, TokenKind::Mark('&')),
        (3, TokenKind::Other),
        (3, text_of("a \"b\" c")),
        (4, name("x")),
    ]
    .map(|(line, kind)| Token { line, kind });
    assert_eq!(tokens(text), expected);
}

#[test]
fn items_for_tests_are_left_out() {
    let found = product(
        "struct A { #[cfg(test)] b: u8, c: u8 }
         #[cfg(test)] mod tests { fn d() {} }
         #[cfg(test)] fn d<T, U>() {}
         #[cfg(any(test, feature = \"fuzzing\"))] #[doc(hidden)] pub mod fuzzing;
         #[cfg(not(test))] fn e() {}",
    );
    let names: Vec<_> = found.tokens.iter().filter_map(Token::name).collect();
    assert_eq!(names, ["struct", "A", "c", "u8", "cfg", "not", "test", "fn", "e"]);
    assert_eq!(found.test_modules, ["tests", "fuzzing"]);
}

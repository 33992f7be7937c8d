//! Command lines in images that have no shell to read them.

/// Splits a command line into words as a shell does, with its quotes and backslashes, and does nothing else of what a shell
/// does: no variables, patterns, pipes. `None` if a quote is not closed, or there is no word.
pub(crate) fn split(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if [' ', '\t', '\n'].contains(&c) {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\'' => loop {
                match rest.next()? {
                    '\'' => break,
                    c => word.push(c),
                }
            },
            '"' => loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => match rest.next()? {
                        '\n' => {}
                        c @ ('"' | '\\' | '$' | '`') => word.push(c),
                        c => word.extend(['\\', c]),
                    },
                    c => word.push(c),
                }
            },
            '\\' => word.extend(Some(rest.next()?).filter(|c| *c != '\n')),
            c => word.push(c),
        }
    }
    words.extend(word);
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn splits(line: &str, words: &[&str]) {
        assert_eq!(split(line).unwrap(), words, "{line}");
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        splits("/app --port 80", &["/app", "--port", "80"]);
        splits("  a\t\n b  ", &["a", "b"]);
        splits(r#"a 'b c' "d e" f\ g"#, &["a", "b c", "d e", "f g"]);
        splits(r#"a'b'"c"d"#, &["abcd"]);
        splits(r#"'' "" x"#, &["", "", "x"]);
        splits(r#""a\"b\$c\d" 'a\b' a\\b"#, &[r#"a"b$c\d"#, r"a\b", r"a\b"]);
        splits("a\\\nb", &["ab"]);
        splits("$HOME *.c | wc", &["$HOME", "*.c", "|", "wc"]);
    }

    #[test]
    fn a_line_without_a_word_or_with_an_open_quote_is_none() {
        for line in ["", "  ", "a 'b", "a \"b", "a \"b\\", "a\\"] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec(".{0,20}", 1..6)) {
            let line: Vec<_> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
            proptest::prop_assert_eq!(split(&line.join(" ")), Some(words));
        }
    }
}

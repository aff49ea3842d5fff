//! The files of the repository, read once for all rules.

use std::path::Path;

use super::lexer;
use crate::command;

/// One text file.
#[derive(Debug)]
pub(super) struct File {
    /// From the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The same text without comments and literals; empty for what is not Rust.
    pub(super) code: String,
    /// The byte ranges of `#[cfg(test)] mod ... { }`.
    tests: Vec<(usize, usize)>,
}

impl File {
    fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") {
            lexer::code_only(&text)
        } else {
            String::new()
        };
        let tests = test_modules(&code);
        Self {
            path,
            text,
            code,
            tests,
        }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The name without folders and ending.
    pub(super) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }

    /// The line, from 1, of a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn is_in_test_module(&self, at: usize) -> bool {
        self.tests
            .iter()
            .any(|&(from, to)| (from..to).contains(&at))
    }

    /// Lines outside the file's test modules.
    pub(super) fn lines_without_tests(&self) -> usize {
        let tests: usize = self
            .tests
            .iter()
            .map(|&(from, to)| self.line(to) - self.line(from))
            .sum();
        self.text.lines().count() - tests
    }
}

fn test_modules(code: &str) -> Vec<(usize, usize)> {
    code.match_indices("#[cfg(test)]")
        .filter_map(|(at, attribute)| {
            let rest = code.get(at + attribute.len()..)?;
            if !rest.trim_start().starts_with("mod ") {
                return None;
            }
            let open = at + attribute.len() + rest.find(['{', ';'])?;
            let is_here = code.as_bytes().get(open) == Some(&b'{');
            is_here.then(|| (at, lexer::closing(code, open)))
        })
        .collect()
}

/// All files that are, or would be, in version control.
#[derive(Debug)]
pub(super) struct Tree {
    files: Vec<File>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let listed = ["ls-files", "--cached", "--others", "--exclude-standard"];
        let listed = command::read("git", &listed)?;
        let files = listed.lines().filter_map(|path| {
            // Pictures and other bytes are not text, and a file may be deleted but still listed.
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(File::new(path.to_owned(), text))
        });
        Ok(Self {
            files: files.collect(),
        })
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    pub(super) fn under<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a File> {
        let is_under = move |file: &&File| file.path.starts_with(folder);
        self.files.iter().filter(is_under)
    }

    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.file(path).is_some()
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| File::new(path.to_owned(), text.to_owned());
        Self {
            files: files.iter().map(file).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::File;

    #[test]
    fn a_test_module_is_told_from_the_code_around_it() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let file = File::new("x.rs".to_owned(), text.to_owned());
        assert!(!file.is_in_test_module(0));
        assert!(file.is_in_test_module(text.find("fn b").unwrap()));
        assert!(!file.is_in_test_module(text.find("fn c").unwrap()));
        assert_eq!(file.lines_without_tests(), 3);
    }
}

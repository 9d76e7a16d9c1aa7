//! Mutants: copies of the broker with one fault each, which the checker must find. They check the
//! checker and the workload.
//!
//! A fault is a patch in `mutants/`. Its text before the diff says what is wrong and by which
//! exchange it shows, which invariants find it, and whether it needs other than the usual cycles.
//! What no kill brings about is found by a test of the broker, which must fail with it. The patch is
//! applied to a copy of the tree, never to the tree itself.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kills within which a mutant has to be found.
pub const CYCLES_MAX: u32 = 100;

/// Where the patches are, seen from the root of the tree.
const PATCHES: &str = "tests/crash/mutants";
/// What the broker and its unit tests are built from.
const SOURCES: [&str; 5] = ["src", "tests/support", "Cargo.toml", "Cargo.lock", "README.md"];
/// The name of the program that is built: not the broker's, which stands in the same directory.
const PROGRAM: &str = "ternmq-mutant";

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The patch's name.
    pub name: String,
    /// What finds it.
    pub found_by: Finder,
    /// It shows in heavy cycles: every cycle is one.
    pub is_heavy: bool,
    patch: PathBuf,
}

/// What finds a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finder {
    /// At least one of these invariants, in the crash test.
    Invariants(Vec<String>),
    /// This unit test of the broker: it fails.
    Test(String),
}

impl Finder {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match words.as_slice() {
            [] => None,
            [first, name] if first == "test" => Some(Self::Test(name.clone())),
            [first, ..] if first == "test" => None,
            _ => Some(Self::Invariants(words)),
        }
    }
}

impl fmt::Display for Finder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invariants(invariants) => formatter.write_str(&invariants.join(" ")),
            Self::Test(name) => write!(formatter, "test {name}"),
        }
    }
}

impl Mutant {
    fn read(patch: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(patch)?;
        let name = patch.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        Self::parse(&name, &text, patch).ok_or_else(|| {
            io::Error::other(format!(
                "{name}: no line \"Found by: I1 ...\" or \"Found by: test NAME\" before the diff"
            ))
        })
    }

    fn parse(name: &str, text: &str, patch: &Path) -> Option<Self> {
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("diff ")).collect();
        let value = |key: &str| head.iter().find_map(|line| line.strip_prefix(key));
        let found_by = Finder::parse(value("Found by:")?)?;
        let is_heavy = value("Options:").is_some_and(|options| options.contains("heavy"));
        Some(Self { name: name.to_owned(), found_by, is_heavy, patch: patch.to_owned() })
    }
}

/// The mutants of a tree, by name.
///
/// # Errors
/// They cannot be read.
pub fn of_tree(root: &Path) -> io::Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(root.join(PATCHES))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            mutants.push(Mutant::read(&path)?);
        }
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(mutants)
}

/// Where mutants are built: a copy of the tree, and the target directory of the tree, so that only
/// the broker is built anew.
#[derive(Debug)]
pub struct Yard {
    root: PathBuf,
    copy: PathBuf,
    target: PathBuf,
}

impl Yard {
    /// A yard below the target directory.
    ///
    /// # Errors
    /// A path cannot be used.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => PathBuf::from(target),
            None => root.join("target"),
        };
        fs::create_dir_all(&target)?;
        let target = target.canonicalize()?;
        Ok(Self { root, copy: target.join("mutants/tree"), target })
    }

    /// Builds a mutant. The inner error says why there is none: the patch does not apply, or the
    /// result does not compile.
    ///
    /// # Errors
    /// The system fails us.
    pub fn build(&self, mutant: &Mutant) -> io::Result<Result<PathBuf, String>> {
        if let Err(text) = self.apply(mutant)? {
            return Ok(Err(text));
        }
        if let Err(text) = self.cargo(&["build", "--bin", PROGRAM])? {
            return Ok(Err(format!("the patched broker does not compile: {text}")));
        }
        let program = self.copy.with_file_name(&mutant.name);
        fs::rename(self.target.join("debug").join(PROGRAM), &program)?;
        Ok(Ok(program))
    }

    /// Runs a unit test of a mutant; whether it fails. The inner error says why it cannot be run.
    ///
    /// # Errors
    /// The system fails us.
    pub fn fails(&self, mutant: &Mutant, test: &str) -> io::Result<Result<bool, String>> {
        if let Err(text) = self.apply(mutant)? {
            return Ok(Err(text));
        }
        if let Err(text) = self.cargo(&["test", "--lib", "--no-run"])? {
            return Ok(Err(format!("the patched tests do not compile: {text}")));
        }
        Ok(Ok(self.cargo(&["test", "--lib", test])?.is_err()))
    }

    /// Runs cargo in the copy. The inner error is what it says if it fails.
    fn cargo(&self, args: &[&str]) -> io::Result<Result<(), String>> {
        let output = Command::new("cargo")
            .args(args)
            .args(["--quiet", "--locked", "--target-dir"])
            .arg(&self.target)
            .current_dir(&self.copy)
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(text) })
    }

    /// Makes the copy a mutant.
    fn apply(&self, mutant: &Mutant) -> io::Result<Result<(), String>> {
        self.copy_tree()?;
        // A repository above the copy is none of git's business here: paths are those of the copy.
        let applied = Command::new("git")
            .args(["apply", "--recount", "-C1"])
            .arg(mutant.patch.canonicalize()?)
            .current_dir(&self.copy)
            .env("GIT_CEILING_DIRECTORIES", self.copy.parent().unwrap_or(&self.copy))
            .output()?;
        if !applied.status.success() {
            let text = String::from_utf8_lossy(&applied.stderr);
            return Ok(Err(format!("the patch does not apply any more: {}", text.trim())));
        }
        Ok(Ok(()))
    }

    /// Makes the copy like the tree. Files that are alike are left alone, so that cargo sees only
    /// what has changed.
    fn copy_tree(&self) -> io::Result<()> {
        let mut wanted = BTreeSet::new();
        for name in SOURCES {
            list(&self.root, Path::new(name), &mut wanted)?;
        }
        let mut there = BTreeSet::new();
        if self.copy.exists() {
            list(&self.copy, Path::new(""), &mut there)?;
        }
        for old in there.difference(&wanted) {
            fs::remove_file(self.copy.join(old))?;
        }
        for path in &wanted {
            let mut contents = fs::read(self.root.join(path))?;
            if path == Path::new("Cargo.toml") {
                contents = renamed(&String::from_utf8_lossy(&contents)).into_bytes();
            }
            let to = self.copy.join(path);
            if fs::read(&to).is_ok_and(|old| old == contents) {
                continue;
            }
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(to, contents)?;
        }
        Ok(())
    }
}

/// The manifest with another name for the program.
fn renamed(manifest: &str) -> String {
    let lines = manifest.lines().filter(|line| !line.starts_with("default-run"));
    let mut is_program = false;
    let mut text = String::new();
    for line in lines {
        if line.starts_with('[') {
            is_program = line == "[[bin]]";
        }
        text += if is_program && line.starts_with("name = ") { "name = \"ternmq-mutant\"" } else { line };
        text.push('\n');
    }
    text
}

fn list(root: &Path, path: &Path, into: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let whole = root.join(path);
    if !whole.is_dir() {
        into.insert(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(whole)? {
        list(root, &path.join(entry?.file_name()), into)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_before_the_diff_is_read() {
        let text = "What is wrong.\n\nFound by: I1 I10\nOptions: heavy\n\ndiff --git a/x b/x\nFound by: I9\n";
        let mutant = Mutant::parse("x", text, Path::new("x.patch")).unwrap();
        assert_eq!(
            (mutant.found_by, mutant.is_heavy),
            (Finder::Invariants(vec!["I1".to_owned(), "I10".to_owned()]), true)
        );
        assert_eq!(Finder::parse(" test a::b"), Some(Finder::Test("a::b".to_owned())));
        assert_eq!((Finder::parse(""), Finder::parse("test"), Finder::parse("test a b")), (None, None, None));
        assert!(
            Mutant::parse("x", "What.\n\ndiff --git a/x b/x\nFound by: I9\n", Path::new("x.patch")).is_none()
        );
    }

    #[test]
    fn all_patches_say_what_they_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert!(of_tree(&root).unwrap().len() >= 14);
    }

    #[test]
    fn the_program_has_another_name_and_nothing_else() {
        let manifest = "[package]\nname = \"ternmq\"\ndefault-run = \"ternmq\"\n[[bin]]\nname = \"ternmq\"\npath = \"x\"\n[a]\nname = \"b\"\n";
        let expected = "[package]\nname = \"ternmq\"\n[[bin]]\nname = \"ternmq-mutant\"\npath = \"x\"\n[a]\nname = \"b\"\n";
        assert_eq!(renamed(manifest), expected);
    }
}

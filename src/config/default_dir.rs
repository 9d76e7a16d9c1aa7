//! The data directory of a program that is told of none.
//!
//! A library keeps nothing on disk unless it is told where; a broker that somebody starts as a program keeps what it
//! acknowledges, so it needs a place that is there without configuration. systemd names one in `STATE_DIRECTORY`
//! (the first of a list with colons); else it is the user's own, where the XDG rules put data of applications.
//! A variable that is empty or not an absolute path counts as not set, as those rules have it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A variable, what of its value is the directory it names, and where our directory is below that.
type Place = (&'static str, fn(&OsStr) -> &OsStr, &'static str);

/// From the most to the least particular.
const PLACES: [Place; 3] = [
    ("STATE_DIRECTORY", first_of_list, ""),
    ("XDG_DATA_HOME", |value| value, "ternmq"),
    ("HOME", |value| value, ".local/share/ternmq"),
];

fn first_of_list(value: &OsStr) -> &OsStr {
    OsStr::from_bytes(value.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default())
}

/// The default directory and the variable it comes from; `None` if no variable names an absolute path.
pub(crate) fn default_data_dir(environment: &[(OsString, OsString)]) -> Option<(PathBuf, &'static str)> {
    PLACES.iter().find_map(|(name, directory, below)| {
        let (_, value) = environment.iter().find(|(found, _)| found == name)?;
        let base = Path::new(directory(value));
        // Joined with nothing, a path would get a slash at its end.
        let path = if below.is_empty() { base.to_owned() } else { base.join(below) };
        base.is_absolute().then_some((path, *name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_variable_wins_and_bad_ones_are_passed_over() {
        let all = [("STATE_DIRECTORY", "/s:/t"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        for (changed, expected) in [
            (&[][..], Some(("/s", "STATE_DIRECTORY"))),
            (&[("STATE_DIRECTORY", "/s")], Some(("/s", "STATE_DIRECTORY"))),
            (&[("STATE_DIRECTORY", "")], Some(("/x/ternmq", "XDG_DATA_HOME"))),
            (&[("STATE_DIRECTORY", ":/t")], Some(("/x/ternmq", "XDG_DATA_HOME"))),
            (&[("STATE_DIRECTORY", "s"), ("XDG_DATA_HOME", "x")], Some(("/h/.local/share/ternmq", "HOME"))),
            (&[("STATE_DIRECTORY", ""), ("XDG_DATA_HOME", ""), ("HOME", "h")], None),
        ] {
            let value = |name| changed.iter().find(|(other, _)| *other == name);
            let environment: Vec<(OsString, OsString)> = all
                .iter()
                .map(|pair| value(pair.0).unwrap_or(pair))
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
            let expected = expected.map(|(path, name)| (PathBuf::from(path), name));
            let found = default_data_dir(&environment);
            assert_eq!(found, expected, "{changed:?}");
            // `PathBuf`s compare by component: the slash at the end is looked for by itself.
            assert!(found.is_none_or(|(path, _)| !path.as_os_str().as_bytes().ends_with(b"/")));
        }
        assert_eq!(default_data_dir(&[]), None);
    }
}

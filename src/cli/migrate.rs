//! `clockwise migrate`: translates a configuration of another proxy.
//!
//! Writes the YAML to standard output or to a file, and one line to standard error for each setting that it could not
//! translate.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::error::{CliError, CommandResult};
use super::output::{Output, use_color};
use crate::config;
use crate::migrate::{self, Language, MAX_NOTES, Translation};

#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// nginx.conf, haproxy.cfg or envoy.yaml
    file: PathBuf,
    /// The proxy that the file configures [default: guessed from the name of the file]
    #[arg(long, value_enum, value_name = "SYSTEM")]
    from: Option<SourceLanguage>,
    /// Writes the YAML to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Exits with code 3 if something was not translated
    #[arg(long)]
    strict: bool,
    /// Prints one JSON object per note, on standard error
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SourceLanguage {
    Nginx,
    Haproxy,
    Envoy,
}

impl SourceLanguage {
    fn to_language(self) -> Language {
        match self {
            Self::Nginx => Language::Nginx,
            Self::Haproxy => Language::Haproxy,
            Self::Envoy => Language::Envoy,
        }
    }
}

pub(super) fn migrate(options: &MigrateArgs, output: &mut Output) -> CommandResult {
    let path = &options.file;
    let requested = options.from.map(SourceLanguage::to_language);
    let language = requested.or_else(|| Language::from_path(path)).ok_or_else(|| {
        let message = "the name of the file does not show which proxy it is for; add `--from nginx`, `haproxy` or `envoy`";
        CliError::Input(format!("{}: {message}", path.display()))
    })?;
    let main = read(path, &file_name(path)).map_err(CliError::Input)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let translation = migrate::translate(language, main, &|pattern| include(folder, pattern))
        .map_err(|report| CliError::Input(report.render(use_color())))?;
    write(&translation, options, output)?;
    print_notes(&translation, options);
    check_translation(&translation)?;
    if options.strict && translation.gaps > 0 {
        return Err(CliError::Limit(format!(
            "{}: {} settings were not translated",
            path.display(),
            translation.gaps
        )));
    }
    Ok(())
}

/// The name of the file without its folders, as the comments in the YAML show it.
fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn read(path: &Path, name: &str) -> Result<migrate::SourceFile, String> {
    let at = path.display();
    let unreadable = |error: std::io::Error| format!("{at}: the file cannot be read: {error}");
    // Checked first: if the path is a FIFO, opening it would wait for a writer.
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(format!("{at}: this is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "{at}: the file is bigger than {} MiB; is it a configuration?",
            MAX_BYTES >> 20
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let lines = error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|byte| **byte == b'\n')
            .count();
        format!(
            "{at}:{}: a byte of this line is not UTF-8; save the file as UTF-8",
            lines + 1
        )
    })?;
    Ok(migrate::SourceFile {
        name: name.to_owned(),
        text,
    })
}

/// The files that an include pattern names, relative to the folder of the main file.
fn include(folder: &Path, pattern: &str) -> Result<Vec<migrate::SourceFile>, String> {
    let full = folder.join(pattern);
    let has_wildcard = pattern.contains(['*', '?', '[']);
    let paths = if has_wildcard {
        expand_glob(&full)
    } else {
        vec![full]
    };
    let files = paths.iter().map(|path| {
        let name = path.strip_prefix(folder).unwrap_or(path);
        read(path, &name.to_string_lossy())
    });
    files.collect()
}

/// The paths that match a pattern with `*` and `?`, sorted within each folder.
fn expand_glob(pattern: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?']) {
            for path in &mut paths {
                path.push(part);
            }
            continue;
        }
        paths = paths
            .iter()
            .flat_map(|folder| matching_paths(folder, &text))
            .collect();
    }
    paths.retain(|path| path.exists());
    paths
}

fn matching_paths(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let folder_or_current = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = fs::read_dir(folder_or_current) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pattern = pattern.as_bytes();
    let matches = |name: &String| !name.starts_with('.') && matches_glob(pattern, name.as_bytes());
    let mut names: Vec<_> = names.filter(matches).collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Whether a name matches a pattern. After a mismatch, the last `*` matches one more byte, and matching continues after
/// it.
fn matches_glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut name_at, mut pattern_at) = (0, 0);
    // The index after the last `*` in the pattern, and the index in the name after the bytes that this `*` matches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(name_at) {
        match (pattern.get(pattern_at), star) {
            (Some(b'*'), _) => {
                star = Some((pattern_at + 1, name_at));
                pattern_at += 1;
            }
            (Some(expected), _) if expected == byte || *expected == b'?' => {
                (name_at, pattern_at) = (name_at + 1, pattern_at + 1);
            }
            (_, Some((after_star, star_end))) => {
                star = Some((after_star, star_end + 1));
                (name_at, pattern_at) = (star_end + 1, after_star);
            }
            _ => return false,
        }
    }
    pattern.iter().skip(pattern_at).all(|byte| *byte == b'*')
}

fn write(translation: &Translation, options: &MigrateArgs, output: &mut Output) -> CommandResult {
    let Some(path) = &options.output else {
        output.bytes(translation.yaml.as_bytes())?;
        return output.flush();
    };
    let is_input = path
        .canonicalize()
        .ok()
        .is_some_and(|path| Some(path) == options.file.canonicalize().ok());
    if is_input {
        return Err(CliError::Input(format!(
            "{}: this is the input file; write to another one",
            path.display()
        )));
    }
    fs::write(path, &translation.yaml)
        .map_err(|error| CliError::Input(format!("{}: cannot be written: {error}", path.display())))
}

/// Prints the notes. If standard error is closed, the comments in the YAML still have them.
fn print_notes(translation: &Translation, options: &MigrateArgs) {
    let mut errors = std::io::stderr().lock();
    for note in &translation.notes {
        let line = if options.json {
            serde_json::to_string(note).unwrap_or_default()
        } else {
            note.to_string()
        };
        let _ = writeln!(errors, "{line}");
    }
    if !options.json && translation.notes.len() == MAX_NOTES {
        let _ = writeln!(
            errors,
            "further notes are not shown; {} settings were not translated",
            translation.gaps
        );
    }
}

/// Checks the YAML. The other proxy may allow what Clockwise does not, such as a name that is not a host name.
fn check_translation(translation: &Translation) -> CommandResult {
    match config::parse("the YAML", &translation.yaml) {
        Ok(_) => Ok(()),
        Err(report) => {
            let report = report.render(use_color());
            Err(CliError::Input(format!(
                "{report}\ncorrect the YAML by hand"
            )))
        }
    }
}

/// The most bytes of a file, the same as for a configuration of Clockwise: 10,000 servers need 1 MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_pattern_matches_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf~", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?.conf", "a.conf", true),
            ("?", "", false),
            ("**", "x", true),
            ("*?", "", false),
        ] {
            assert_eq!(
                matches_glob(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}

//! `cargo xtask bench [NAME]`: the benchmarks of `tests/benches`. A row that falls short is printed as `SHORT` and is not
//! an error: the figures are for people, and a busy machine must not break a build.

use std::process::ExitCode;

use crate::run::{Outcome, cargo, shown, workspace};

/// Runs the benchmark `name`, or all of them one after the other.
pub fn run(name: Option<&str>) -> Outcome {
    let known = names()?;
    let chosen = match name {
        None => known,
        Some(name) if known.iter().any(|known| known == name) => vec![name.to_owned()],
        Some(name) => return Err(format!("no benchmark {name}; there are: {}", known.join(", "))),
    };
    for name in chosen {
        let status = shown(&mut cargo(&["bench", "--quiet", "--package", "tests", "--bench", &name]))?;
        if !status.success() {
            return Err(format!("the benchmark {name} ended with {status}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names() -> Result<Vec<String>, String> {
    let folder = workspace().join("tests/benches");
    let failed = |error: std::io::Error| format!("read {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_benchmark() {
        assert_eq!(names().unwrap(), ["service", "supervision"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(run(Some("speed")).unwrap_err(), "no benchmark speed; there are: service, supervision");
    }
}

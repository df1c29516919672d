//! Takes the files of Swagger UI that the docs page needs out of the archive that a crate brings. All of it, with its
//! source maps and its other flavours, would be 11 MB in the binary; these are 1.6.

use std::error::Error;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

/// The same names as in `src/http/docs.rs`, which includes them.
const FILES: [&str; 3] = ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = std::env::var("OUT_DIR")?;
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    // The top folder bears the version.
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    for file in FILES {
        let within = |name: &&String| name.split_once('/').is_some_and(|(_, rest)| rest == format!("dist/{file}"));
        let name = names.iter().find(within).ok_or_else(|| format!("{file} is not in the archive of Swagger UI"))?;
        let mut content = Vec::new();
        archive.by_name(name)?.read_to_end(&mut content)?;
        fs::write(Path::new(&folder).join(file), content)?;
    }
    Ok(())
}

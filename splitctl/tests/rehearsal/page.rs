//! The report as a page: a browser shows it without network and scripts, with pictures that have a size.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::fixture::{Fixture, OWNER, execute};
use super::shop::shop;

/// Debian's package, and names that others use.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).flat_map(|folder| BROWSERS.map(|name| folder.join(name))).find(|program| program.is_file())
}

/// Shows a page. Root needs `--no-sandbox`, and a profile of its own lets several run.
fn show(browser: &Path, folder: &Path, arguments: &[&str], page: &Path) -> String {
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,3000"]);
    command.arg(format!("--user-data-dir={}", folder.join("profile").display())).env("HOME", folder);
    let output = command.args(arguments).arg(format!("file://{}", page.display())).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The page with a script that writes what the browser has made of it: the sizes of the pictures and of all their parts, and
/// how far the widest element reaches.
const MEASURE: &str = r"
    <script>
    const size = element => { const box = element.getBoundingClientRect(); return [box.width, box.height]; };
    const pictures = [...document.querySelectorAll('svg')].map(picture => ({
        size: size(picture),
        parts: [...picture.querySelectorAll('rect, text')].map(size),
        title: picture.querySelector('title').textContent,
    }));
    const right = Math.max(...[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right));
    const text = document.body.innerText;
    document.documentElement.innerHTML = '<pre></pre>';
    document.querySelector('pre').textContent = JSON.stringify({ pictures, right, text });
    </script>";

fn measured(browser: &Path, fixture: &Fixture) -> Value {
    let folder = fixture.folder.path();
    let page = std::fs::read_to_string(folder.join("rehearsals/shop.html")).expect("a page");
    let copy = folder.join("measured.html");
    std::fs::write(&copy, page.replace("</body>", &format!("{MEASURE}</body>"))).expect("written");
    let shown = show(browser, folder, &["--dump-dom"], &copy);
    let document = shown.split_once("<pre>").and_then(|(_, rest)| rest.split_once("</pre>")).expect("a document").0;
    let document = document.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}"))
}

#[test]
fn the_page_needs_nothing_else_and_its_pictures_have_a_size() {
    let fixture = shop();
    // Names of the database must not become part of the page.
    execute(
        &fixture.source,
        r#"create table "<script>alert(1)</script>&" (id integer primary key);
        grant select on "<script>alert(1)</script>&" to shop_svc"#,
    );
    let manifest = super::shop::MANIFEST.replace("\"log_lines\"]", "\"log_lines\", '\"<script>alert(1)</script>&\"']");
    std::fs::write(fixture.folder.path().join("split.toml"), manifest).expect("written");
    fixture.done(&["rehearse", OWNER]);
    let path = fixture.folder.path().join("rehearsals/shop.html");
    let page = std::fs::read_to_string(&path).expect("a page");
    for foreign in ["<script", "http:", "https:", "url(", "@import", "<link", "<img"] {
        assert!(!page.contains(foreign), "the page holds {foreign}");
    }
    let Some(browser) = browser() else {
        eprintln!("skipped: no Chromium in PATH (apt install chromium), so the page was not shown");
        return;
    };
    let shown = measured(&browser, &fixture);
    let text = shown["text"].as_str().expect("a text");
    for part in [
        "Rehearsal of the move of shop",
        "without an error",
        "What to expect of the real move",
        "<script>alert(1)",
        "Decision",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let pictures = shown["pictures"].as_array().expect("pictures");
    assert_eq!(pictures.len(), 3, "{pictures:#?}");
    for picture in pictures {
        let sizes = picture["parts"].as_array().expect("parts").iter().chain([&picture["size"]]);
        for size in sizes {
            assert!(size[0].as_f64() > Some(0.0) && size[1].as_f64() > Some(0.0), "{picture:#}");
        }
    }
    assert!(shown["right"].as_f64() <= Some(1000.0), "the page is wider than its window: {}", shown["right"]);
    let picture = fixture.folder.path().join("page.png");
    show(&browser, fixture.folder.path(), &[&format!("--screenshot={}", picture.display())], &path);
    assert!(std::fs::metadata(&picture).expect("a picture").len() > 20_000);
}

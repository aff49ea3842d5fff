//! The API document: every route of the server is in `docs/openapi.json`.

use super::Finding;
use super::tree::Tree;

const DOCUMENT: &str = "docs/openapi.json";
/// Modules declare their routes below this, the operation's stand at the root.
const ROOT: &str = "/api/v1";
/// What is no part of the API.
const OUTSIDE: [(&str, &str); 17] = [
    ("/whip", "fixed by RFC 9725"),
    ("/whip/{session}", "fixed by RFC 9725"),
    ("/whep/{room}", "fixed by the WHEP draft"),
    ("/whep/{room}/{session}", "fixed by the WHEP draft"),
    ("/hls/{room}/index.m3u8", "fixed by RFC 8216"),
    ("/hls/{room}/dvr.m3u8", "fixed by RFC 8216"),
    ("/hls/{room}/{rendition}/{file}", "fixed by RFC 8216"),
    ("/flv/{file}", "named as every server of HTTP-FLV does"),
    ("/thumb/{file}", "a picture"),
    ("/vod/{recording}/index.m3u8", "fixed by RFC 8216"),
    ("/vod/{recording}/clip.mp4", "a media file"),
    ("/vod/{recording}/{rendition}/{file}", "fixed by RFC 8216"),
    ("/", "a page"),
    ("/rooms/{room}", "a page"),
    ("/{*path}", "files of the pages"),
    ("/metrics", "on the admin port"),
    ("/api/v1/openapi.json", "the document itself"),
];

pub(super) fn document_has_every_route(tree: &Tree) -> Vec<Finding> {
    let documented = documented(tree);
    let mut found = Vec::new();
    for file in tree.under("src/").filter(|file| file.is_rust()) {
        for (at, route) in routes(&file.text) {
            if file.is_in_test_module(at) || file.stem() == "tests" {
                continue;
            }
            let is_outside = OUTSIDE.iter().any(|&(path, _)| path == route);
            let is_told = |path: &String| {
                path == route || path.strip_prefix(ROOT).is_some_and(|rest| rest == route)
            };
            if !is_outside && !documented.iter().any(is_told) {
                let says =
                    format!("route `{route}` is not in {DOCUMENT}: run `cargo xtask openapi`");
                found.push(Finding::new(&file.path, file.line(at), says));
            }
        }
    }
    found
}

fn documented(tree: &Tree) -> Vec<String> {
    let text = tree.file(DOCUMENT).map_or("{}", |file| &file.text);
    let document: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let paths = document.get("paths").and_then(serde_json::Value::as_object);
    paths
        .into_iter()
        .flat_map(|paths| paths.keys().cloned())
        .collect()
}

/// Literals that begin like a route where a route is declared.
fn routes(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let declarations = [".route(", "path = ", "path="];
    text.match_indices('"').filter_map(move |(quote, _)| {
        let before = text.get(..quote)?.trim_end_matches(['\n', ' ']);
        let is_declared = declarations
            .iter()
            .any(|it| before.ends_with(it.trim_end()));
        let rest = text.get(quote + 1..)?;
        let route = rest.get(..rest.find('"')?)?;
        (is_declared && route.starts_with('/')).then_some((quote, route))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_the_document_lacks_is_flagged() {
        let code = "#[utoipa::path(post, path = \"/rooms\", tag = \"rooms\")]\nfn a() {}\n\
                    fn b() { router.route(\"/rooms/{id}\", get(c)).route(\"/\", get(d)) }\n";
        let document = r#"{ "paths": { "/api/v1/rooms": {} } }"#;
        let tree = Tree::of(&[("src/rooms/routes.rs", code), (DOCUMENT, document)]);
        let found = document_has_every_route(&tree);
        let lines: Vec<_> = found.iter().map(|it| it.line).collect();
        assert_eq!(lines, [3], "{found:?}");
    }
}

//! The page as it is sent: complete, with its policy, and with nothing in it that leads anywhere else.

use axum::body::Body;
use http::Request;
use tower::ServiceExt;

use super::*;

async fn get(path: &str, known: Option<&HeaderValue>) -> (http::response::Parts, String) {
    let mut request = Request::get(path);
    if let Some(tag) = known {
        request = request.header(IF_NONE_MATCH, tag);
    }
    let answer = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_path_below_the_console_is_the_same_page_under_a_strict_policy() {
    let (first, page) = get("/console", None).await;
    let policy = first.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(first.headers[CONTENT_TYPE], "text/html; charset=utf-8");
    for path in [
        "/console/",
        "/console/incidents/018f0000-0000-7000-8000-000000000000",
        "/console/traces/x?span=y",
        "/console/jobs",
    ] {
        let (parts, body) = get(path, None).await;
        assert_eq!((parts.status, &body), (StatusCode::OK, &page), "{path}");
    }
}

#[tokio::test]
async fn every_file_is_served_with_its_type_and_is_not_sent_again_while_it_is_the_same() {
    for file in FILES.iter() {
        let path = format!("/console/assets/{}", file.name);
        let (parts, body) = get(&path, None).await;
        assert_eq!((parts.status, parts.headers[CONTENT_TYPE].to_str().unwrap()), (StatusCode::OK, file.content_type));
        assert_eq!(
            (body.as_bytes(), &parts.headers[X_CONTENT_TYPE_OPTIONS]),
            (file.content, &"nosniff".parse().unwrap())
        );
        let (again, nothing) = get(&path, Some(&parts.headers[ETAG])).await;
        assert_eq!((again.status, nothing.as_str(), &again.headers[ETAG]), (StatusCode::NOT_MODIFIED, "", &file.tag));
        assert_eq!(get(&path, Some(&"\"other\"".parse().unwrap())).await.0.status, StatusCode::OK);
    }
    for absent in ["README.md", "vendor/README.md", "../console.rs", "nothing.js"] {
        assert_eq!(get(&format!("/console/assets/{absent}"), None).await.0.status, StatusCode::NOT_FOUND, "{absent}");
    }
}

/// What a file asks for: a URL of a host, or a file of ours, by a module's own way of saying it or the page's.
fn references(text: &str) -> Vec<&str> {
    let quoted = |before: &str| text.match_indices(before).map(|(at, _)| at + before.len()).collect::<Vec<_>>();
    let starts = ["from \"", "src=\"", "href=\"", "@import \"", "url(\""].into_iter().flat_map(quoted);
    starts.filter_map(|at| text[at..].split('"').next()).collect()
}

#[test]
fn what_the_files_ask_for_is_among_them_and_nothing_is_asked_of_another_host() {
    for file in FILES.iter() {
        let text = std::str::from_utf8(file.content).unwrap();
        // The names of the formats that a browser has built in are no addresses.
        let without_formats =
            text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "");
        for elsewhere in ["http://", "https://", "\"//", "'//", "ws://", "wss://"] {
            assert!(!without_formats.contains(elsewhere), "{elsewhere} in {}", file.name);
        }
        for reference in references(text) {
            let name = reference.trim_start_matches("/console/assets/").trim_start_matches("./");
            let is_ours = FILES.iter().any(|file| file.name == name) || reference.starts_with(['#', '$']);
            assert!(is_ours || reference == "/console", "{reference} in {}", file.name);
        }
    }
}

#[test]
fn no_module_of_ours_makes_html_or_code_of_a_text() {
    for file in FILES.iter().filter(|file| file.name.ends_with(".js") && !file.name.starts_with("vendor/")) {
        let text = std::str::from_utf8(file.content).unwrap();
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!text.contains(sink), "{sink} in {}", file.name);
        }
    }
}

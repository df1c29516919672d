use super::*;

#[tokio::test]
async fn a_request_that_cannot_be_begun_says_so_and_a_panic_of_it_names_its_tenant() {
    let (tasks, tenant) = (TaskGroup::new("api"), TenantId::new("whose-key-panicked").unwrap());
    assert_eq!(apart(&tasks, &tenant, async { 7 }).await.unwrap(), 7);
    let panicked = apart(&tasks, &tenant, async { panic!("in the middle of the commit") });
    let panicked: Problem = panicked.await.map(|(): ()| ()).unwrap_err();
    let incidents = telemetry::incidents::recent(1_000);
    let recorded = incidents.iter().find(|incident| incident.tenant.as_deref() == Some("whose-key-panicked"));
    assert_eq!(recorded.unwrap().message, "in the middle of the commit");
    tasks.stop(Duration::ZERO).await;
    let stopped = apart(&tasks, &tenant, async {}).await.unwrap_err();
    for problem in [panicked, stopped] {
        assert_eq!(problem.status(), 503);
        assert!(format!("{problem:?}").contains("nothing of this request was done"), "{problem:?}");
    }
}

fn read(value: &str) -> Result<Option<String>, Problem> {
    key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap())]))
}

#[test]
fn a_key_may_stand_in_quotes_or_bare() {
    assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    let longest = "x".repeat(KEY_MAX);
    for (text, expected) in [("a-1", "a-1"), ("\"a-1\"", "a-1"), (r#""a\"b\\""#, r#"a"b\"#), (&longest, &longest)] {
        assert_eq!(read(text).unwrap().unwrap(), expected);
    }
}

#[test]
fn what_is_no_key_is_400_and_says_what_would_be() {
    let too_long = "x".repeat(KEY_MAX + 1);
    for bad in ["", "\"\"", "\"", "\"a", "\"a\"; x=1", "\"a\\n\"", "\"a\"b\"", "a b", "\"a b\"", "a\u{e9}", &too_long] {
        assert_eq!(read(bad).unwrap_err().status(), 400, "{bad}");
    }
    let twice = [(IDEMPOTENCY_KEY, HeaderValue::from_static("a")), (IDEMPOTENCY_KEY, HeaderValue::from_static("a"))];
    assert_eq!(key(&HeaderMap::from_iter(twice)).unwrap_err().status(), 400);
}

//! The description of the API says what the router does.

use krilin::web::api::{self, openapi::Description};
use serde_json::Value;
use utoipa::OpenApi;

fn description() -> Value {
    serde_json::to_value(Description::openapi()).unwrap()
}

#[test]
fn the_description_is_openapi_3_1_and_names_every_route_and_no_other() {
    let description = description();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut described: Vec<(String, String)> = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        described.extend(item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())));
    }
    let mut routed: Vec<(String, String)> = api::routes()
        .iter()
        .flat_map(|route| route.names.iter().map(|name| (route.path.to_owned(), (*name).to_owned())))
        .collect();
    described.sort();
    routed.sort();
    assert_eq!(described, routed);
}

#[test]
fn every_operation_has_a_name_a_summary_and_says_who_may_use_it() {
    let description = description();
    assert_eq!(description["security"][0]["token"], serde_json::json!([]));
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["operationId"].is_string(), "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
}

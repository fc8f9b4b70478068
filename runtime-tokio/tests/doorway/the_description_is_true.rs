//! The OpenAPI description. That answers are as it says is checked in every other test, by the harness.

use kinfolk::doorway::{Keep, OPEN_API};
use kinfolk_shell::signal::types::ProblemKind;
use serde_json::{Value, json};

use crate::harness::{open, settings};

#[tokio::test]
async fn it_is_served() {
    let doorway = open(settings(Keep::Memory)).await;
    let served = doorway.get("/openapi.json").await;
    assert_eq!((served.status, served.text.as_str()), (200, OPEN_API));
    doorway.close().await;
}

#[test]
fn it_names_every_problem() {
    let description: Value = serde_json::from_str(OPEN_API).unwrap();
    let words: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.word()).collect();
    assert_eq!(description["components"]["schemas"]["Problem"]["properties"]["type"]["enum"], json!(words));
    for kind in ProblemKind::ALL {
        let status = kind.status().to_string();
        let named = |operation: &Value| !operation["responses"][&status].is_null();
        let somewhere = description["paths"].as_object().unwrap().values();
        let somewhere = somewhere.flat_map(|path| path.as_object().unwrap().values()).any(named);
        assert!(somewhere || kind == ProblemKind::WrongMethod, "{kind:?}: {status}");
    }
}

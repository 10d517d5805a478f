//! The Local provider keeps its contract: its binary, against a site in memory.

use std::path::PathBuf;
use std::sync::Arc;

use provisioning_conformance::worlds::site::Site;
use provisioning_conformance::{Provider, Suite, run};

#[tokio::test]
async fn the_local_provider_keeps_every_rule() {
    let suite = Suite {
        provider: Provider { program: PathBuf::from(env!("CARGO_BIN_EXE_provider-local")), arguments: Vec::new() },
        world: Arc::new(|| Box::new(Site::default())),
        slow: true,
        only: Vec::new(),
        parallel: 4,
    };
    let report = run(&suite).await;
    println!("Local provider, against a site in memory:\n{report}");
    assert_eq!((report.failed(), report.not_run()), (vec![], vec![]), "{report}");
}

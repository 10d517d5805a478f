//! The happy path, and what must hold along it.

use provisioning_api::Server;
use provisioning_e2e::{Case, case};

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn a_server_becomes_ready_and_leaves_nothing() {
    case("a_server_becomes_ready_and_leaves_nothing", |case: Case| async move {
        case.workspace().await?;
        case.apply(&case.server("blue-heron")).await?;
        case.ready::<Server>("blue-heron").await?;
        let runs = case.server_runs("blue-heron").await?;
        println!("{runs:?}");
        Ok(())
    });
}

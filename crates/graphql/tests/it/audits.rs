use std::{path::Path, process::Stdio};

use tokio::process::Command;

use crate::server::Server;

/// Also run by hand, or against a real service: `node tests/audits/run.mjs URL`.
#[tokio::test]
async fn the_official_server_audits_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audits");
    if !folder.join("node_modules/graphql-http").exists() {
        let installed = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output().await;
        let installed = installed.expect("npm is needed for this test");
        assert!(installed.status.success(), "npm ci: {}", String::from_utf8_lossy(&installed.stderr));
    }
    let server = Server::start().await;
    let mut node = Command::new("node");
    node.arg("run.mjs").arg(&server.url).current_dir(&folder).stdin(Stdio::null()).kill_on_drop(true);
    let audit = node.output().await.expect("node is needed for this test");
    let report = String::from_utf8_lossy(&audit.stdout);
    println!("{report}");
    assert!(audit.status.success(), "{report}{}", String::from_utf8_lossy(&audit.stderr));
}

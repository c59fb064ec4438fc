//! Doing the same to many runs.

use serde_json::json;

use crate::cli::{Cli, SOON, engines, idle};
use crate::runs::publish;

const FLOW: &str = "\
name: sync
labels: { customer: \"${ .input.who }\" }
steps:
  - { id: long, wait: { signal: never } }
";

#[tokio::test]
async fn a_bulk_is_tried_dry_done_page_by_page_and_gone_on_with() {
    let (server, _) = idle().await;
    let _engines = engines(&server, 3).await;
    let cli = Cli::new(server.url()).with_partitions(3);
    publish(&cli, server.folder(), FLOW).await;
    for n in 0..12 {
        let input = format!("{{\"who\":\"{}\"}}", if n < 8 { "acme" } else { "globex" });
        cli.run(&["run", "sync", "-i", &input, "--id", &format!("r{n}")]).await.ok();
    }
    tidemill_testkit::wait_for(SOON, "all to wait", async || {
        let found = cli.run(&["runs", "--state", "waiting", "--json"]).await.documents();
        if found.len() == 12 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
    .unwrap();
    let none = cli.run(&["bulk", "cancel"]).await.refused(2);
    assert!(none.contains("every run there is"), "{none}");
    let words = ["bulk", "cancel", "--label", "customer=acme", "--reason", "wrong file"];
    let dry = cli.run(&[&words[..], &["--dry-run", "--json"]].concat()).await.document();
    assert_eq!((&dry["found"], &dry["runs"].as_array().map(Vec::len)), (&json!(8), &Some(8)));
    let live = cli.run(&["runs", "--state", "waiting", "--json"]).await.documents();
    assert_eq!(live.len(), 12, "nothing was done");
    // the next begins behind the first
    let first = cli.run(&[&words[..], &["--limit", "5", "--json"]].concat()).await.document();
    assert_eq!((&first["done"], &first["refused"]), (&json!(5), &json!(0)));
    let next = first["next"].as_str().unwrap().to_owned();
    let rest = cli.run(&[&words[..], &["--cursor", &next]].concat()).await.ok();
    assert!(rest.starts_with("cancel: 3 found, 3 done, 0 refused"), "{rest}");
    let live = cli.run(&["runs", "--state", "live", "--json"]).await.documents();
    assert_eq!(live.len(), 4);
    let why = cli.run(&["bulk", "retry", "--state", "waiting", "--reason", "x"]).await.ok();
    assert!(why.contains("4 found, 0 done, 4 refused") && why.contains("still_runs"), "{why}");
    cli.run(&["bulk", "pause", "--state", "live", "--reason", "a look"]).await.ok();
    let noted = cli.run(&["operations", "r9", "--json"]).await.documents();
    assert_eq!((&noted[0]["kind"], &noted[0]["why"]), (&json!("pause"), &json!("a look")));
}

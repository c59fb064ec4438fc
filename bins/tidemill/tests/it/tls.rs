//! Redis over TLS: `rediss://`.

use std::net::TcpListener;
use std::process::Command;

use tidemill_testkit::RedisServer;

use crate::cli::program;

fn queues(url: &str, authority: Option<&str>) -> std::process::Output {
    let mut command = Command::new(program());
    // nothing of the surroundings: they may name authorities, or settings of other programs
    command.args(["queues", "--json"]).env_clear().env("TIDEMILL_REDIS_URL", url);
    command.envs(authority.map(|file| ("SSL_CERT_FILE", file)));
    command.output().unwrap()
}

#[tokio::test]
async fn a_server_is_trusted_over_tls_only_by_its_authority() {
    let server = RedisServer::start().await.unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let place = |name: &str| server.folder().join(name).display().to_string();
    let (certificate, key) = (place("cert.pem"), place("key.pem"));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let settings = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &certificate,
        "tls-key-file",
        &key,
        "tls-ca-cert-file",
        &certificate,
    ];
    let said =
        server.cli(&[&settings[..], &["tls-auth-clients", "no", "tls-port", &port]].concat()).await.unwrap();
    if said.contains("Unknown") || said.contains("unsupported") || said.contains("not supported") {
        println!("skipped: this redis-server is built without TLS: {said}");
        return;
    }
    assert!(said.starts_with("OK"), "{said}");

    let url = format!("rediss://127.0.0.1:{port}");
    let trusted = queues(&url, Some(&certificate));
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    let stranger = queues(&url, None);
    assert_eq!(stranger.status.code(), Some(4), "{}", String::from_utf8_lossy(&stranger.stderr));
}

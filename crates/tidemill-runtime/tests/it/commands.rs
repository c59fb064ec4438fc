//! A whole program (examples/program.rs), run as users run it.

use std::time::Duration;

use tidemill_testkit::{Process, ProcessBuilder};

const SOON: Duration = Duration::from_secs(20);

fn program() -> ProcessBuilder {
    let own = std::env::current_exe().expect("the running test");
    let built = own.ancestors().nth(2).expect("the target folder").join("examples/program");
    Process::builder(built).env("TIDEMILL_HTTP_ADDR", "127.0.0.1:0")
}

async fn ended(program: ProcessBuilder) -> (i32, String) {
    let mut process = program.start().expect("the program starts");
    let status = process.wait(SOON).await.expect("the program ends");
    (status.code().unwrap_or(-1), process.output())
}

#[tokio::test]
async fn config_print_and_check_end_with_their_codes() {
    let (code, text) = ended(program().args(["config", "print", "--log-level", "debug"])).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("level: debug  # flag --log-level\n"), "{text}");
    assert!(text.contains("addr: \"127.0.0.1:0\"  # variable TIDEMILL_HTTP_ADDR\n"), "{text}");
    assert_eq!(ended(program().args(["config", "check"])).await, (0, "settings are valid\n".to_owned()));
    let (code, text) = ended(program().args(["config", "check", "--set", "log.level=inof"])).await;
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("tide: settings refused:\nflag --set: log.level: `inof` is no log level"),
        "{text}"
    );
}

#[tokio::test]
async fn wrong_calls_and_wrong_settings_have_codes_of_their_own() {
    let (code, text) = ended(program().arg("--no-such-flag")).await;
    assert_eq!(code, 2, "{text}");
    let (code, text) = ended(program().args(["--set", "nonsense"])).await;
    assert!(code == 2 && text.contains("write KEY=VALUE"), "{text}");
    let (code, text) = ended(program().env("TIDEMILL_SHUTDOWN__GRACE", "1")).await;
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("shutdown.grace: unknown key; did you mean") || text.contains("known here"),
        "{text}"
    );
    let (code, text) = ended(program().env("TIDEMILL_HTTP_ADDR", "203.0.113.1:1")).await;
    assert!(code == 1 && text.contains("cannot listen on 203.0.113.1:1"), "{code} {text}");
}

#[tokio::test]
async fn a_signal_ends_the_program_in_order() {
    for interrupt in [false, true] {
        let mut process = program().start().unwrap();
        process.wait_for_line("listening for HTTP", SOON).await.unwrap();
        process.wait_for_line("the tide has turned", SOON).await.unwrap();
        if interrupt {
            process.interrupt().unwrap();
        } else {
            process.term().unwrap();
        }
        assert_eq!(process.wait(SOON).await.unwrap().code(), Some(0), "{}", process.output());
        let name = if interrupt { "SIGINT" } else { "SIGTERM" };
        assert!(process.output().contains(name), "{}", process.output());
    }
}

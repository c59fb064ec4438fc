//! `tidemill completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::Output;

/// Write the completions of a shell to standard output
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill
  tidemill completions zsh > \"${fpath[1]}/_tidemill\"
  tidemill completions fish > ~/.config/fish/completions/tidemill.fish")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, output: Output) {
    let mut command = super::Arguments::command();
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "tidemill", &mut text);
    output.text(&String::from_utf8_lossy(&text));
}

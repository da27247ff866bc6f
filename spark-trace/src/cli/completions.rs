use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::error::Exit;
use crate::cli::{Cli, output};
use spark_trace_render::show::SECTIONS;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shell to complete for
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace completions bash > ~/.local/share/bash-completion/completions/spark-trace
  spark-trace completions fish > ~/.config/fish/completions/spark-trace.fish
  spark-trace completions zsh > \"${fpath[1]}/_spark-trace\"";

/// What the generator leaves out for bash: a command and its arguments behind `--`, and recordings where they are read.
const BASH: &str = r#"
_spark__trace_all() {
    local cur="${COMP_WORDS[COMP_CWORD]}" i name
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ "${COMP_WORDS[i]}" == -- ]]; then
            compopt -o filenames 2>/dev/null
            if ((i + 1 == COMP_CWORD)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            fi
            return 0
        fi
    done
    _spark__trace "$@"
    case "${COMP_WORDS[1]}" in
        show | diff | kv | report | export) ;;
        *) return 0 ;;
    esac
    if ((COMP_CWORD < 2)) || [[ "$cur" == -* || "${COMP_WORDS[COMP_CWORD-1]}" == -* ]]; then
        return 0
    fi
    # Directories, too: recordings may lie below them.
    compopt -o filenames 2>/dev/null
    COMPREPLY=()
    while IFS= read -r name; do
        if [[ -d "$name" || "$name" == *.json || "$name" == *.json.zst ]]; then
            COMPREPLY+=("$name")
        fi
    done < <(compgen -f -- "$cur")
    if [[ "${COMP_WORDS[1]}" == show ]] && ((COMP_CWORD > 2)); then
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "SECTIONS" -- "$cur")
    fi
}
complete -F _spark__trace_all -o nosort -o bashdefault -o default spark-trace
"#;

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "spark-trace", &mut script);
    if args.shell == Shell::Bash {
        let sections: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        let own = BASH.replace("SECTIONS", &sections.join(" "));
        // clap_complete 4.6 takes the hyphen of the program's name for the start of a subcommand in one of two places.
        let generated = String::from_utf8_lossy(&script).replace("spark__subcmd__trace", "spark__trace");
        script = (generated + &own).into_bytes();
    }
    output::print(&script)
}

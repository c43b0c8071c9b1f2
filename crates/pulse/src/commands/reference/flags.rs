//! Every command with its flags.

use clap::Command;

use crate::output::print_text;

pub(super) fn print(programs: &[(&str, Command)]) -> anyhow::Result<()> {
    programs.iter().try_for_each(|(program, cli)| commands(program, cli))
}

fn commands(program: &str, cli: &Command) -> anyhow::Result<()> {
    print_text(&section(program, cli))?;
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("{program} {}", command.get_name());
        print_text(&section(&name, command))?;
        for nested in command.get_subcommands().filter(|nested| nested.get_name() != "help") {
            print_text(&section(&format!("{name} {}", nested.get_name()), nested))?;
        }
    }
    Ok(())
}

/// The heading, description and flag table of one command.
fn section(name: &str, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut lines = vec![format!("### `{name}`\n\n{}.", about.trim_end_matches('.'))];
    let arguments: Vec<_> =
        command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str())).collect();
    if !arguments.is_empty() {
        lines.push("\n| flag | variable | default | description |\n|---|---|---|---|".into());
    }
    for argument in arguments {
        let flag = argument.get_long().map_or_else(|| format!("<{}>", argument.get_id()), |long| format!("--{long}"));
        let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if default.is_empty() || !argument.get_action().takes_values() {
            String::new()
        } else {
            format!("`{}`", default.join(" "))
        };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        lines.push(format!("| `{flag}` | {variable} | {default} | {help} |"));
    }
    lines.push(String::new());
    lines.join("\n")
}

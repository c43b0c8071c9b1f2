//! Every command with its flags: a page for each command, and one for the flags that commands share.

use clap::{Arg, Args, Command};

use super::page::{Page, Table, code};
use crate::access_log_args::AccessLogArgs;
use crate::act_args::ActArgs;
use crate::archive_args::UserArchiveArgs;
use crate::args::{
    AdminArgs, AttemptArgs, BrowserArgs, ClientCaArgs, DatabaseArgs, InstanceArgs, LogArgs, ProcessingArgs, RedisArgs,
    ServerArgs, TlsArgs,
};
use crate::auth_args::{AuthArgs, SigningArgs};
use crate::reload::ReloadArgs;
use crate::token_args::TokenArgs;
use crate::user_limit_args::UserLimitArgs;

const COLUMNS: [&str; 4] = ["flag", "variable", "default", "description"];
const INTRODUCTION: &str = "\
A flag takes precedence over its variable. Durations are written `300s`, `5m` or `1h`; a number without a unit is seconds.
[Exit codes](../exit-codes.md) lists those of all commands. Flags that several commands have are listed once, in
[shared flags](shared-flags.md), beginning with those of [all commands](shared-flags.md#all-commands).";

/// `programs` are the command lines of the binary, each with the name that runs it.
pub(super) fn pages(programs: &[(&str, Command)]) -> Vec<Page> {
    let shared = Shared::new();
    let mut index = Table::new(&["command", "what it does"]);
    let mut pages = Vec::new();
    for (program, cli) in programs {
        // The plugin has one page, because its commands are short.
        let commands: Vec<&Command> = if *program == "pulse" { visible(cli).collect() } else { vec![cli] };
        for command in commands {
            let name =
                if *program == "pulse" { format!("{program} {}", command.get_name()) } else { (*program).into() };
            let file = format!("{}.md", name.replace(' ', "-"));
            index.row(&[&format!("[`{name}`]({file})"), &about(command)]);
            let mut text = section(&name, command, &shared);
            for nested in visible(command) {
                let name = format!("{name} {}", nested.get_name());
                text.push_str(&format!("\n## `{name}`\n\n{}", section(&name, nested, &shared)));
            }
            pages.push(Page { path: format!("commands/{file}"), title: format!("`{name}`"), text });
        }
    }
    let text = format!("{INTRODUCTION}\n\n{}", index.0);
    pages.push(Page { path: "commands/README.md".into(), title: "Commands".into(), text });
    pages.push(shared.page());
    pages
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    format!("{}.", about.trim_end_matches('.'))
}

/// The description of a command, the flags that it alone has, and links to the others.
fn section(name: &str, command: &Command, shared: &Shared) -> String {
    let mut text = format!("{}\n", about(command));
    let mut table = Table::new(&COLUMNS);
    let (mut rows, mut links) = (0, Vec::new());
    for argument in arguments(command) {
        let row = row(argument);
        match shared.heading(&row) {
            Some(heading) if !links.contains(&heading) => links.push(heading),
            Some(_) => {}
            None => {
                rows += 1;
                table.row(&row.each_ref().map(String::as_str));
            }
        }
    }
    if rows > 0 {
        text.push_str(&format!("\n{}", table.0));
    }
    if !links.is_empty() {
        let also = if rows > 0 { "It also has the flags of" } else { "It has the flags of" };
        let links: Vec<String> = links.iter().map(|heading| link(heading)).collect();
        text.push_str(&format!("\n{also} {}.\n", list(&links)));
    } else if rows == 0 && visible(command).next().is_none() {
        text.push_str(&format!("\n`{name}` has no flags.\n"));
    }
    text
}

/// The items of a sentence.
fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [item] => item.clone(),
        [items @ .., last] => format!("{} and {last}", items.join(", ")),
    }
}

fn link(heading: &str) -> String {
    format!("[{heading}](shared-flags.md#{})", heading.to_lowercase().replace(' ', "-"))
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
}

type Row = [String; 4];

fn row(argument: &Arg) -> Row {
    let flag = argument.get_long().map_or_else(|| format!("<{}>", argument.get_id()), |long| format!("--{long}"));
    let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if argument.get_action().takes_values() { default.join(" ") } else { String::new() };
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    [code(&flag), code(&variable), code(&default), help]
}

/// The rows of the flags that commands share, by heading. A flag that a command changes, such as its default, is in the table
/// of that command as well.
struct Shared(Vec<(&'static str, Vec<Row>)>);

impl Shared {
    fn new() -> Self {
        let mut shared = Self(Vec::new());
        shared.add::<LogArgs>("All commands");
        shared.add::<InstanceArgs>("Instance");
        shared.add::<DatabaseArgs>("PostgreSQL");
        shared.add::<RedisArgs>("Redis");
        shared.add::<AuthArgs>("Tokens");
        shared.add::<SigningArgs>("Secret that signs tokens");
        shared.add::<TokenArgs>("Token of a client");
        shared.add::<TlsArgs>("TLS of the listeners");
        shared.add::<ClientCaArgs>("Certificates of clients");
        shared.add::<AdminArgs>("Probes and metrics");
        shared.add::<AccessLogArgs>("Access log");
        shared.add::<UserLimitArgs>("Limits of each user");
        shared.add::<BrowserArgs>("Pages of other origins");
        shared.add::<ServerArgs>("Server of the API");
        shared.add::<AttemptArgs>("Attempts");
        shared.add::<ProcessingArgs>("Processing");
        shared.add::<ActArgs>("Audit log");
        shared.add::<UserArchiveArgs>("Archive of a user");
        shared.add::<ReloadArgs>("Reload during development");
        shared
    }

    /// Adds those flags that no group before has: some groups contain others.
    fn add<A: Args>(&mut self, heading: &'static str) {
        let group = A::augment_args(Command::new(heading));
        let rows = arguments(&group).map(row).filter(|row| self.heading(row).is_none()).collect();
        self.0.push((heading, rows));
    }

    fn heading(&self, row: &Row) -> Option<&'static str> {
        self.0.iter().find(|(_, rows)| rows.contains(row)).map(|(heading, _)| *heading)
    }

    fn page(&self) -> Page {
        let mut text =
            "The flags that several commands have. The page of a command names the groups that it has.\n".to_owned();
        for (heading, rows) in &self.0 {
            let mut table = Table::new(&COLUMNS);
            rows.iter().for_each(|row| table.row(&row.each_ref().map(String::as_str)));
            text.push_str(&format!("\n## {heading}\n\n{}", table.0));
        }
        Page { path: "commands/shared-flags.md".into(), title: "Shared flags".into(), text }
    }
}

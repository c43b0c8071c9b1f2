//! `pulse why`: why a task waits or how it ended, what to do, and its timeline.

use anyhow::bail;
use clap::Args;
use pulse_explain::{Explanation, Found, Reason, Timeline, explain, gather, timeline};

use crate::args::{DatabaseArgs, InstanceArgs, RedisArgs};
use crate::output::{print_json, print_line, print_table};

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Id of an event, a task, a request (X-Request-Id) or a trace (32 hexadecimal digits, or a whole traceparent)
    id: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

pub(crate) async fn run(WhyArgs { id, json, instance, database, redis }: WhyArgs) -> anyhow::Result<()> {
    let (store, queue) = (database.connect("why")?, redis.connect(&instance.instance)?);
    let Some(found) = gather(&store, &queue, &id).await? else {
        bail!(
            "nothing has the id `{id}`: the request was refused, so that the log of the API has its id, or the user was deleted"
        );
    };
    let (explanation, timeline) = (explain(&found.facts), timeline(&found.facts));
    if json {
        return print_json(&serde_json::json!({
            "named": found.matched,
            "others": found.others,
            "task": found.facts.task.task,
            "explanation": explanation,
            "timeline": timeline,
        }));
    }
    print_text(&found, &explanation, &timeline)
}

fn print_text(found: &Found, explanation: &Explanation, timeline: &Timeline) -> anyhow::Result<()> {
    let task = &found.facts.task.task;
    print_line(&format!("task {} is {}", task.id, task.state))?;
    let Explanation { reason: Reason { sentence, advice, .. }, also } = explanation;
    print_line("")?;
    print_line(sentence)?;
    print_line(&format!("To do: {advice}"))?;
    also.iter().try_for_each(|reason| print_line(&format!("Also: {}", reason.sentence)))?;
    print_line("")?;
    let Timeline { request_id, trace_id, user, .. } = timeline;
    for (name, value) in [("user", user), ("request", request_id), ("trace", trace_id)] {
        print_line(&format!("{name:8} {}", value.as_deref().unwrap_or("-")))?;
    }
    print_line("")?;
    let rows =
        timeline.steps.iter().map(|step| vec![step.at.to_rfc3339(), step.kind.as_str().into(), step.text.clone()]);
    print_table(&["TIME", "STEP", "WHAT"], &rows.collect::<Vec<_>>())?;
    if !found.others.is_empty() {
        let others: Vec<String> = found.others.iter().map(ToString::to_string).collect();
        print_line("")?;
        print_line(&format!("Other tasks with this id, the newest first: {}", others.join(" ")))?;
    }
    Ok(())
}

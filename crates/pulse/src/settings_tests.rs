//! Compares the settings of the pods, which the operator makes of a `PulseIngest`, with the flags of the roles.

use std::collections::BTreeMap;

use clap::{Arg, Command, CommandFactory};
use pulse_crd::{PulseIngest, PulseIngestSpec};
use pulse_reconcile::desired::{Inputs, JobKind, JobRequest, resources};
use pulse_reconcile::revision;
use serde_json::{Value, json};

use crate::args::duration;
use crate::cli::Cli;

/// Variables that differ from the flag's default on purpose.
const OF_THE_CLUSTER: [&str; 2] = ["PULSE_INSTANCE", "PULSE_LOG_FORMAT"];

/// A `PulseIngest` with every optional reference, and otherwise with the defaults.
fn pulse_ingest(auth: Value) -> PulseIngest {
    let ca = json!({ "name": "ca" });
    let spec = json!({
        "image": { "repository": "example.com/pulse", "tag": "1.0.0" },
        "database": { "urlSecretRef": { "name": "database" }, "caSecretRef": ca },
        "redis": { "urlSecretRef": { "name": "redis" }, "caSecretRef": ca },
        "auth": auth,
        "console": { "enabled": true },
    });
    let spec: PulseIngestSpec = serde_json::from_value(spec).expect("a valid spec");
    let mut cr = PulseIngest::new("main", spec);
    cr.metadata.namespace = Some("shop".into());
    cr
}

/// The pod of each subcommand, as JSON.
fn pods(cr: &PulseIngest) -> Vec<(String, Value)> {
    let revision = revision::desired(&cr.spec);
    let args = vec!["migrate".to_owned()];
    let job = JobRequest { name: "main-migrate".into(), kind: JobKind::Migrate, revision: revision.clone(), args };
    let inputs = Inputs { revision: Some(&revision), secrets: BTreeMap::new(), job: Some(&job), dev_reload: None };
    let objects = resources(cr, &inputs);
    let deployments = objects.deployments.iter().map(|(_, deployment)| serde_json::to_value(deployment));
    let objects = deployments.chain(objects.migration.iter().map(serde_json::to_value));
    let pods = objects.map(|object| object.expect("prints")["spec"]["template"]["spec"].clone());
    pods.map(|pod| (pod["containers"][0]["args"][0].as_str().expect("a subcommand").to_owned(), pod)).collect()
}

fn flag<'a>(cli: &'a Command, command: &str, variable: &str) -> Option<&'a Arg> {
    let command = cli.find_subcommand(command).expect("a subcommand of pulse");
    // The flags of logging are global.
    command
        .get_arguments()
        .chain(cli.get_arguments())
        .find(|argument| argument.get_env().is_some_and(|name| name == variable))
}

/// Equal for `60s`, `1m` and `60`.
fn normalised(text: &str) -> String {
    duration(text).map_or_else(|_| text.to_owned(), |duration| format!("{duration:?}"))
}

#[test]
fn variables_of_pods_are_flags_with_the_defaults_of_the_spec() {
    let cli = Cli::command();
    let public_key = json!({ "publicKeySecretRef": { "name": "auth", "key": "public.pem" } });
    let secret = json!({
        "jwtSecretRef": { "name": "auth", "key": "secret" }, "issuer": "https://example.com", "audience": "pulse",
    });
    let mut compared = 0;
    for (command, pod) in [public_key, secret].into_iter().flat_map(|auth| pods(&pulse_ingest(auth))) {
        for variable in pod["containers"][0]["env"].as_array().expect("variables") {
            let name = variable["name"].as_str().expect("a name");
            let flag = flag(&cli, &command, name).unwrap_or_else(|| {
                panic!("the operator sets {name} for `pulse {command}`, which has no flag with this variable")
            });
            let (Some(value), [default]) = (variable["value"].as_str(), flag.get_default_values()) else { continue };
            if OF_THE_CLUSTER.contains(&name) {
                continue;
            }
            let default = default.to_str().expect("UTF-8");
            assert_eq!(
                normalised(value),
                normalised(default),
                "{name} is {value} in the pods of a PulseIngest with defaults, but the default of `pulse {command} --{}` \
                 is {default}: let both refer to one constant of pulse_core::defaults",
                flag.get_id(),
            );
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} variables have been compared");
}

#[test]
fn pods_probe_and_expose_the_default_ports_of_their_role() {
    let cli = Cli::command();
    let secret = json!({ "jwtSecretRef": { "name": "auth", "key": "secret" } });
    for (command, pod) in pods(&pulse_ingest(secret)) {
        for port in pod["containers"][0]["ports"].as_array().into_iter().flatten() {
            let variable = match (port["name"].as_str(), command.as_str()) {
                (Some("admin"), _) => "PULSE_ADMIN_LISTEN",
                (_, "console") => "PULSE_CONSOLE_LISTEN",
                _ => "PULSE_LISTEN",
            };
            let flag = flag(&cli, &command, variable).expect("a flag");
            let address = flag.get_default_values()[0].to_str().expect("UTF-8");
            assert!(address.ends_with(&format!(":{}", port["containerPort"])), "pulse {command}: {port}, {address}");
        }
    }
}

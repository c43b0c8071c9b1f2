//! Names the Job that runs next, by a hash of all its inputs.

use kube_core::ResourceExt;
use pulse_crd::names::short_hash;
use pulse_crd::{DatabaseSpec, MigrationPolicy, MigrationsSpec, MigrationsStatus, PulseIngest, Revision};

use crate::desired::{JobKind, JobRequest};

/// Returns the Job that the policy requires next, given what the status records about earlier ones, and the name of the
/// Job before it.
pub(super) fn next_request(
    cr: &PulseIngest,
    desired: &Revision,
    url_digest: &str,
    known: &MigrationsStatus,
) -> (JobRequest, String) {
    let MigrationsSpec { policy, approved_plan, allow_destructive, trigger, .. } = &cr.spec.migrations;
    let DatabaseSpec { serving_role, read_role, .. } = &cr.spec.database;
    let role = |(name, role): (&str, &Option<String>)| Some(format!("{name}={}", role.as_deref()?));
    let roles: Vec<String> =
        [("serving-role", serving_role), ("read-role", read_role)].into_iter().filter_map(role).collect();
    let name = |kind: JobKind, args: &[&str], after: &str| {
        let key = cr.spec.database.migration_url();
        let inputs = [kind.verb(), &desired.image, &key.name, &key.key, trigger.as_deref().unwrap_or(""), url_digest];
        let after = Some(after).filter(|after| !after.is_empty());
        let roles = roles.iter().map(String::as_str);
        let hash = short_hash(inputs.into_iter().chain(roles).chain(args.iter().copied()).chain(after));
        format!("{}-{}-{hash}", cr.name_any(), kind.verb())
    };
    let request = |kind: JobKind, args: Vec<&str>| {
        // It is either the Job that the status describes, or the successor of that Job.
        let same = name(kind, &args, &known.after) == known.job_name;
        let after = if same { &known.after } else { &known.job_name };
        let name = name(kind, &args, after);
        let args = args.into_iter().map(str::to_owned).collect();
        (JobRequest { name, kind, revision: desired.clone(), args }, after.clone())
    };
    let mut migrate = vec!["migrate"];
    if *allow_destructive {
        migrate.push("--allow-destructive");
    }
    let plan = request(JobKind::Plan, vec!["migrate", "--plan"]);
    match policy {
        MigrationPolicy::Auto => request(JobKind::Migrate, migrate),
        MigrationPolicy::Manual => plan,
        MigrationPolicy::Plan => match approved_plan {
            Some(hash) if known.plan_hash.as_ref() == Some(hash) => {
                migrate.extend(["--expect-plan", hash]);
                let approved = request(JobKind::Migrate, migrate);
                // The approval of a plan with other inputs does not apply to these inputs.
                if [&plan.0.name, &approved.0.name].contains(&&known.job_name) { approved } else { plan }
            }
            _ => plan,
        },
    }
}

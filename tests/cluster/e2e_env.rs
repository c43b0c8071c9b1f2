//! A namespace of the cluster with the Secrets' values of an instance, and the commands of a user who works in it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use pulse_tests::cluster::Access;
use pulse_tests::{check_ledger, eventually, repository, run};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, Helm, TIMEOUT};
use crate::datastores::{Database, Datastores, redis_url};

/// A namespace with Pod Security level `restricted`, and a database for one instance.
pub(crate) struct E2eEnv {
    pub(crate) namespace: String,
    pub(crate) database: Database,
    pub(crate) datastore_ca: &'static str,
    cluster: &'static Cluster,
    helm: Helm,
    /// Administrator whose kubeconfig context has this namespace.
    access: Access,
    folder: TempDir,
}

/// The API, reachable from outside the cluster.
pub(crate) struct ExternalApi {
    pub(crate) url: String,
    token: String,
}

/// URLs for the Secrets of an instance.
pub(crate) struct Urls {
    pub(crate) database: String,
    pub(crate) redis: String,
}

impl E2eEnv {
    /// Creates the namespace and an empty database.
    pub(crate) async fn start(namespace: &str, helm: Helm) -> anyhow::Result<Self> {
        let cluster = Cluster::get().await?;
        let datastores = Datastores::get(cluster).await?;
        let database = datastores.database(cluster, &namespace.replace('-', "_")).await?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::copy(cluster.admin().kubeconfig(), &kubeconfig)?;
        let access = Access::read(kubeconfig).await?;
        let env = Self {
            namespace: namespace.to_owned(),
            database,
            datastore_ca: &datastores.ca,
            cluster,
            helm,
            access,
            folder,
        };
        env.shell(&format!("kubectl config set-context --current --namespace={namespace}")).await?;
        env.shell(&format!(
            "kubectl create namespace {namespace}
             kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=restricted"
        ))
        .await?;
        Ok(env)
    }

    /// URLs of the datastores for pods of this namespace.
    pub(crate) fn urls(&self, redis_database: u8, tls: bool) -> Urls {
        Urls { database: self.database.url(tls), redis: redis_url(redis_database, tls) }
    }

    /// Path of the folder with the programs that commands find.
    pub(crate) fn programs(&self) -> &str {
        self.cluster.programs()
    }

    /// Loads an image from an archive into the cluster.
    pub(crate) async fn load_image(&self, archive: PathBuf) -> anyhow::Result<()> {
        self.cluster.load_image(&archive).await
    }

    /// Runs a shell script in the repository and returns its output. The error includes the state of the namespace.
    pub(crate) async fn shell(&self, script: &str) -> anyhow::Result<String> {
        match run(&mut self.command(script)?).await {
            Ok(printed) => Ok(printed),
            Err(error) => Err(error.context(script.to_owned()).context(self.describe().await)),
        }
    }

    /// Runs the commands below a heading of README, with the placeholders replaced by their values.
    pub(crate) async fn run_readme_section(
        &self,
        heading: &str,
        placeholders: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        self.shell(&commands("README.md", heading, placeholders)?).await
    }

    fn command(&self, script: &str) -> anyhow::Result<Command> {
        let mut command = self.cluster.command(self.helm, script)?;
        command.env("KUBECONFIG", self.access.kubeconfig());
        Ok(command)
    }

    /// Waits for a condition. The error includes the state of the namespace.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        condition: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        match eventually(what, TIMEOUT, condition).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.describe().await)),
        }
    }

    async fn describe(&self) -> String {
        let script = "kubectl get pulseingests,deployments,jobs,pods -o wide 2>&1 || true
            kubectl get pulseingests -o jsonpath='{.items[*].status.conditions}' 2>&1 || true
            kubectl get events --sort-by=.metadata.creationTimestamp 2>&1 | tail -40 || true";
        let Ok(mut command) = self.command(script) else { return String::new() };
        run(&mut command).await.unwrap_or_else(|error| error.to_string())
    }

    /// Runs `kubectl get WHAT -o jsonpath=PATH`.
    pub(crate) async fn get_jsonpath(&self, what: &str, path: &str) -> anyhow::Result<String> {
        self.shell(&format!("kubectl get {what} -o jsonpath='{path}'")).await
    }

    /// `status/reason` of a condition of `main`; empty if there is no such condition.
    pub(crate) async fn condition(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("{{range .status.conditions[?(@.type==\"{name}\")]}}{{.status}}/{{.reason}}{{end}}");
        self.get_jsonpath("pulseingest main", &path).await
    }

    /// Sorted UIDs of the pods of `main`, without those of Jobs.
    pub(crate) async fn pod_uids(&self) -> anyhow::Result<Vec<String>> {
        let of_main = "pods -l app.kubernetes.io/instance=main,app.kubernetes.io/component!=migration";
        let path = r#"{range .items[*]}{.metadata.deletionTimestamp}{"|"}{.metadata.uid}{"\n"}{end}"#;
        let pods = self.get_jsonpath(of_main, path).await?;
        // A worker that was removed before may still drain.
        let mut uids: Vec<String> = pods.lines().filter_map(|line| line.strip_prefix('|')).map(str::to_owned).collect();
        uids.sort();
        Ok(uids)
    }

    /// Exposes the API of `main` by a NodePort and issues a token for it.
    pub(crate) async fn expose_api(&self) -> anyhow::Result<ExternalApi> {
        let expose = "kubectl expose service main-api --name=outside --labels=made-by=ada --type=NodePort --port=8000";
        self.shell(expose).await?;
        let port = self.get_jsonpath("service outside", "{.spec.ports[0].nodePort}").await?;
        let address = r#"{.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
        let url = format!("http://{}:{port}", self.get_jsonpath("nodes", address).await?);
        let token = self.shell("kubectl exec deploy/main-api -- /pulse token issue --user ada").await?;
        Ok(ExternalApi { url, token: token.trim().to_owned() })
    }

    /// Starts `pulse load`, which records the accepted events in a ledger.
    pub(crate) fn load(&self, api: &ExternalApi, args: &str) -> anyhow::Result<Child> {
        let script = format!("exec pulse load --json --url {} --ledger {} {args}", api.url, self.ledger().display());
        let mut command = self.command(&script)?;
        Ok(command.env("PULSE_TOKEN", &api.token).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?)
    }

    /// Posts one event with `curl`, and waits until it is processed.
    pub(crate) async fn post_event(&self, api: &ExternalApi) -> anyhow::Result<()> {
        let ExternalApi { url, token } = api;
        let curl = format!("curl -sS --fail-with-body -H 'Authorization: Bearer {token}'");
        let event = r#"{"event_name":"page_view","event_type":"engagement"}"#;
        let post = format!("{curl} -H 'Content-Type: application/json' -d '{event}' {url}/api/v1/events");
        let answer: Value = serde_json::from_str(&self.shell(&post).await?)?;
        assert_eq!(answer["status"], "enqueued", "{answer}");
        let read = format!("{curl} {url}/api/v1/events/{}", answer["event_id"]);
        let processed = async || Ok(serde_json::from_str::<Value>(&self.shell(&read).await?)?["processed"] == true);
        self.wait_for("the event is processed", processed).await
    }

    /// Name of a pod of a role.
    pub(crate) async fn pod_name(&self, role: &str) -> anyhow::Result<String> {
        let of_role = format!("pods -l app.kubernetes.io/instance=main,app.kubernetes.io/component={role}");
        self.get_jsonpath(&of_role, "{.items[0].metadata.name}").await
    }

    /// Waits until the current operator has reconciled the current generation of `main`.
    pub(crate) async fn wait_until_reconciled(&self) -> anyhow::Result<()> {
        self.shell("kubectl annotate pulseingest main --overwrite reconcile-at=\"$(date +%s%N)\"").await?;
        let reconciled = async || {
            let seen =
                self.get_jsonpath("pulseingest main", "{.metadata.generation} {.status.observedGeneration}").await?;
            let (wanted, observed) = seen.split_once(' ').context("two numbers")?;
            // A missing condition counts as false.
            Ok(wanted == observed && !self.condition("Reconciling").await?.starts_with("True/"))
        };
        self.wait_for("the operator has reconciled main", reconciled).await
    }

    /// Permissions of a service account of this namespace in a namespace, as `resource.group/subresource verb`.
    pub(crate) async fn permissions(&self, account: &str, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
        let account = format!("system:serviceaccount:{}:{account}", self.namespace);
        let listed = self.shell(&format!("kubectl auth can-i --list --as={account} -n {namespace}")).await?;
        let mut permissions = BTreeSet::new();
        for line in listed.lines().skip(1) {
            let verbs = line.rsplit_once('[').map_or("", |(_, verbs)| verbs.trim_end().trim_end_matches(']'));
            let what = line.split_whitespace().next().unwrap_or_default();
            permissions.extend(verbs.split_whitespace().map(|verb| format!("{what} {verb}")));
        }
        Ok(permissions)
    }

    /// Waits until the PulseIngest `main` and all its dependents are deleted.
    pub(crate) async fn wait_until_deleted(&self) -> anyhow::Result<()> {
        let children = "kubectl get pulseingests,deployments,services,jobs,serviceaccounts,poddisruptionbudgets,pods \
            -l app.kubernetes.io/instance=main -o name";
        let none = async || Ok(self.shell(children).await?.trim().is_empty());
        self.wait_for("main and its dependents are deleted", none).await
    }

    /// Removes the CRD, the operator's cluster roles, this namespace and the operator's, so that the next test starts clean.
    pub(crate) async fn tear_down(&self) -> anyhow::Result<()> {
        self.shell(&format!(
            "kubectl delete crd pulseingests.pulseboard.dev --timeout=1m
             kubectl delete clusterroles,clusterrolebindings --selector app.kubernetes.io/name=pulse-operator
             kubectl delete --ignore-not-found --timeout=2m namespace pulse-system {}",
            self.namespace
        ))
        .await
        .map(drop)
    }

    /// Writes a file to this test's folder and returns its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// Waits until all tasks are settled and checks the ledger against the database. Returns the number of accepted
    /// events.
    pub(crate) async fn check_nothing_lost(&self) -> anyhow::Result<usize> {
        let settled = async || Ok(self.database.number("SELECT count(*) FROM tasks").await? == 0);
        self.wait_for("every task is settled", settled).await?;
        check_ledger(&self.database.pool, &self.ledger()).await
    }
}

/// The commands below a heading of a page, with the placeholders replaced by their values.
pub(crate) fn commands(page: &str, heading: &str, placeholders: &[(&str, &str)]) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(repository().join(page))?;
    let (_, section) = text.split_once(&format!("\n{heading}\n")).with_context(|| format!("no {heading}"))?;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let section = section.split_once("\n### ").map_or(section, |(section, _)| section);
    // Between fences is code in other languages.
    let text = section.split("```").step_by(2);
    let lines = text.flat_map(str::lines).filter_map(|line| line.strip_prefix("    "));
    let mut script: String = lines.map(|line| format!("{line}\n")).collect();
    anyhow::ensure!(!script.is_empty(), "no commands below {heading}");
    for (placeholder, value) in placeholders {
        anyhow::ensure!(script.contains(placeholder), "{heading} has no placeholder {placeholder}");
        script = script.replace(placeholder, value);
    }
    Ok(script)
}

/// Waits for the end of a load run. Returns the number of accepted events and the refused requests by status code.
pub(crate) async fn report(load: Child) -> anyhow::Result<(u64, Value)> {
    let report = pulse_tests::report(load).await?;
    Ok((report["accepted_events"].as_u64().context("a count")?, report["refused"].clone()))
}

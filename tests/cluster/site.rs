//! A namespace of the cluster with what an ingest needs, and a person who works in it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use pulse_tests::cluster::Access;
use pulse_tests::{check_ledger, eventually, repository, run};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, Helm, SOON};
use crate::datastores::{Database, Datastores, redis_url};

/// A namespace that takes restricted pods alone, with an ingest's database.
pub(crate) struct E2eEnv {
    pub(crate) namespace: String,
    pub(crate) database: Database,
    pub(crate) authority: &'static str,
    cluster: &'static Cluster,
    helm: Helm,
    /// Of a person whose context is this namespace.
    access: Access,
    folder: TempDir,
}

/// The API, from outside.
pub(crate) struct Outside {
    pub(crate) url: String,
    token: String,
}

/// What an ingest's Secrets have to say.
pub(crate) struct Urls {
    pub(crate) database: String,
    pub(crate) redis: String,
}

impl E2eEnv {
    /// Makes the namespace, and an empty database.
    pub(crate) async fn start(namespace: &str, helm: Helm) -> anyhow::Result<Self> {
        let cluster = Cluster::get().await?;
        let datastores = Datastores::get(cluster).await?;
        let database = datastores.database(cluster, &namespace.replace('-', "_")).await?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::copy(cluster.admin().kubeconfig(), &kubeconfig)?;
        let access = Access::read(kubeconfig).await?;
        let site = Self {
            namespace: namespace.to_owned(),
            database,
            authority: &datastores.authority,
            cluster,
            helm,
            access,
            folder,
        };
        site.types(&format!("kubectl config set-context --current --namespace={namespace}")).await?;
        site.types(&format!(
            "kubectl create namespace {namespace}
             kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=restricted"
        ))
        .await?;
        Ok(site)
    }

    /// Where the pods of this site find their datastores.
    pub(crate) fn urls(&self, redis_database: u8, tls: bool) -> Urls {
        Urls { database: self.database.url(tls), redis: redis_url(redis_database, tls) }
    }

    /// The folder of the programs that this person has.
    pub(crate) fn programs(&self) -> &str {
        self.cluster.programs()
    }

    /// Loads one more image.
    pub(crate) async fn load_image(&self, archive: PathBuf) -> anyhow::Result<()> {
        self.cluster.load_image(&archive).await
    }

    /// What a person types in the repository; everything that it printed.
    pub(crate) async fn types(&self, script: &str) -> anyhow::Result<String> {
        match run(&mut self.command(script)?).await {
            Ok(printed) => Ok(printed),
            Err(error) => Err(error.context(script.to_owned()).context(self.describe().await)),
        }
    }

    /// Runs the blocks of commands below a heading of README, word for word but for what stands for something.
    pub(crate) async fn follows_readme(&self, heading: &str, stands_for: &[(&str, &str)]) -> anyhow::Result<String> {
        let readme = std::fs::read_to_string(repository().join("README.md"))?;
        let (_, section) = readme.split_once(&format!("\n{heading}\n")).with_context(|| format!("no {heading}"))?;
        let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
        let section = section.split_once("\n### ").map_or(section, |(section, _)| section);
        let mut script: String =
            section.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect();
        anyhow::ensure!(!script.is_empty(), "no commands below {heading}");
        for (placeholder, value) in stands_for {
            anyhow::ensure!(script.contains(placeholder), "{heading} does not say {placeholder}");
            script = script.replace(placeholder, value);
        }
        self.types(&script).await
    }

    fn command(&self, script: &str) -> anyhow::Result<Command> {
        let mut command = self.cluster.command(self.helm, script)?;
        command.env("KUBECONFIG", self.access.kubeconfig());
        Ok(command)
    }

    /// Waits; if it is in vain, says what there is.
    pub(crate) async fn soon(
        &self,
        what: &str,
        condition: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        match eventually(what, SOON, condition).await {
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

    /// The first output of `kubectl get … -o jsonpath`.
    pub(crate) async fn get(&self, what: &str, path: &str) -> anyhow::Result<String> {
        self.types(&format!("kubectl get {what} -o jsonpath='{path}'")).await
    }

    /// `status/reason` of a condition of `main`.
    pub(crate) async fn condition(&self, name: &str) -> anyhow::Result<String> {
        let path = format!("{{range .status.conditions[?(@.type==\"{name}\")]}}{{.status}}/{{.reason}}{{end}}");
        self.get("pulseingest main", &path).await
    }

    /// The UIDs of the pods of `main`, Jobs' aside, sorted.
    pub(crate) async fn pods(&self) -> anyhow::Result<Vec<String>> {
        let of_main = "pods -l app.kubernetes.io/instance=main,app.kubernetes.io/component!=migration";
        let uids = self.get(of_main, r#"{range .items[*]}{.metadata.uid}{"\n"}{end}"#).await?;
        let mut uids: Vec<String> = uids.lines().map(str::to_owned).collect();
        uids.sort();
        Ok(uids)
    }

    /// Makes the API of `main` reachable from outside, with a token of its administrator's.
    pub(crate) async fn open(&self) -> anyhow::Result<Outside> {
        let expose = "kubectl expose service main-api --name=outside --labels=made-by=ada --type=NodePort --port=8000";
        self.types(expose).await?;
        let port = self.get("service outside", "{.spec.ports[0].nodePort}").await?;
        let address = r#"{.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
        let url = format!("http://{}:{port}", self.get("nodes", address).await?);
        let token = self.types("kubectl exec deploy/main-api -- /pulse token issue --user ada").await?;
        Ok(Outside { url, token: token.trim().to_owned() })
    }

    /// Starts `pulse load`, which keeps the promises in a ledger.
    pub(crate) fn load(&self, api: &Outside, args: &str) -> anyhow::Result<Child> {
        let script = format!("exec pulse load --json --url {} --ledger {} {args}", api.url, self.ledger().display());
        let mut command = self.command(&script)?;
        Ok(command.env("PULSE_TOKEN", &api.token).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?)
    }

    /// Posts one event with `curl`, and waits until it is processed.
    pub(crate) async fn first_event(&self, api: &Outside) -> anyhow::Result<()> {
        let Outside { url, token } = api;
        let curl = format!("curl -sS --fail-with-body -H 'Authorization: Bearer {token}'");
        let event = r#"{"event_name":"page_view","event_type":"engagement"}"#;
        let post = format!("{curl} -H 'Content-Type: application/json' -d '{event}' {url}/api/v1/events");
        let answer: Value = serde_json::from_str(&self.types(&post).await?)?;
        assert_eq!(answer["status"], "enqueued", "{answer}");
        let read = format!("{curl} {url}/api/v1/events/{}", answer["event_id"]);
        let processed = async || Ok(serde_json::from_str::<Value>(&self.types(&read).await?)?["processed"] == true);
        self.soon("the event is processed", processed).await
    }

    /// A pod of a role that is ready.
    pub(crate) async fn pod_of(&self, role: &str) -> anyhow::Result<String> {
        let of_role = format!("pods -l app.kubernetes.io/instance=main,app.kubernetes.io/component={role}");
        self.get(&of_role, "{.items[0].metadata.name}").await
    }

    /// Waits until the operator that runs now has looked at `main` as it is now.
    pub(crate) async fn resynced(&self) -> anyhow::Result<()> {
        self.types("kubectl annotate pulseingest main --overwrite looked-at=\"$(date +%s%N)\"").await?;
        let settled = async || {
            let seen = self.get("pulseingest main", "{.metadata.generation} {.status.observedGeneration}").await?;
            let (wanted, observed) = seen.split_once(' ').context("two numbers")?;
            // A condition that is not there is not so.
            Ok(wanted == observed && !self.condition("Reconciling").await?.starts_with("True/"))
        };
        self.soon("the operator has looked", settled).await
    }

    /// What a service account of this namespace may do in a namespace: `resource.group/subresource verb`.
    pub(crate) async fn rights(&self, account: &str, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
        let account = format!("system:serviceaccount:{}:{account}", self.namespace);
        let listed = self.types(&format!("kubectl auth can-i --list --as={account} -n {namespace}")).await?;
        let mut rights = BTreeSet::new();
        for line in listed.lines().skip(1) {
            let verbs = line.rsplit_once('[').map_or("", |(_, verbs)| verbs.trim_end().trim_end_matches(']'));
            let what = line.split_whitespace().next().unwrap_or_default();
            rights.extend(verbs.split_whitespace().map(|verb| format!("{what} {verb}")));
        }
        Ok(rights)
    }

    /// Waits until nothing of `main` is left; its object is not.
    pub(crate) async fn gone(&self) -> anyhow::Result<()> {
        let children = "kubectl get pulseingests,deployments,services,jobs,serviceaccounts,poddisruptionbudgets,pods \
            -l app.kubernetes.io/instance=main -o name";
        let none = async || Ok(self.types(children).await?.trim().is_empty());
        self.soon("nothing is left of it", none).await
    }

    /// Removes the CRD and the namespaces, the operator's too, for whoever is next.
    pub(crate) async fn end(&self) -> anyhow::Result<()> {
        let end = "kubectl delete crd pulseingests.pulseboard.dev --timeout=1m && kubectl delete --ignore-not-found";
        self.types(&format!("{end} --timeout=2m namespace pulse-system {}", self.namespace)).await.map(drop)
    }

    /// Writes a file of the person's.
    pub(crate) fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// Waits until nothing is owed; then holds the ledger against the database. Returns how many events were promised.
    pub(crate) async fn nothing_is_lost(&self) -> anyhow::Result<usize> {
        let owed = async || Ok(self.database.number("SELECT count(*) FROM tasks").await? == 0);
        self.soon("nothing is owed", owed).await?;
        check_ledger(&self.database.pool, &self.ledger()).await
    }
}

/// What a load run accepted and refused.
pub(crate) async fn report(load: Child) -> anyhow::Result<(u64, Value)> {
    let report = pulse_tests::report(load).await?;
    Ok((report["accepted_events"].as_u64().context("a count")?, report["refused"].clone()))
}

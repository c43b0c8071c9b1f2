//! PostgreSQL and Redis in the cluster, shared by the installations of all tests.

use std::process::Stdio;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, Helm};

/// Namespace of the datastores.
pub(crate) const NAMESPACE: &str = "data";

/// Datastores of this test binary's cluster.
pub(crate) struct Datastores {
    /// CA certificate of both servers, as PEM.
    pub(crate) ca: String,
}

/// Database of one instance, with a connection from the host.
pub(crate) struct Database {
    name: String,
    /// Connections from the host, through `kubectl port-forward`.
    pub(crate) pool: PgPool,
    _forward: Child,
}

impl Datastores {
    /// Datastores of the cluster. Started at the first call.
    pub(crate) async fn get(cluster: &Cluster) -> anyhow::Result<&'static Self> {
        static DATASTORES: OnceCell<Datastores> = OnceCell::const_new();
        DATASTORES.get_or_try_init(async || Self::start(cluster).await).await
    }

    async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ca = write_certificates(&folder)?;
        let apply = format!(
            "kubectl create namespace {NAMESPACE}
             kubectl label namespace {NAMESPACE} pod-security.kubernetes.io/enforce=restricted
             kubectl -n {NAMESPACE} create secret tls datastores --cert={folder}/tls.crt --key={folder}/tls.key
             kubectl -n {NAMESPACE} apply -f tests/cluster/datastores.yaml
             kubectl -n {NAMESPACE} rollout status statefulset/postgres --timeout=2m
             kubectl -n {NAMESPACE} rollout status statefulset/redis --timeout=2m",
            folder = folder.path().display()
        );
        cluster.shell(Helm::Four, &apply).await?;
        Ok(Self { ca })
    }

    /// Creates an empty database.
    pub(crate) async fn database(&self, cluster: &Cluster, name: &str) -> anyhow::Result<Database> {
        let create = format!("kubectl -n {NAMESPACE} exec postgres-0 -- psql -U postgres -c");
        cluster.shell(Helm::Four, &format!("{create} 'CREATE DATABASE {name}'")).await?;
        let mut forward: Command = cluster
            .command(Helm::Four, &format!("exec kubectl -n {NAMESPACE} port-forward statefulset/postgres :5432"))?;
        let mut forward = forward.stdout(Stdio::piped()).spawn()?;
        // Forwarding from 127.0.0.1:40000 -> 5432
        let mut lines = BufReader::new(forward.stdout.take().context("its output")?).lines();
        let line = lines.next_line().await?.context("kubectl port-forward prints its address")?;
        let address = line.split_whitespace().nth(2).context("an address")?;
        let url = format!("postgres://postgres:not-a-secret@{address}/{name}?sslmode=disable");
        let pool = PgPoolOptions::new().max_connections(2).connect_lazy(&url)?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Database { name: name.to_owned(), pool, _forward: forward })
    }
}

impl Database {
    /// URL for pods: with TLS and a verified server, or without TLS.
    pub(crate) fn url(&self, tls: bool) -> String {
        let mode = if tls { "verify-full" } else { "disable" };
        format!("postgres://postgres:not-a-secret@postgres.{NAMESPACE}.svc:5432/{}?sslmode={mode}", self.name)
    }

    /// Runs a query and returns the `bigint` in its first row and column.
    pub(crate) async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&self.pool).await?)
    }
}

/// URL of Redis for pods. Each instance has a separate database `number`.
pub(crate) fn redis_url(number: u8, tls: bool) -> String {
    let (scheme, port) = if tls { ("rediss", 6380) } else { ("redis", 6379) };
    format!("{scheme}://redis.{NAMESPACE}.svc:{port}/{number}")
}

/// Writes `tls.crt` and `tls.key` for both servers and returns the CA certificate.
fn write_certificates(folder: &TempDir) -> anyhow::Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let names = ["postgres", "redis"].map(|name| format!("{name}.{NAMESPACE}.svc"));
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    std::fs::write(folder.path().join("tls.crt"), certificate.pem())?;
    std::fs::write(folder.path().join("tls.key"), key.serialize_pem())?;
    Ok(authority.pem())
}

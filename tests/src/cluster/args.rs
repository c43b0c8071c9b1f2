//! Command-line arguments of the control plane's programs.

use std::path::Path;

use super::server::Folder;
use crate::pki::{Authority, token_keys};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Addresses of Services. They are not routed here; the range is large enough for thousands of Services.
const SERVICES: &str = "10.0.0.0/16";
const FIRST_SERVICE: &str = "10.0.0.1";

/// The audit log omits the requests of the cluster's own components.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        { "level": "None", "users": ["system:apiserver", "system:kube-controller-manager"] },
        { "level": "None", "userGroups": ["system:serviceaccounts:kube-system"] },
        { "level": "Metadata" }
    ]
}"#;

/// Only the controllers whose results an operator can observe. The others cost memory and have nothing to do.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,statefulset-controller,job-controller,\
    garbage-collector-controller,namespace-controller,serviceaccount-controller,ttl-after-finished-controller,\
    root-ca-certificate-publisher-controller,disruption-controller,endpointslice-controller";

pub(super) fn etcd(folder: &Folder, port: u16, peer_port: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    vec![
        format!("--data-dir={}", folder.path().join("etcd").display()),
        // The data does not outlive the test, so it need not reach a disk.
        "--unsafe-no-fsync".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".into(),
    ]
}

pub(super) fn api_server(
    folder: &Folder,
    authority: &Authority,
    etcd_port: u16,
    port: u16,
) -> anyhow::Result<Vec<String>> {
    let names = ["localhost", "kubernetes.default.svc", "127.0.0.1", FIRST_SERVICE];
    let (server, front) = (authority.server(&names)?, authority.client("front-proxy-client", None)?);
    let ca = folder.write("ca.crt", &authority.pem())?;
    let (signing, checking) = token_keys()?;
    Ok(vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        // The endpoints of Service `kubernetes` may not be loopback addresses, and no client here needs them.
        "--endpoint-reconciler-type=none".into(),
        format!("--tls-cert-file={}", folder.write("server.crt", &server.certificate)?),
        format!("--tls-private-key-file={}", folder.write("server.key", &server.key)?),
        format!("--client-ca-file={ca}"),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", folder.write("tokens.pub", &checking)?),
        format!("--service-account-signing-key-file={}", folder.write("tokens.key", &signing)?),
        // Without these, controllers log errors continuously.
        format!("--requestheader-client-ca-file={ca}"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", folder.write("front.crt", &front.certificate)?),
        format!("--proxy-client-key-file={}", folder.write("front.key", &front.key)?),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged=true".into(),
        format!("--audit-policy-file={}", folder.write("audit-policy.json", AUDIT_POLICY)?),
        format!("--audit-log-path={}", folder.path().join("audit.log").display()),
    ])
}

pub(super) fn controller_manager(folder: &Folder, kubeconfig: &Path, port: u16) -> anyhow::Result<Vec<String>> {
    let file = |name: &str| folder.path().join(name).display().to_string();
    Ok(vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={CONTROLLERS}"),
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={}", file("tokens.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        // The default limits delay its requests by seconds.
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
        format!("--cert-dir={}", file("controller-manager")),
    ])
}

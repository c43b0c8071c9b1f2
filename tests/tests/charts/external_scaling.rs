//! External scaling beside each way to apply: what another scaler wrote is kept, and so is the mode.

use anyhow::Context;
use pulse_tests::operator::OperatorEnv;
use pulse_tests::repository;
use serde_json::{Value, json};

use crate::helm::Helm;
use crate::objects::objects_in;

/// A way to apply an object with external scaling, whose image tag is an argument.
#[derive(Clone, Copy, Debug)]
enum Way {
    ClientSideApply,
    ServerSideApply,
    Helm(Helm),
}

const WAYS: [Way; 4] = [Way::ClientSideApply, Way::ServerSideApply, Way::Helm(Helm::Three), Way::Helm(Helm::Four)];

impl Way {
    async fn apply(self, env: &OperatorEnv, tag: &str) -> anyhow::Result<String> {
        let Self::Helm(helm) = self else { return self.kubectl_apply(env, tag).await };
        let values = repository().join("charts/pulse-ingest/ci/external-values.yaml");
        let values = values.to_str().context("the path is not UTF-8")?;
        let tag = format!("image.tag={tag}");
        let upgrade = ["upgrade", "--install", "main", "charts/pulse-ingest", "--namespace", &env.namespace];
        let with_values = ["--values", values, "--set-string", &tag];
        helm.run_in_cluster(env.plane.admin().kubeconfig(), &[&upgrade[..], &with_values].concat()).await
    }

    /// Applies the sample.
    async fn kubectl_apply(self, env: &OperatorEnv, tag: &str) -> anyhow::Result<String> {
        let mut sample = objects_in(&repository().join("manifests/samples/external-scaling.yaml"))?;
        sample[0]["spec"]["image"]["tag"] = json!(tag);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("sample.yaml");
        std::fs::write(&path, sample.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n"))?;
        let server_side = matches!(self, Self::ServerSideApply).to_string();
        let args = ["-n", &env.namespace, "apply", &format!("--server-side={server_side}"), "--validate=strict", "-f"];
        let file = path.to_str().context("the path is not UTF-8")?;
        env.plane.admin().kubectl(&[&args[..], &[file]].concat()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_another_scaler_survive_every_way_to_apply() -> anyhow::Result<()> {
    for way in WAYS {
        survives(way).await.with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

async fn survives(way: Way) -> anyhow::Result<()> {
    let env = OperatorEnv::start("external").await?;
    way.apply(&env, "1").await?;
    assert_eq!(env.spec("main").await?["workers"]["replicas"], 1, "the default of a new object");
    for (round, replicas) in [(2, "7"), (3, "0"), (4, "3")] {
        // A scaler writes through the scale subresource.
        let scale = ["-n", &env.namespace, "scale", "pulseingest/main", "--replicas", replicas];
        env.plane.admin().kubectl(&scale).await?;
        for tag in [round.to_string(), format!("{round}.1")] {
            way.apply(&env, &tag).await?;
            let spec = env.spec("main").await?;
            assert_eq!((&spec["image"]["tag"], &spec["workers"]["replicas"]), (&json!(tag), &replicas.parse()?));
            for role in ["api", "workers"] {
                assert_eq!(spec[role]["autoscaling"]["mode"], "External", "{role}");
            }
        }
    }
    Ok(())
}

//! The manifests in `docs/kubernetes.md`: commands, settings, probes and times exist and fit each other.

use serde_yaml_ng::Value;

use super::compose::words;
use super::{assert_configures, assert_is_command, read};

fn manifests() -> Vec<Value> {
    let page = read("docs/kubernetes.md");
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_yaml_ng::from_str(block).unwrap()).collect()
}

fn pod(manifest: &Value) -> &Value {
    &manifest["spec"]["template"]["spec"]
}

/// Containers of the pod with our image.
fn ours(manifest: &Value) -> Vec<&Value> {
    let all = ["initContainers", "containers"].into_iter().flat_map(|list| pod(manifest)[list].as_sequence().into_iter().flatten());
    all.filter(|container| container["image"].as_str().unwrap().contains("/outboxd:")).collect()
}

#[test]
fn our_containers_run_commands_and_settings_that_exist() {
    let manifests = manifests();
    assert_eq!(manifests.iter().map(|manifest| manifest["kind"].as_str().unwrap()).collect::<Vec<_>>(), ["Deployment", "Job"]);
    for container in manifests.iter().flat_map(ours) {
        assert_is_command(words(&container["args"]));
        let image = container["image"].as_str().unwrap();
        assert!(image.ends_with(&format!(":{}", env!("CARGO_PKG_VERSION"))), "{image} is another version");
        let pairs = container["env"].as_sequence().unwrap().iter();
        let pairs = pairs.map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap()));
        // a secret is mounted there, not here
        let here = |(name, value)| {
            if name == "OUTBOXD__DATABASE__PASSWORD_FILE" { (name, secret(container, value)) } else { (name, value) }
        };
        assert_configures(pairs.map(here));
    }
}

/// A file that can be read, in place of one in a mounted volume.
fn secret<'a>(container: &Value, path: &str) -> &'a str {
    let mounts = container["volumeMounts"].as_sequence().unwrap().iter();
    assert!(mounts.map(|mount| mount["mountPath"].as_str().unwrap()).any(|mount| path.starts_with(mount)), "{path} is not mounted");
    concat!(env!("CARGO_MANIFEST_DIR"), "/rust-toolchain.toml")
}

#[test]
fn the_probes_ask_what_docs_say_and_the_times_fit() {
    let manifests = manifests();
    let (pod, sidecar) = (pod(&manifests[0]), ours(&manifests[0])[0]);
    assert_eq!(sidecar["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(sidecar["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert!(sidecar["startupProbe"].is_null() && sidecar["restartPolicy"] == "Always");
    let port = &sidecar["ports"][0];
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(sidecar[probe]["httpGet"]["port"], port["name"]);
    }
    let config = outboxd::config::Config::default();
    let listen = sidecar["env"].as_sequence().unwrap().iter().find(|one| one["name"] == "OUTBOXD__HTTP__LISTEN").unwrap();
    assert_eq!(listen["value"].as_str().unwrap(), format!("0.0.0.0:{}", port["containerPort"].as_u64().unwrap()));
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > config.relay.shutdown_grace.as_secs());
    let limit: u64 = sidecar["resources"]["limits"]["memory"].as_str().unwrap().trim_end_matches("Mi").parse().unwrap();
    let batch_mib = read("config/outboxd.toml")
        .lines()
        .find_map(|line| line.strip_prefix("batch_max_bytes = \"")?.split_once("MiB")?.0.parse().ok());
    assert!(limit >= 64 + 4 * batch_mib.unwrap_or(u64::MAX / 8), "less than the process can take");
}

#[test]
fn the_containers_have_no_rights_and_every_volume_is_there() {
    for manifest in &manifests() {
        let volumes: Vec<&Value> = pod(manifest)["volumes"].as_sequence().unwrap().iter().map(|volume| &volume["name"]).collect();
        for container in ours(manifest) {
            let mounts = container["volumeMounts"].as_sequence().unwrap();
            assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])), "{mounts:?}");
        }
    }
    let manifests = manifests();
    let context = &ours(&manifests[0])[0]["securityContext"];
    assert!(
        context["runAsNonRoot"] == true
            && context["readOnlyRootFilesystem"] == true
            && context["allowPrivilegeEscalation"] == false
    );
}

//! The build Pod. Under Restricted it passes the `restricted` Pod Security Standard; credentials are in the agent alone.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapKeySelector, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar,
        EnvVarSource, ExecAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference,
        PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile,
        SecretKeySelector, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{
    api::v1alpha1::{self, Cache, Stage},
    domain::{
        plan::{Account, HOME, RESTRICTED_USER, StagePlan, WORKSPACE},
        settings::Settings,
        task::{
            AGENT_CONTAINER, AGENT_WORK_DIR, BUILD_CONTAINER, REGISTRY_SECRET_DIR, SHARED_DIR, SOURCE_CONFIG_MAP_DIR,
            SOURCE_SECRET_DIR, TASK_VARIABLE,
        },
    },
};

use super::{JobOwner, References, StageRun};

/// The group that files of platform-assigned users belong to.
const ROOT_GROUP: i64 = 0;

/// What a Pod is made from.
pub(super) struct Context<'a> {
    pub owner: &'a JobOwner,
    pub stage: &'a StagePlan,
    pub run: &'a StageRun,
    pub refs: &'a References,
    pub settings: &'a Settings,
}

impl Context<'_> {
    pub(super) fn spec(&self) -> PodSpec {
        let agent = self.agent();
        let build = self.stage.image.is_some().then(|| self.build());
        let installer = (self.settings.init_container && build.is_some()).then(|| installer(&agent));
        let stage = self.stage.settings.as_ref();
        let platform = &self.run.task.recipe.platform;
        let mut node_selector = stage.map(|stage| stage.node_selector.clone()).unwrap_or_default();
        node_selector.insert("kubernetes.io/arch".into(), platform.architecture.clone());
        node_selector.insert("kubernetes.io/os".into(), platform.os.clone());
        PodSpec {
            restart_policy: Some("Never".into()),
            active_deadline_seconds: i64::try_from(self.stage.timeout.as_secs()).ok(),
            termination_grace_period_seconds: Some(10),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            // The same in every build: a host name must not find its way into an artifact.
            hostname: Some("build".into()),
            service_account_name: self.refs.service_account.clone(),
            image_pull_secrets: Some(self.pull_secrets()),
            node_selector: Some(node_selector),
            tolerations: stage.map(|stage| stage.tolerations.clone()),
            affinity: stage.and_then(|stage| stage.affinity.clone()),
            runtime_class_name: stage.and_then(|stage| stage.runtime_class_name.clone()),
            security_context: Some(self.pod_security()),
            init_containers: installer.map(|installer| vec![installer]),
            containers: [agent].into_iter().chain(build).collect(),
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        }
    }

    fn pull_secrets(&self) -> Vec<LocalObjectReference> {
        let cache = self.refs.cache_secret.iter().filter(|_| self.run.start.is_some());
        let cache = cache.filter(|name| !self.refs.pull_secrets.contains(name));
        let names = self.refs.pull_secrets.iter().chain(cache);
        names.map(|name| LocalObjectReference { name: name.clone() }).collect()
    }

    fn restricted(&self) -> bool {
        self.stage.account == Account::Restricted
    }

    /// Docker knows no volumes: what root builds in a Dockerfile's stage is in the container itself.
    fn has_workspace(&self) -> bool {
        self.stage.image.is_some() && self.stage.account != Account::Root
    }

    fn pod_security(&self) -> PodSecurityContext {
        let left_to_platform = self.restricted() && self.settings.platform_user;
        let user = self.stage.account.user().filter(|_| !left_to_platform).map(i64::from);
        PodSecurityContext {
            run_as_non_root: self.restricted().then_some(true),
            run_as_user: user,
            // Group 0 owns nothing of value in a container, and makes files work for any user of the platform's.
            run_as_group: user.map(|_| ROOT_GROUP),
            fs_group: user.filter(|_| self.restricted()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }
    }

    fn agent(&self) -> Container {
        // The kubelet replaces `$(NAME)` and `$$` in values; in JSON a dollar can be written so that it sees none.
        let task = serde_json::to_string(&self.run.task).unwrap_or_default().replace('$', "\\u0024");
        let env = self.settings.proxy.clone().into_iter().chain([(TASK_VARIABLE.to_owned(), task)]);
        let mut mounts = vec![mount("shared", SHARED_DIR, false), mount("work", AGENT_WORK_DIR, false)];
        if self.run.task.recipe.uses_source() {
            mounts.extend(self.refs.source_secret.iter().map(|_| mount("source-secret", SOURCE_SECRET_DIR, true)));
            mounts.extend(self.refs.source_config_map.iter().map(|_| mount("source", SOURCE_CONFIG_MAP_DIR, true)));
        }
        let registry_secret = format!("{REGISTRY_SECRET_DIR}/cache");
        mounts.extend(self.refs.cache_secret.iter().map(|_| mount("registry-secret", &registry_secret, true)));
        let hook = ExecAction { command: Some(vec![agent_binary(), "agent".into(), "install".into()]) };
        let post_start = LifecycleHandler { exec: Some(hook), ..LifecycleHandler::default() };
        let install = self.stage.image.is_some() && !self.settings.init_container;
        Container {
            name: AGENT_CONTAINER.into(),
            image: Some(self.settings.agent_image.clone()),
            command: Some(vec![agent_binary(), "agent".into(), "run".into()]),
            env: Some(env.map(|(name, value)| EnvVar { name, value: Some(value), value_from: None }).collect()),
            volume_mounts: Some(mounts),
            resources: Some(resources(("100m", "64Mi"), Some(("2", "256Mi")))),
            security_context: Some(SecurityContext {
                run_as_non_root: Some(true),
                // Under Baseline the Pod leaves the user to the builder image; the agent is never root.
                run_as_user: (!self.settings.platform_user).then_some(i64::from(RESTRICTED_USER)),
                run_as_group: (!self.settings.platform_user).then_some(ROOT_GROUP),
                read_only_root_filesystem: Some(true),
                ..unprivileged()
            }),
            lifecycle: install.then(|| Lifecycle { post_start: Some(post_start), ..Lifecycle::default() }),
            ..Container::default()
        }
    }

    fn build(&self) -> Container {
        let builder = self.stage.image.as_ref().zip(self.run.task.recipe.image);
        let builder = builder.map(|(reference, digest)| reference.repository().pinned(digest).to_string());
        let snapshot = self.run.start.as_ref().map(|start| self.run.task.cache.pinned(start.image).to_string());
        // Another tenant may not start from a snapshot just because the node has it.
        let pull_policy = if snapshot.is_some() { "Always" } else { "IfNotPresent" };
        let stage = self.stage.settings.clone().unwrap_or_default();
        let mut mounts = vec![mount("shared", SHARED_DIR, false)];
        mounts.extend(self.has_workspace().then(|| mount("workspace", WORKSPACE, false)));
        let mut env = Vec::new();
        if self.restricted() {
            mounts.extend([mount("tmp", "/tmp", false), mount("home", HOME, false)]);
            mounts.extend(["passwd", "group"].map(|file| VolumeMount {
                sub_path: Some(file.into()),
                ..mount("shared", &format!("/etc/{file}"), true)
            }));
            env.push(EnvVar { name: "HOME".into(), value: Some(HOME.into()), value_from: None });
        }
        mounts.extend(stage.registry_caches().map(|cache| mount(&cache_volume(cache), &cache.path, false)));
        mounts.extend(stage.claims().map(|(cache, _)| VolumeMount {
            sub_path: Some(format!("{}/{}/{}", self.owner.uid, self.stage.name, cache.name)),
            ..mount(&cache_volume(cache), &cache.path, false)
        }));
        let proxy = self.settings.proxy.iter().filter(|_| stage.proxy);
        env.extend(proxy.map(|(name, value)| EnvVar {
            name: name.clone(),
            value: Some(value.clone()),
            value_from: None,
        }));
        env.extend(stage.env.iter().filter_map(secret_variable));
        Container {
            name: BUILD_CONTAINER.into(),
            image: snapshot.or(builder),
            image_pull_policy: Some(pull_policy.into()),
            command: Some(vec![format!("{SHARED_DIR}/minimalimage"), "wrapper".into()]),
            env: Some(env),
            volume_mounts: Some(mounts),
            resources: Some(stage.resources.unwrap_or_else(|| resources(("100m", "128Mi"), None))),
            security_context: Some(if self.restricted() { unprivileged() } else { SecurityContext::default() }),
            ..Container::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let scratch = Quantity(self.settings.scratch_bytes.to_string());
        let empty = |name: &str, size: &Quantity| Volume {
            name: name.into(),
            empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(size.clone()), medium: None }),
            ..Volume::default()
        };
        let mut volumes = vec![empty("shared", &Quantity("256Mi".into())), empty("work", &scratch)];
        if self.has_workspace() {
            volumes.push(empty("workspace", &scratch));
        }
        if self.stage.image.is_some() && self.restricted() {
            volumes.extend([empty("tmp", &scratch), empty("home", &scratch)]);
        }
        if self.run.task.recipe.uses_source() {
            volumes.extend(self.refs.source_secret.iter().map(|secret| secret_volume("source-secret", secret, None)));
            volumes.extend(self.refs.source_config_map.iter().map(|name| Volume {
                name: "source".into(),
                config_map: Some(ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() }),
                ..Volume::default()
            }));
        }
        let login =
            || Some(vec![KeyToPath { key: ".dockerconfigjson".into(), path: "config.json".into(), mode: None }]);
        volumes.extend(self.refs.cache_secret.iter().map(|secret| secret_volume("registry-secret", secret, login())));
        let stage = self.stage.settings.iter();
        volumes
            .extend(stage.clone().flat_map(Stage::registry_caches).map(|cache| empty(&cache_volume(cache), &scratch)));
        volumes.extend(stage.flat_map(Stage::claims).map(|(cache, claim)| Volume {
            name: cache_volume(cache),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        }));
        volumes
    }
}

fn cache_volume(cache: &Cache) -> String {
    format!("cache-{}", cache.name)
}

/// The slower form: an init container that does what the postStart hook does.
fn installer(agent: &Container) -> Container {
    Container {
        name: "install".into(),
        command: Some(vec![agent_binary(), "agent".into(), "install".into()]),
        lifecycle: None,
        volume_mounts: Some(vec![mount("shared", SHARED_DIR, false)]),
        ..agent.clone()
    }
}

/// Where the operator image holds its only file.
fn agent_binary() -> String {
    "/minimalimage".into()
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn secret_volume(name: &str, secret: &str, items: Option<Vec<KeyToPath>>) -> Volume {
    Volume {
        name: name.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            items,
            // Readable by the Pod's user through fsGroup or, for a platform's user, through group 0.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn secret_variable(variable: &v1alpha1::EnvVar) -> Option<EnvVar> {
    let from = variable.value_from.as_ref()?;
    let source = EnvVarSource {
        secret_key_ref: from.secret_key_ref.as_ref().map(|selector| SecretKeySelector {
            name: selector.name.clone(),
            key: selector.key.clone(),
            optional: None,
        }),
        config_map_key_ref: from.config_map_key_ref.as_ref().map(|selector| ConfigMapKeySelector {
            name: selector.name.clone(),
            key: selector.key.clone(),
            optional: None,
        }),
        ..EnvVarSource::default()
    };
    Some(EnvVar { name: variable.name.clone(), value: None, value_from: Some(source) })
}

fn unprivileged() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Both containers have resources, because namespaces with a quota refuse others.
fn resources(requests: (&str, &str), limits: Option<(&str, &str)>) -> ResourceRequirements {
    let quantities = |(cpu, memory): (&str, &str)| {
        BTreeMap::from([("cpu".to_owned(), Quantity(cpu.into())), ("memory".to_owned(), Quantity(memory.into()))])
    };
    ResourceRequirements { requests: Some(quantities(requests)), limits: limits.map(quantities), claims: None }
}

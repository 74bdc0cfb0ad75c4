//! Writes the common state: only if it is still as it was read, and one commit after the other.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::kubernetes::access::{Client, Patience};
use crate::kubernetes::faults::chain;
use crate::kubernetes::link::Backoff;
use crate::kubernetes::supervisor::WatchEvent;
use crate::state::{Commit, Snapshot, StoreNews, Version};

use super::record::{self, Data};
use super::{Common, config_maps, leases, tell};

/// How long the API server may take for one answer: somebody waits for it.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest pause after a write that failed: with it, whoever asks in the midst of one hears in less time than the admin API takes
/// for any answer.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    client: Client,
    common: Common,
    out: mpsc::Sender<WatchEvent>,
    /// How much the ConfigMap held when it was last seen here.
    size: usize,
}

/// Why a write did not come about.
enum Failure {
    /// It is not as it was read.
    Conflict,
    /// It is not there.
    Missing,
    /// Kubernetes takes no more.
    TooLarge,
    /// The credentials are not accepted.
    Unauthorized,
    Other(String),
}

impl Failure {
    fn of(error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Other(chain(error)) };
        match status.code {
            409 => Self::Conflict,
            404 => Self::Missing,
            401 => Self::Unauthorized,
            413 => Self::TooLarge,
            422 if status.message.contains("Too long") => Self::TooLarge,
            403 => Self::Other(format!("{} (403): bind the Role of deploy/base", status.message)),
            code => Self::Other(format!("{} ({code})", status.message)),
        }
    }
}

impl Writer {
    pub(super) fn new(client: &Client, common: &Common, out: mpsc::Sender<WatchEvent>) -> Self {
        Self { client: client.clone(), common: common.clone(), out, size: 0 }
    }

    /// Writes until nobody asks for it any more.
    pub(super) async fn run(mut self, mut commits: mpsc::Receiver<Commit>) {
        let patience = self.client.patience;
        let most = patience.retry_most.min(PAUSE);
        let mut backoff = Backoff::new(Patience { retry_most: most, ..patience });
        while let Some(commit) = commits.recv().await {
            let (of, only_read) = (commit.of.clone(), commit.routes.is_empty());
            let news = self.write(commit).await;
            // It is as it was read, and was refused all the same.
            let refused = matches!(&news, StoreNews::Conflict(found) if found.version == of && !only_read);
            let again = refused || matches!(news, StoreNews::Failed(_));
            // First, for somebody may wait to be told so.
            tell(&self.out, news).await;
            if again {
                tokio::time::sleep(backoff.pause()).await;
            } else {
                backoff.reset();
            }
        }
    }

    async fn write(&mut self, commit: Commit) -> StoreNews {
        let data = record::data(&commit.routes);
        let written = match &commit.of {
            // Somebody wants to know what became of an earlier one.
            _ if commit.routes.is_empty() => Err(Failure::Conflict),
            None => self.create(&data).await,
            Some(_) if self.size + record::size(&data) > record::LARGEST => Err(Failure::TooLarge),
            Some(version) => self.patch(version, &data).await,
        };
        let written = match written {
            Err(Failure::TooLarge) => self.replace_with_less(&commit, data).await,
            written => written,
        };
        match written {
            Ok(version) => StoreNews::Committed(version),
            Err(Failure::Conflict | Failure::Missing) => match self.read().await {
                Ok(found) => StoreNews::Conflict(found.map(|(_, snapshot)| snapshot).unwrap_or_default()),
                Err(why) => StoreNews::Failed(why),
            },
            Err(Failure::Unauthorized) => {
                self.client.renew().await;
                StoreNews::Failed("the API server does not accept the credentials (401)".to_owned())
            }
            Err(Failure::TooLarge) => StoreNews::Failed(
                "it is larger than a ConfigMap may be (1 MiB): use fewer routes, or `state.file`".to_owned(),
            ),
            Err(Failure::Other(why)) => StoreNews::Failed(why),
        }
    }

    async fn create(&mut self, data: &Data) -> Result<Version, Failure> {
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.common.key.name.to_string()),
                labels: Some(leases::labels(&self.common, "state")),
                ..ObjectMeta::default()
            },
            data: Some(data.clone()),
            ..ConfigMap::default()
        };
        let api = config_maps(&self.client, &self.common);
        let params = PostParams::default();
        let created = self.took(tokio::time::timeout(ANSWER, api.create(&params, &object)).await);
        let missing = format!("there is no namespace {}: make it first", self.common.key.namespace);
        created.map_err(
            |failure| {
                if matches!(failure, Failure::Missing) { Failure::Other(missing) } else { failure }
            },
        )
    }

    async fn patch(&mut self, version: &Version, data: &Data) -> Result<Version, Failure> {
        let patch = json!({"metadata": {"resourceVersion": version.0}, "data": data});
        let api = config_maps(&self.client, &self.common);
        let params = PatchParams::default();
        let patch = Patch::Merge(&patch);
        let patching = api.patch(&self.common.key.name, &params, &patch);
        self.took(tokio::time::timeout(ANSWER, patching).await)
    }

    /// Writes it whole, with fewer of the last revisions of all routes.
    async fn replace_with_less(&mut self, commit: &Commit, data: Data) -> Result<Version, Failure> {
        let Some(version) = &commit.of else {
            let data = record::fitted(&data).map_err(|_| Failure::TooLarge)?;
            return self.create(&data).await;
        };
        let found = self.read().await.map_err(Failure::Other)?;
        let Some((mut object, snapshot)) = found else { return Err(Failure::Conflict) };
        if snapshot.version.as_ref() != Some(version) {
            return Err(Failure::Conflict);
        }
        let mut all: Data = object.data.take().unwrap_or_default();
        all.extend(data);
        object.data = Some(record::fitted(&all).map_err(|_| Failure::TooLarge)?);
        let api = config_maps(&self.client, &self.common);
        let params = PostParams::default();
        let replacing = api.replace(&self.common.key.name, &params, &object);
        self.took(tokio::time::timeout(ANSWER, replacing).await)
    }

    async fn read(&self) -> Result<Option<(ConfigMap, Snapshot)>, String> {
        let api = config_maps(&self.client, &self.common);
        match tokio::time::timeout(ANSWER, api.get_opt(&self.common.key.name)).await {
            Err(_) => Err(no_answer()),
            Ok(Err(error)) => Err(match Failure::of(&error) {
                Failure::Other(why) => why,
                Failure::Conflict | Failure::Missing | Failure::TooLarge | Failure::Unauthorized => {
                    chain(&error)
                }
            }),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(object))) => {
                let (snapshot, _) = record::snapshot(&object).map_err(|problem| problem.to_string())?;
                Ok(Some((object, snapshot)))
            }
        }
    }

    fn took(
        &mut self,
        answer: Result<Result<ConfigMap, kube::Error>, tokio::time::error::Elapsed>,
    ) -> Result<Version, Failure> {
        let object = match answer {
            Err(_) => return Err(Failure::Other(no_answer())),
            Ok(Err(error)) => return Err(Failure::of(&error)),
            Ok(Ok(object)) => object,
        };
        self.size = object.data.as_ref().map(record::size).unwrap_or_default();
        let version = object.metadata.resource_version.unwrap_or_default();
        Ok(Version(version.into()))
    }
}

fn no_answer() -> String {
    format!("the API server does not answer within {} s", ANSWER.as_secs())
}

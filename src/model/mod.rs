//! The nouns that two or more rooms speak: names, shares, selectors, endpoints, route specs, outcomes, problems.
//!
//! CORE: nothing here waits, reads a clock, draws a random number or logs.

mod access;
mod audience;
mod cluster;
mod deed;
mod edge;
mod endpoint;
mod evidence;
mod mirror;
mod names;
mod outcome;
mod problem;
mod rollout;
mod route;
mod secret;
mod selector;
mod share;
mod time;
mod traffic;

pub use access::AccessFormat;
pub use audience::{Audience, Cohort, Condition, Part, Rule, Test, Verdict};
pub use cluster::{
    AddressType, ClusterChange, ClusterKind, Conditions, Pod, PodKey, Service, ServicePort, Slice,
    SliceEndpoint, SlicePort, StaticEndpoint, TargetRef,
};
pub use deed::{Deed, ServiceEvent};
pub use edge::{ClientAuth, Edge, EscapedSlashes, ListenerTls, MinTls, Redirect, Underscores};
pub use endpoint::{EndpointId, EndpointPhase, Labels, Protocol};
pub use evidence::{AttemptClass, Counts, Placement, Side, Sides, Sighting};
pub use mirror::{MIRROR_HEADER, Mirror};
pub use names::{
    ConfigMapKey, ConfigMapKeyError, Generation, NameError, Namespace, Revision, RouteName, SecretKey,
    SecretKeyError, ServiceKey, ServiceKeyError, VersionName,
};
pub use outcome::{
    AnswerReason, ChoiceReason, ConnectionRefusal, FailureKind, MirrorOutcome, SetAsideReason,
};
pub use problem::Problem;
pub use rollout::{ErrorLimit, Guard, Hook, HookEvent, LatencyGuard, OnFail, RolloutSpec, RolloutStep};
pub use route::{
    BackendRef, HostMatch, HostMatchError, OnEmpty, PathMatch, PathMatchError, PortRef, RouteSpec,
    VersionSpec,
};
pub use secret::SecretData;
pub use selector::{Selector, SelectorError};
pub use share::{Share, ShareError};
pub use time::{Moment, Timestamp};
pub use traffic::{
    Balance, CertificateSource, HashKey, HealthCheck, Outliers, PemSource, Retries, Timeouts, Traffic,
    UpstreamTls,
};

//! Integration tests: the router's parts against a loopback API server that speaks list and watch as Kubernetes does.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod admin_cli;
#[cfg(test)]
mod attack;
#[cfg(test)]
mod control_plane;
#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod kubernetes_events;
#[cfg(test)]
mod live;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod observability;
#[cfg(test)]
mod process;
#[cfg(test)]
mod process_faults;
#[cfg(test)]
mod process_memory;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod real_cluster;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod rolling;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod walkthrough;

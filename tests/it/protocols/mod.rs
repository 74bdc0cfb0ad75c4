//! Every protocol that people use, from a real client through a whole router to a real server.

mod access_log;
mod audience;
mod bodies;
mod capacity;
mod drain;
mod front;
mod grpc;
mod http;
mod limits;
mod mirror;
mod outliers;
mod pods;
mod raw;
mod reliability;
mod retries;
mod seer;
mod shield;
mod streams;
mod taken_back;
mod tls;
mod traces;
mod websocket;

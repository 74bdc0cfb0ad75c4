//! Every protocol that people use, from a real client through a whole router to a real server.

mod bodies;
mod drain;
mod front;
mod grpc;
mod http;
mod limits;
mod outliers;
mod pods;
mod raw;
mod reliability;
mod retries;
mod streams;
mod taken_back;
mod tls;
mod websocket;

//! The tests of monoceros from outside: the real program, real sockets, real signals. One binary;
//! each module is one side of what a user sees. `cargo test` runs them all,
//! `cargo test --test tests signals` one of them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test says what it has left out, and what it saw")]

mod util;

// The shape of the source tree, and what is said of it.
mod documents;
mod layers;

// HTTP and WSGI, request by request.
mod app_files;
mod body;
mod closing;
mod company;
mod gunicorn_fixtures;
mod h11;
mod http_cases;
mod in_place;
mod input_threads;
mod keepalive;
mod leaving_clients;
mod lent_sockets;
mod patched_threads;
mod proxies;
mod request;
mod response;
mod response_cases;
mod rfc;
mod sharing;
mod slow_clients;
mod slow_readers;
mod static_files;
mod streaming;
mod tls;
mod tls_files;
mod uploads;
mod uwsgi;
mod write_callable;
mod wsgi_input;
mod wsgi_validator;

// The process tree and what operators do to it.
mod autoscale;
mod chaos;
mod cluster;
mod crowds;
mod ctl;
mod defer_accept;
mod dirty;
mod faults;
mod faults_boot;
mod faults_system;
mod faults_worker;
mod gevent;
mod health;
mod held;
mod hooks;
mod interpreter;
mod privileges;
mod process_managers;
mod recycling;
mod reload;
mod reuse_port;
mod service_manager;
mod shared_memory;
mod signals;
mod sizing;
mod supervisord;
mod systemd;
mod timeout;
mod titles;
mod totals;
mod upgrade;

// What is set, said and written.
mod cli;
mod config;
mod control;
mod control_beyond;
mod differential;
mod entry_points;
mod facade;
mod foreign_workers;
mod forging;
mod gear;
mod installation;
mod joined_logs;
mod limits;
mod loggers;
mod logs;
mod python_logging;
mod python_signals;
mod worker_subclasses;

// Real frameworks, the platforms that stage them, and what all of it costs.
mod django;
mod examples;
mod flask;
mod hosts;
mod load;
mod measures;
mod memory;
mod metrics;
mod real_configs;
mod real_programs;
mod staging;

//! A cluster of three brokers with two in-sync replicas at least, whose leader is killed under load. The script of the
//! workspace has started it.

use std::time::Duration;

use crate::cluster::{self, Cluster, read};
use crate::suite::fakes::{Applied, Log, assert_all, assert_in_order};
use crate::suite::{Record, Server, new_name};

/// Runs the script that has started the brokers: what it prints.
async fn script(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let running = move || cluster::script(None, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(running).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_under_load_loses_and_doubles_nothing() {
    let cluster = Cluster::new();
    if cluster.mock.is_some() || cluster.brokers().to_string().split(',').count() < 3 {
        eprintln!("skipped: TEST_KAFKA_BROKERS names no cluster of three brokers");
        return;
    }
    let (topic, log, inbox) = (cluster.new_topic(), Log::about(20, 100), Applied::default());
    let load = async {
        inbox.until_all(&log).await;
        for _ in 0..3 {
            let leader = script(&["leader", topic]).await;
            script_while_appending(&log, &["kill", &leader]).await;
            inbox.until_all(&log).await;
            script(&["revive", &leader]).await;
        }
    };
    cluster.relaying(topic, &log, cluster.consuming(new_name("group"), topic, &inbox, load)).await;
    let records: Vec<String> = read(&cluster.brokers(), topic).iter().map(Record::id).collect();
    for ids in [records, inbox.ids()] {
        assert_all(&log, ids.clone());
        assert_in_order(ids.clone());
        assert_eq!(ids.len(), log.ids().len(), "none is there twice");
    }
}

/// Appends events before, during and after a run of the script.
async fn script_while_appending(log: &Log, arguments: &[&str]) {
    let mut running = std::pin::pin!(script(arguments));
    let mut left = 50;
    let mut is_done = false;
    while !is_done || left > 0 {
        log.append(10);
        left -= 1;
        tokio::select! {
            _ = &mut running, if !is_done => is_done = true,
            // The load, not a wait for anything.
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
}

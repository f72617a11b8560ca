use muster_proto::v1::{Reconnect, session_response};

use super::*;

fn launch() -> LaunchId {
    LaunchId::from("launch-a")
}

fn message() -> SessionResponse {
    SessionResponse {
        message: Some(session_response::Message::Reconnect(Reconnect::default())),
    }
}

#[tokio::test]
async fn a_newer_stream_ends_the_older_and_survives_its_end() {
    let presence = Presence::default();
    let (older, mut older_messages) = presence.connect(&launch());
    let (newer, mut newer_messages) = presence.connect(&launch());
    assert_eq!(older_messages.recv().await, None);
    assert!(older.is_superseded() && !newer.is_superseded());
    assert_eq!(older.end(), Ended::Superseded);
    assert!(presence.get(&launch()).unwrap().connected);
    presence.send(&launch(), message()).unwrap();
    assert_eq!(newer_messages.recv().await.as_deref(), Some(&message()));
    assert_eq!(newer.end(), Ended::Last);
    assert!(!presence.get(&launch()).unwrap().connected);
}

#[test]
fn dropping_a_connection_disconnects() {
    let presence = Presence::default();
    assert_eq!(presence.standing(&launch()), Standing::Away);
    let (connection, _messages) = presence.connect(&launch());
    assert_eq!(presence.connected(), 1);
    assert_eq!(presence.standing(&launch()), Standing::Connected);
    drop(connection);
    assert_eq!(presence.connected(), 0);
    assert_eq!(presence.standing(&launch()), Standing::Away);
    assert_eq!(
        presence.send(&launch(), message()),
        Err(SendError::NotConnected)
    );
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_disconnected() {
    let presence = Presence::default();
    let (connection, mut messages) = presence.connect(&launch());
    for _ in 0..OUTBOUND_CAPACITY {
        presence.send(&launch(), message()).unwrap();
    }
    assert_eq!(presence.send(&launch(), message()), Err(SendError::Stalled));
    assert_eq!(
        presence.send(&launch(), message()),
        Err(SendError::NotConnected)
    );
    for _ in 0..OUTBOUND_CAPACITY {
        assert!(messages.recv().await.is_some());
    }
    assert_eq!(messages.recv().await, None);
    assert!(!connection.is_superseded());
}

#[tokio::test]
async fn a_sweep_ends_the_silent_and_leaves_the_others() {
    let presence = Presence::default();
    let (silent, mut silent_messages) = presence.connect(&launch());
    let (lively, _messages) = presence.connect(&LaunchId::from("launch-b"));
    let later = Timestamp::now() + Duration::from_secs(60);
    lively.heard(later, Some(Sample::default()));
    let silence = Duration::from_secs(30);
    assert_eq!(presence.sweep(later, silence), [launch()]);
    assert_eq!(presence.sweep(later, silence), []);
    assert_eq!(silent_messages.recv().await, None);
    assert_eq!(silent.end(), Ended::Last);
    let seen = presence.get(&LaunchId::from("launch-b")).unwrap();
    assert!(seen.connected && seen.sample.is_some());
    assert_eq!(seen.last_seen, later);
}

#[tokio::test]
async fn an_agent_whose_stream_waits_for_us_is_not_silent() {
    let presence = Presence::default();
    let (connection, _messages) = presence.connect(&launch());
    let later = Timestamp::now() + Duration::from_secs(60);
    let silence = Duration::from_secs(30);
    let swept = connection.unread(async { presence.sweep(later, silence) });
    assert_eq!(swept.await, []);
    assert_eq!(presence.sweep(later, silence), [launch()]);
}

#[test]
fn a_superseded_stream_changes_nothing_any_more() {
    let presence = Presence::default();
    let (older, _older_messages) = presence.connect(&launch());
    older.acknowledge(Some(3));
    let (newer, _messages) = presence.connect(&launch());
    older.acknowledge(Some(9));
    older.heard(Timestamp::MAX, Some(Sample::default()));
    assert_eq!(newer.acknowledged(), Some(3));
    assert!(presence.get(&launch()).unwrap().sample.is_none());
}

#[tokio::test]
async fn a_revoked_agent_has_no_stream_and_gets_none() {
    let presence = Presence::default();
    let (old, mut old_messages) = presence.connect(&launch());
    presence.revoke(&launch());
    assert_eq!(old_messages.recv().await, None);
    assert!(old.is_revoked());
    let (new, mut new_messages) = presence.connect(&launch());
    assert_eq!(new_messages.recv().await, None);
    assert!(new.is_revoked());
    assert_eq!(presence.connected(), 0);
    assert_eq!(presence.standing(&launch()), Standing::Revoked);
    // Of one that never came, there is nothing to show.
    let other = LaunchId::from("launch-b");
    presence.revoke(&other);
    assert!(presence.get(&other).is_none());
    let (_, mut messages) = presence.connect(&other);
    assert_eq!(messages.recv().await, None);
}

#[test]
fn what_is_forgotten_starts_anew() {
    let presence = Presence::default();
    let (connection, _messages) = presence.connect(&launch());
    connection.acknowledge(Some(3));
    presence.forget(&launch());
    assert!(presence.get(&launch()).is_none());
    assert_eq!(connection.acknowledged(), None);
    drop(connection);
    assert!(presence.get(&launch()).is_none());
}

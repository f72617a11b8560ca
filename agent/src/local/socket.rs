//! The connection between two processes: frames of JSON on a Unix socket whose peer is checked.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use nix::unistd::{Gid, Uid, chown};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{Connection, QUEUE, ToFront, ToSupervisor};
use crate::backoff::Backoff;

/// Largest frame, in bytes: an end with two tails of 64 KiB, twice encoded, fits well.
const FRAME_MAX: usize = 1024 * 1024;
/// Longest time to write one frame. A peer that doesn't read for so long hangs.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// First ceiling of the wait before the supervisor is dialled again.
const DIAL_BASE: Duration = Duration::from_millis(20);
/// Last ceiling.
const DIAL_CAP: Duration = Duration::from_secs(1);
/// Longest time for the last words.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that may be served at once: the present one, and one that takes its place.
const PEERS: usize = 4;

/// A socket can't be used.
#[derive(Debug, Error)]
#[error("listen on {path}: {source}", path = .path.display())]
pub(crate) struct ListenError {
    path: PathBuf,
    source: io::Error,
}

/// Makes the socket `path`, which `group` may connect to. One that an earlier process left is replaced.
pub(crate) fn listen(path: &Path, group: Gid) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    if Uid::effective().is_root() {
        chown(path, None, Some(group)).map_err(|errno| failed(errno.into()))?;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Whether the process at the other end runs as one of `users`.
pub(crate) fn peer_is(stream: &UnixStream, users: &[u32]) -> bool {
    match stream.peer_cred() {
        Ok(peer) if users.contains(&peer.uid()) => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "a stranger at the socket"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "who is at the socket can't be told");
            false
        }
    }
}

/// Gives out a connection for each peer that is one of `users`. Runs until nobody takes them.
pub(crate) async fn serve(
    listener: UnixListener,
    users: Vec<u32>,
    connections: mpsc::Sender<ToFront>,
) {
    let mut peers = JoinSet::new();
    loop {
        while peers.try_join_next().is_some() {}
        if peers.len() >= PEERS {
            peers.join_next().await;
        }
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "socket failed");
                    sleep(DIAL_CAP).await;
                    continue;
                }
            },
            () = connections.closed() => break,
        };
        if !peer_is(&stream, &users) {
            continue;
        }
        let (near, far) = ends();
        peers.spawn(carry(stream, far));
        if connections.send(near).await.is_err() {
            break;
        }
    }
    while peers.join_next().await.is_some() {}
}

/// Connects to the socket `path` of a process of one of `users`, again after each end. Runs until nobody
/// takes the connections.
pub(crate) async fn dial(path: PathBuf, users: Vec<u32>, connections: mpsc::Sender<ToSupervisor>) {
    let mut backoff = Backoff::new(DIAL_BASE, DIAL_CAP);
    let mut told = false;
    while !connections.is_closed() {
        match UnixStream::connect(&path).await {
            Ok(stream) if peer_is(&stream, &users) => {
                backoff.reset();
                told = false;
                let (near, far) = ends();
                if connections.send(near).await.is_err() {
                    return;
                }
                carry(stream, far).await;
                tracing::warn!("the supervisor is gone");
            }
            Ok(_) => {}
            Err(error) => {
                if !told {
                    tracing::warn!(path = %path.display(), %error, "no supervisor");
                }
                told = true;
            }
        }
        sleep(backoff.next()).await;
    }
}

/// Waits a moment for what was said last to be carried, then ends the tasks.
pub(crate) async fn drain(mut tasks: JoinSet<()>) {
    let ended = timeout(DRAIN_TIMEOUT, async {
        while tasks.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::debug!("the other half did not hear the end");
    }
}

fn ends<S, R>() -> (Connection<S, R>, Connection<R, S>) {
    let (said, heard) = mpsc::channel(QUEUE);
    let (answered, answers) = mpsc::channel(QUEUE);
    let near = Connection {
        to: said,
        from: answers,
    };
    let far = Connection {
        to: answered,
        from: heard,
    };
    (near, far)
}

/// Carries words between `stream` and the owner of the other end until either is gone.
async fn carry<S: Serialize, R: DeserializeOwned>(stream: UnixStream, end: Connection<R, S>) {
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(FRAME_MAX)
        .new_codec();
    let mut frames = Framed::new(stream, codec);
    let Connection { to, mut from } = end;
    loop {
        tokio::select! {
            // What was said before the owner left is still to be carried, so it comes first.
            biased;
            said = from.recv() => {
                let Some(said) = said else { return };
                // It may hold a secret; the codec's own buffer is the kernel's to wipe.
                let text = match serde_json::to_vec(&said) {
                    Ok(text) => Zeroizing::new(text),
                    Err(error) => {
                        tracing::error!(%error, "a word that can't be written");
                        continue;
                    }
                };
                if text.len() > FRAME_MAX {
                    // The other end would cut the connection, and hear it again on the next one.
                    tracing::error!(bytes = text.len(), "a word that is too long is not said");
                    continue;
                }
                let sent = frames.send(Bytes::copy_from_slice(&text));
                match timeout(WRITE_TIMEOUT, sent).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "the other half is gone");
                        return;
                    }
                    Err(_) => {
                        tracing::warn!("the other half does not read");
                        return;
                    }
                }
            }
            frame = frames.next() => {
                let word = match frame {
                    Some(Ok(frame)) => serde_json::from_slice(&frame),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the other half is gone");
                        return;
                    }
                    None => return,
                };
                match word {
                    Ok(word) => {
                        if to.send(word).await.is_err() {
                            return;
                        }
                    }
                    // Its text is not shown: it may hold a secret.
                    Err(error) => tracing::error!(
                        line = error.line(),
                        column = error.column(),
                        "a word that can't be read"
                    ),
                }
            }
            () = to.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::{AgentEvent, Sample};
    use nix::unistd::{Gid, Uid};
    use secrecy::ExposeSecret as _;
    use tokio::sync::mpsc;

    use super::{dial, listen, serve};
    use crate::local::{Assignment, HostState, Order, Report};

    #[tokio::test]
    async fn words_pass_both_ways_and_a_lost_end_is_dialled_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let own = Uid::current().as_raw();
        let listener = listen(&path, Gid::current()).unwrap();
        let (served, mut fronts) = mpsc::channel(4);
        let (dialled, mut supervisors) = mpsc::channel(4);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(serve(listener, vec![own], served));
        tasks.spawn(dial(path, vec![own], dialled));

        let mut front = fronts.recv().await.unwrap();
        let mut supervisor = supervisors.recv().await.unwrap();
        let assignment = Assignment {
            runner_name: "r".into(),
            jit_config: "s3cret".to_owned().into(),
        };
        assert!(!format!("{assignment:?}").contains("s3cret"));
        supervisor.to.send(Order::Assign(assignment)).await.unwrap();
        let Some(Order::Assign(assignment)) = front.from.recv().await else {
            panic!("another order")
        };
        assert_eq!(assignment.jit_config.expose_secret(), "s3cret");
        // One that is too long for a frame is left out, and the connection stays.
        let long = Report::State(HostState {
            runner_version: "x".repeat(super::FRAME_MAX),
            ..HostState::default()
        });
        front.to.send(long).await.unwrap();
        for report in [
            Report::State(HostState::default()),
            Report::Event(AgentEvent {
                sequence: 7,
                ..AgentEvent::default()
            }),
            Report::Sample(Sample {
                cpu_count: 2,
                ..Sample::default()
            }),
            Report::Done,
        ] {
            front.to.send(report.clone()).await.unwrap();
            let heard = supervisor.from.recv().await.unwrap();
            assert_eq!(format!("{heard:?}"), format!("{report:?}"));
        }

        drop(front);
        assert!(supervisor.from.recv().await.is_none());
        let _again = supervisors.recv().await.unwrap();
        let _front = fronts.recv().await.unwrap();
    }

    #[tokio::test]
    async fn a_stranger_gets_no_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = listen(&path, Gid::current()).unwrap();
        let stranger = Uid::current().as_raw() + 1;
        let (served, mut fronts) = mpsc::channel(4);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(serve(listener, vec![stranger], served));
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let mut nothing = [0; 1];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut nothing).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        assert!(fronts.try_recv().is_err());
    }

    #[test]
    fn only_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        let error = listen(&path, Gid::current()).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}

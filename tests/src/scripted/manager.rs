//! The part of systemd that a service talks to: its notices, and the store for descriptors.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use tokio::process::Command;

use crate::world::build::binary;

/// The manager of one service.
pub struct Manager {
    socket: UnixDatagram,
    dir: PathBuf,
}

impl Manager {
    /// A manager whose socket is in `dir`.
    pub fn new(dir: &Path) -> Self {
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            dir: dir.to_owned(),
        }
    }

    /// Lets `command` find this manager.
    pub fn manage(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.dir.join("notify"));
    }

    /// Everything that was said since the last call. Content that is to be stored ends in the file `stored`.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        loop {
            let mut text = [0; 4096];
            let mut space = cmsg_space!([std::os::fd::RawFd; 4]);
            let mut parts = [IoSliceMut::new(&mut text)];
            let Ok(message) = recvmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::empty(),
            ) else {
                return notices;
            };
            for part in message.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(descriptors) = part {
                    // The path is opened anew: the descriptor itself stays with this process.
                    let path = format!("/proc/self/fd/{}", descriptors[0]);
                    std::fs::copy(path, self.dir.join("stored")).unwrap();
                }
            }
            let length = message.bytes;
            notices.push(String::from_utf8(text[..length].to_vec()).unwrap());
        }
    }

    /// A command that starts the agent as its manager would after a crash.
    pub fn restart(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3< "$STORED""#)
            .arg(binary("muster-agent").unwrap())
            .args([command, "--config", "-"])
            .env("STORED", self.dir.join("stored"));
        self.manage(&mut shell);
        shell
    }
}

//! The sockets to the databases.

use std::fs;
use std::os::fd::{BorrowedFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt::TcpNoDelay};

/// Has all TCP sockets of this process send at once.
///
/// sqlx leaves Nagle's algorithm on, and hands no socket out. With it, the end of each COPY waits until the server's kernel
/// has acknowledged the rows, which it delays by 40 ms.
#[expect(unsafe_code, reason = "only the numbers of the sockets are known")]
pub fn send_at_once() {
    let Ok(files) = fs::read_dir("/dev/fd") else { return };
    let numbers = files.flatten().filter_map(|file| file.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers {
        // SAFETY: it lives for one system call. That refuses a number that was closed meanwhile, and what is no TCP socket.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = setsockopt(&file, TcpNoDelay, &true);
    }
}

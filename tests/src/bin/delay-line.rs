//! A network line with a delay, for kernels without `netem`: takes each frame from one of two interfaces, and puts it on
//! the other one so many milliseconds later.
//!
//! `delay-line ONE OTHER MILLISECONDS` runs until it is killed, and says `ready` when it carries frames. The interfaces'
//! own traffic has to be kept from the kernel (`Device::delay` does), else it would go two ways. Frames are taken and given
//! with their offload facts (`PACKET_VNET_HDR`): checksums that are not made yet stay so, and nothing has to be switched off.
//!
//! A line holds [`LONGEST`] frames each way and loses what is beyond it, as lines do.

#![allow(unsafe_code, reason = "packet sockets have no safe wrapper in what this workspace uses")]

use std::{
    error::Error,
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// About 0.1 s of a gigabit.
const LONGEST: usize = 8_192;
/// A frame with the largest offload, and its header.
const LARGEST: usize = 70_000;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [one, other, millis] = arguments.as_slice() else { return Err("delay-line ONE OTHER MILLISECONDS".into()) };
    let delay = Duration::from_millis(millis.parse()?);
    let (one, other) = (Arc::new(socket(one)?), Arc::new(socket(other)?));
    let there = carry(Arc::clone(&one), Arc::clone(&other), delay);
    let back = carry(other, one, delay);
    io::Write::write_all(&mut io::stdout(), b"ready\n")?;
    for thread in there.into_iter().chain(back) {
        thread.join().map_err(|_| "a thread has panicked")?;
    }
    Ok(())
}

/// Two threads: one that takes frames, one that waits and gives them.
fn carry(from: Arc<OwnedFd>, to: Arc<OwnedFd>, delay: Duration) -> [std::thread::JoinHandle<()>; 2] {
    let (sender, frames) = mpsc::sync_channel::<(Instant, Vec<u8>)>(LONGEST);
    let takes = std::thread::spawn(move || {
        let mut buffer = vec![0_u8; LARGEST];
        loop {
            let length = unsafe { libc::recv(from.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            // An interface that is down gives an error, and is up again later.
            let Ok(length) = usize::try_from(length) else { continue };
            // When it is full, the frame is lost.
            if let Err(mpsc::TrySendError::Disconnected(_)) =
                sender.try_send((Instant::now() + delay, buffer[..length].to_vec()))
            {
                return;
            }
        }
    });
    let gives = std::thread::spawn(move || {
        for (due, frame) in frames {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // As a line whose other end is unplugged: what can't be given is lost.
            unsafe { libc::send(to.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        }
    });
    [takes, gives]
}

/// Sees all that comes in on an interface.
fn socket(interface: &str) -> io::Result<OwnedFd> {
    let every = i32::from(u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be());
    let name = CString::new(interface)?;
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // Without a protocol it hears nothing until it is bound to one interface.
    let socket = unsafe {
        let socket = done(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(socket)
    };
    set(&socket, libc::PACKET_VNET_HDR)?;
    set(&socket, PACKET_IGNORE_OUTGOING)?;
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(every).unwrap_or_default();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = u32::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    done(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

fn set(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = u32::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), length) };
    done(result).map(|_| ())
}

fn done(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

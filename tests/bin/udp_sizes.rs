//! In a guest: sends UDP datagrams of every size to an echo and checks that each comes back whole.
//!
//! `udp-sizes echo` answers; `udp-sizes ask ADDRESS FROM TO STEP` asks. The kernel checks checksums on the way.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const PORT: u16 = 7007;
/// The longest datagram over IPv4: 65535 bytes less the headers of IP and UDP.
const LONGEST: usize = 65_507;
/// Tries for one size: an emulated guest may lose a fragment of a long one for want of time.
const TRIES: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["echo"] => echo(),
        ["ask", address, from, to, step] => ask(address, from.parse()?, to.parse()?, step.parse()?),
        _ => bail!("udp-sizes echo | udp-sizes ask ADDRESS FROM TO STEP"),
    }
}

fn echo() -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        // Lost answers are asked for again.
        let _ = socket.send_to(&buffer[..len], from);
    }
}

fn ask(address: &str, from: usize, to: usize, step: usize) -> Result<()> {
    ensure!(from >= 1 && to <= LONGEST && step >= 1, "sizes are within 1 and {LONGEST}");
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let peer: SocketAddr = format!("{address}:{PORT}").parse().context("the address")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut sizes, mut again) = (0, 0);
    for size in (from..=to).step_by(step) {
        again += exchange(&socket, peer, size)?;
        sizes += 1;
    }
    println!("{sizes} sizes came back whole, {again} were asked for again");
    Ok(())
}

/// Sends `size` bytes until they come back; how often more than once.
fn exchange(socket: &UdpSocket, peer: SocketAddr, size: usize) -> Result<usize> {
    let sent: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
    let mut got = vec![0; LONGEST + 1];
    for again in 0..TRIES {
        socket.send_to(&sent, peer)?;
        while let Ok((len, _)) = socket.recv_from(&mut got) {
            // Late answers are of other sizes.
            if len == size {
                ensure!(got[..len] == sent, "a datagram of {size} bytes came back changed");
                return Ok(again);
            }
        }
    }
    bail!("no datagram of {size} bytes came back in {TRIES} tries")
}

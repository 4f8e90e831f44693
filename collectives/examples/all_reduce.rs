//! Measures all-reduce between processes over loopback; prints one JSON line a size.
//!
//! `cargo run -p unimse-collectives --example all_reduce -- [network] [WORLD]...` (default: 2 4); with `network` the ranks act as
//! if they were on different hosts. `seconds` is the median time of a call, `gb_per_s` the bytes reduced by it; `xtask/peers/gloo_all_reduce.py` prints the same lines for Gloo.
#![expect(clippy::print_stdout, reason = "the lines are the result")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use unimse_collectives::Collective;
use unimse_collectives::tcp::{self, Listener, Rendezvous, Secret};

const KIB: usize = 1024;
const SIZES: [usize; 9] =
    [64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 10 * 1024 * KIB, 100 * 1024 * KIB];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let network = arguments.iter().any(|argument| argument == "network");
    if let [word, rank, ..] = arguments.as_slice()
        && word == "rank"
    {
        return be_rank(rank.parse()?, network);
    }
    let numbers = arguments.iter().filter(|argument| *argument != "network");
    let worlds: Vec<u32> = numbers.map(|world| world.parse()).collect::<Result<_, _>>()?;
    for world in if worlds.is_empty() { vec![2, 4] } else { worlds } {
        measure(world, network)?;
    }
    Ok(())
}

/// Starts a process a rank, tells all of them the addresses, and waits.
fn measure(world: u32, network: bool) -> Result<(), Box<dyn Error>> {
    let mut children: Vec<Child> = (0..world)
        .map(|rank| {
            Command::new(std::env::current_exe()?)
                .args(["rank", &rank.to_string(), if network { "network" } else { "" }])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    let mut outputs = Vec::new();
    let mut addresses = Vec::new();
    for child in &mut children {
        let mut output = BufReader::new(child.stdout.take().ok_or("a child has its output piped")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        addresses.push(line.trim().to_owned());
        outputs.push(output);
    }
    for child in &mut children {
        writeln!(child.stdin.take().ok_or("a child has its input piped")?, "{}", addresses.join(" "))?;
    }
    for line in outputs.remove(0).lines() {
        println!("{}", line?);
    }
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn be_rank(rank: u32, network: bool) -> Result<(), Box<dyn Error>> {
    let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    if network {
        listener = listener.network_only();
    }
    let system = if network { "unimse-tcp" } else { "unimse-tcp+memory" };
    println!("{}", listener.address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let peers: Vec<SocketAddr> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let world = peers.len();
    let rendezvous = Rendezvous { secret: Secret::new(b"bench"), generation: 1, rank, peers };
    let mut group = tcp::connect(&rendezvous, listener, Duration::from_secs(10))?;
    for bytes in SIZES {
        let mut values = vec![1.0f32; bytes / 4];
        let calls = (400 * 1024 * KIB / bytes).clamp(8, 3000);
        let mut times = Vec::with_capacity(calls);
        for call in 0..calls + calls.min(20) {
            values.fill(1.0);
            let before = Instant::now();
            group.all_reduce(values.as_mut_slice().into())?;
            if call >= calls.min(20) {
                times.push(before.elapsed().as_secs_f64());
            }
        }
        if values.iter().any(|&value| value != world as f32) {
            return Err("the sum is wrong".into());
        }
        times.sort_by(f64::total_cmp);
        let seconds = times[times.len() / 2];
        if rank == 0 {
            println!(
                r#"{{"bench":"all_reduce","system":"{system}","world":{world},"bytes":{bytes},"seconds":{seconds:.9},"gb_per_s":{:.4}}}"#,
                bytes as f64 / seconds / 1e9
            );
        }
    }
    group.barrier()?;
    Ok(())
}

//! All-reduce of f32 between processes of one host beside Gloo, in turn: rounds of ours and theirs, the median of their
//! medians.
//!
//! `cargo bench -p unimse-collectives --bench allreduce -- [network] [slow] [WORLD]...` (default: 2 4). With `network` the ranks
//! are measured also as if they were on different hosts, with `slow` at 100 Mbit/s, as f32 and as bf16. `UNIMSE_PEER_PYTHON` names a Python that has torch; without it only
//! ours is measured. Ranks share cores where there are fewer, so other work beside shows: measure on a quiet machine.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use unimse_collectives::tcp::{self, Listener, Rendezvous, Secret};
use unimse_collectives::{Collective, Wire};

const KIB: usize = 1024;
/// Sizes in bytes, what they are called, and how many times as fast as Gloo we promise to be.
const SIZES: [(usize, &str, u32); 6] = [
    (KIB, "1 KiB", 5),
    (16 * KIB, "16 KiB", 5),
    (64 * KIB, "64 KiB", 5),
    (KIB * KIB, "1 MiB", 2),
    (10 * KIB * KIB, "10 MiB", 2),
    (100 * KIB * KIB, "100 MiB", 2),
];
const ROUNDS: usize = 3;
/// The sizes that are measured over a slow network, whose rate is that of 100 Mbit/s.
const SLOW_SIZES: [(usize, &str); 2] = [(KIB * KIB, "1 MiB"), (10 * KIB * KIB, "10 MiB")];
const SLOW_BYTES_PER_SECOND: u64 = 12_500_000;

/// How the ranks reach each other, as it stands in their arguments.
type Way = &'static str;
const MEMORY: Way = "memory";
const NETWORK: Way = "network";
const SLOW: Way = "slow";
const SLOW_BF16: Way = "slow-bf16";

/// The median time of a call in seconds, by size.
type Times = BTreeMap<usize, f64>;
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [word, rank, way] = arguments.as_slice()
        && word == "rank"
    {
        return be_rank(rank.parse()?, way);
    }
    let asked = |way: Way| arguments.iter().any(|argument| argument == way);
    let worlds: Vec<u32> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let python = env::var_os("UNIMSE_PEER_PYTHON").filter(has_torch);
    if python.is_none() {
        eprintln!("skipped: UNIMSE_PEER_PYTHON names no Python with torch");
    }
    for world in if worlds.is_empty() { vec![2, 4] } else { worlds } {
        let (mut ours, mut over_tcp, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(measure_ours(world, MEMORY)?);
            theirs.extend(python.as_ref().map(|python| measure_gloo(python, world)).transpose()?);
            if asked(NETWORK) {
                over_tcp.push(measure_ours(world, NETWORK)?);
            }
        }
        report(world, &ours, &over_tcp, &theirs);
        if asked(SLOW) {
            report_slow(world, &measure_ours(world, SLOW)?, &measure_ours(world, SLOW_BF16)?);
        }
    }
    Ok(())
}

fn has_torch(python: &OsString) -> bool {
    let import = Command::new(python).args(["-c", "import torch.distributed"]).stderr(Stdio::null()).status();
    import.is_ok_and(|status| status.success())
}

fn report(world: u32, ours: &[Times], over_tcp: &[Times], theirs: &[Times]) {
    for (bytes, size, budget) in SIZES {
        let name = format!("{world} ranks, {size}");
        let gloo = median_of(theirs, bytes);
        let ways = [
            (String::new(), median_of(ours, bytes), Some(budget)),
            (" over TCP".to_owned(), median_of(over_tcp, bytes), None),
        ];
        for (way, time, budget) in ways {
            let Some(time) = time else { continue };
            line(&format!("{name}{way}: time"), time * 1e6, "us", "lower", None);
            if let Some(gloo) = gloo {
                line(&format!("{name}{way}: speed against Gloo"), gloo / time, "x", "higher", budget);
            }
        }
        if let Some(gloo) = gloo {
            line(&format!("{name}: time of Gloo"), gloo * 1e6, "us", "lower", None);
        }
    }
}

fn report_slow(world: u32, numbers: &Times, rounded: &Times) {
    for (bytes, size) in SLOW_SIZES {
        let (Some(number), Some(rounded)) = (numbers.get(&bytes), rounded.get(&bytes)) else { continue };
        let name = format!("{world} ranks, {size} at 100 Mbit/s");
        line(&format!("{name}: time"), number * 1e6, "us", "lower", None);
        line(&format!("{name} in bf16: time"), rounded * 1e6, "us", "lower", None);
        line(&format!("{name}: speed in bf16 against f32"), number / rounded, "x", "higher", None);
    }
}

fn line(name: &str, value: f64, unit: &str, better: &str, budget: Option<u32>) {
    let budget = budget.map_or(String::new(), |budget| format!(r#", "budget": {budget}"#));
    println!(r#"{{"name": "{name}", "value": {value:.3}, "unit": "{unit}", "better": "{better}"{budget}}}"#);
}

fn median_of(rounds: &[Times], bytes: usize) -> Option<f64> {
    median(rounds.iter().filter_map(|round| round.get(&bytes).copied()).collect())
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

/// Starts a process a rank, tells all of them the addresses, and reads what rank 0 measured.
fn measure_ours(world: u32, way: Way) -> Result<Times> {
    let mut children: Vec<Child> = (0..world)
        .map(|rank| {
            let mut command = Command::new(env::current_exe()?);
            command.args(["rank", &rank.to_string(), way]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
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
    let times = read_times(outputs.remove(0).lines().collect::<Result<Vec<_>, _>>()?.join("\n").as_str());
    for mut child in children {
        if !child.wait()?.success() {
            return Err("a rank failed".into());
        }
    }
    Ok(times)
}

fn measure_gloo(python: &OsString, world: u32) -> Result<Times> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/peers/gloo_all_reduce.py");
    let sizes = SIZES.map(|(bytes, ..)| bytes.to_string()).join(",");
    let output = Command::new(python).arg(script).arg(format!("sizes={sizes}")).arg(world.to_string()).output()?;
    if !output.status.success() {
        return Err(format!("Gloo failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(read_times(&String::from_utf8_lossy(&output.stdout)))
}

/// The times of lines like `{"bytes": 1024, "seconds": 0.0002}`.
fn read_times(lines: &str) -> Times {
    let field = |line: &str, name: &str| -> Option<f64> {
        let (_, rest) = line.split_once(&format!("\"{name}\": "))?;
        rest.split([',', '}']).next()?.trim().parse().ok()
    };
    lines.lines().filter_map(|line| Some((field(line, "bytes")? as usize, field(line, "seconds")?))).collect()
}

fn be_rank(rank: u32, way: &str) -> Result<()> {
    let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let (mut sizes, mut most_calls) = (SIZES.map(|(bytes, ..)| bytes).to_vec(), 3000);
    if way == NETWORK {
        listener = listener.network_only();
    } else if way != MEMORY {
        listener = listener.limited(SLOW_BYTES_PER_SECOND);
        (sizes, most_calls) = (SLOW_SIZES.map(|(bytes, _)| bytes).to_vec(), 5);
    }
    println!("{}", listener.address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let peers: Vec<SocketAddr> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let world = peers.len();
    let rendezvous = Rendezvous { secret: Secret::new(b"bench"), generation: 1, rank, peers };
    let mut group = tcp::connect(&rendezvous, listener, Duration::from_secs(10))?;
    for bytes in sizes {
        let mut values = vec![1.0f32; bytes / 4];
        let calls = (400 * KIB * KIB / bytes).max(8).min(most_calls);
        let warm = calls.min(20);
        let mut times = Vec::with_capacity(calls);
        for call in 0..calls + warm {
            values.fill(1.0);
            let before = Instant::now();
            if way == SLOW_BF16 {
                group.all_reduce_compressed(&mut values, Wire::Bf16)?;
            } else {
                group.all_reduce(values.as_mut_slice().into())?;
            }
            if call >= warm {
                times.push(before.elapsed().as_secs_f64());
            }
        }
        if values.iter().any(|&value| value != world as f32) {
            return Err("the sum is wrong".into());
        }
        if rank == 0 {
            let seconds = median(times).ok_or("something was measured")?;
            println!(r#"{{"bytes": {bytes}, "seconds": {seconds:.9}}}"#);
        }
    }
    group.barrier()?;
    Ok(())
}

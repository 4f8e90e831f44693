//! Our side, in processes of its own: `ours FOLDER STEPS THREADS`, `ranks FOLDER STEPS THREADS WORLD`, `lengths FOLDER THREADS MICRO`,
//! `slow FOLDER WAY MICRO MEGABITS` (two ranks), `saving FOLDER STEPS THREADS TO SAVES`, each with `[--device cuda]
//! [--precision bf16] [--graphs]`. They print one line of JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use unimse_collectives::tcp::{self, Listener, Rendezvous, Secret};
use unimse_collectives::{Collective, local};
use unimse_core::spec::{Precision, SyncSpec};
use unimse_worker::trainer::torch::step_bench::{self, Options};

/// Steps that are not timed.
const WARM: u64 = 3;
/// Steps before factors replace gradients.
pub(super) const FACTORS_FROM: u32 = 20;

/// Runs one of the commands above, if it is one.
pub(super) fn ran(arguments: &[String]) -> bool {
    // Cargo's own flag: what comes before it names cases, some of which are called as the commands are.
    if arguments.iter().any(|argument| argument == "--bench") {
        return false;
    }
    let number = |place: usize| arguments[place].parse::<u32>().expect("a number");
    let options = |steps: u32, threads: u32| {
        let said = |pair: [&str; 2]| arguments.windows(2).any(|window| window == pair);
        let (cuda, bf16) = (said(["--device", "cuda"]), said(["--precision", "bf16"]));
        let graphs = arguments.iter().any(|argument| argument == "--graphs");
        Options { steps: u64::from(steps), warm: WARM, threads, cuda, bf16, graphs, ..Options::default() }
    };
    let alone = || Box::new(local::group(1, 0).remove(0)) as Box<dyn Collective>;
    let folder = || Path::new(&arguments[1]);
    match arguments.first().map(String::as_str) {
        Some("ours") => tell(step_bench::run(folder(), options(number(2), number(3)), alone())),
        Some("lengths") => {
            tell(step_bench::run_lengths(folder(), options(0, number(2)), number(3) as usize, alone()));
        }
        Some("speed") => println!("{}", serde_json::json!({"flops": step_bench::product_speed(number(1))})),
        Some("ranks") => ranks("rank", &arguments[1..4], number(4)),
        Some("rank") => tell(step_bench::run(folder(), options(number(2), number(3)), met(number(4), None))),
        Some("saving") => {
            let to = (Path::new(&arguments[4]), u64::from(number(5)));
            tell(step_bench::run_saving(folder(), options(number(2), number(3)), alone(), to));
        }
        Some("slow") => ranks("slow-rank", &arguments[1..5], 2),
        Some("slow-rank") => {
            let options = Options { sync: sync(&arguments[2]), ..options(0, 1) };
            let (rank, group) = (number(5), met(number(5), Some(number(4))));
            let (group, part) = if arguments[2] == "alone" { (alone(), Some((rank, 2))) } else { (group, None) };
            tell(step_bench::run_lengths(folder(), Options { part, ..options }, number(3) as usize, group));
        }
        _ => return false,
    }
    true
}

fn tell<T: serde::Serialize>(outcome: Result<T, String>) {
    match outcome {
        Ok(outcome) => println!("{}", serde_json::to_string(&outcome).expect("plain data")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

/// Starts a process a rank, tells all of them the addresses, and prints what rank 0 found.
fn ranks(role: &str, arguments: &[String], world: u32) {
    let own = std::env::current_exe().expect("this program has a path");
    let start = |rank: u32| {
        let mut command = Command::new(&own);
        command.arg(role).args(arguments).arg(rank.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts")
    };
    let mut children: Vec<Child> = (0..world).map(start).collect();
    let mut outputs: Vec<_> =
        children.iter_mut().map(|child| BufReader::new(child.stdout.take().expect("its output is piped"))).collect();
    let addresses: Vec<String> = outputs.iter_mut().map(line).collect();
    for child in &mut children {
        let mut input = child.stdin.take().expect("its input is piped");
        writeln!(input, "{}", addresses.join(" ")).expect("it listens");
    }
    let mut outcome = String::new();
    outputs[0].read_to_string(&mut outcome).expect("it prints text");
    for child in &mut children {
        assert!(child.wait().expect("it ends").success(), "a rank failed");
    }
    print!("{outcome}");
}

fn line(input: &mut impl BufRead) -> String {
    let mut line = String::new();
    input.read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

/// How ranks agree, by the name of a way.
fn sync(way: &str) -> SyncSpec {
    let usual = SyncSpec::default();
    match way {
        "alone" | "plain" => usual,
        "bf16" => SyncSpec { precision: Precision::Bf16, ..usual },
        "rounds" => SyncSpec { every: 50, precision: Precision::Bf16, ..usual },
        "factors" => SyncSpec { rank: 2, warmup: u64::from(FACTORS_FROM), precision: Precision::Bf16, ..usual },
        way => match way.split_once('-').and_then(|(name, value)| Some((name, value.parse::<u32>().ok()?))) {
            Some(("rounds", every)) => SyncSpec { every: u64::from(every), precision: Precision::Bf16, ..usual },
            Some(("factors", rank)) => {
                SyncSpec { rank, warmup: u64::from(FACTORS_FROM), precision: Precision::Bf16, ..usual }
            }
            _ => panic!("there is no way `{way}`"),
        },
    }
}

/// Meets the other ranks: says where it listens, and reads where all do. A rank may be limited in what it sends, as over a slow
/// network.
fn met(rank: u32, megabits: Option<u32>) -> Box<dyn Collective> {
    let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    if let Some(megabits) = megabits {
        listener = listener.limited(u64::from(megabits) * 125_000);
    }
    println!("{}", listener.address());
    let addresses = line(&mut std::io::stdin().lock());
    let peers: Vec<SocketAddr> = addresses.split(' ').map(|peer| peer.parse().expect("an address")).collect();
    let rendezvous = Rendezvous { secret: Secret::new(b"bench"), generation: 1, rank, peers };
    Box::new(tcp::connect(&rendezvous, listener, Duration::from_secs(30)).expect("the ranks meet"))
}

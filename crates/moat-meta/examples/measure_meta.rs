//! Measures the embedded engine: commits per second and CPU per commit, reads, scans.
//!
//! `cargo run --release -p moat-meta --example measure_meta -- FOLDER [SECONDS]`; the folder must be on
//! the disk to be measured, and should not exist. Rows look like those of the store: an object
//! row of 500 bytes under an ordered key, and for small objects a sealed body of 4,200 bytes under
//! a random key.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool that prints figures"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moat_meta::{Check, Embedded, MetaStore, Options, Outcome, Write};
use moat_types::{Random, SystemRandom};
use tokio::task::JoinSet;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder is the first argument");
    let seconds = arguments.next().map_or(3, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let began = Instant::now();
    let store = Arc::new(Embedded::open(&folder, Options::default()).unwrap());
    println!("open: {:?}", began.elapsed());
    runtime.block_on(async {
        // The first rounds use the log's files for the first time.
        commits(&store, "PUT of 4 KiB (first)", 64, seconds, put_4k).await;
        for tasks in [1, 8, 64] {
            commits(&store, "3 rows of 400 B", tasks, seconds, small_commit).await;
            commits(&store, "PUT of 4 KiB", tasks, seconds, put_4k).await;
        }
        reads(&store).await;
        scans(&store).await;
    });
    drop(runtime);
    let began = Instant::now();
    drop(store);
    println!("close: {:?}", began.elapsed());
    let began = Instant::now();
    let store = Embedded::open(&folder, Options::default()).unwrap();
    println!("open again: {:?}; {}", began.elapsed(), memory());
    drop(store);
}

fn small_commit(n: u64) -> (Vec<Check>, Vec<Write>) {
    let key = |kind: &str| Bytes::from(format!("o/bucket/{kind}/{n:012}"));
    let value = Bytes::from(vec![n as u8; 400]);
    let check = Check {
        key: key("a"),
        expected: None,
    };
    let writes = ["a", "b", "c"].map(|kind| Write::Put(key(kind), value.clone()));
    (vec![check], writes.into())
}

fn put_4k(n: u64) -> (Vec<Check>, Vec<Write>) {
    let key = Bytes::from(format!("o/bucket/put/{n:012}"));
    let mut blob = vec![b'b'; 17];
    SystemRandom.fill(&mut blob[1..]);
    let check = Check {
        key: key.clone(),
        expected: None,
    };
    let writes = vec![
        Write::Put(key, Bytes::from(vec![n as u8; 500])),
        Write::Put(blob.into(), Bytes::from(vec![n as u8; 4_200])),
    ];
    (vec![check], writes)
}

async fn commits(
    store: &Arc<Embedded>,
    name: &str,
    tasks: u64,
    seconds: u64,
    make: fn(u64) -> (Vec<Check>, Vec<Write>),
) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (began, cpu, threads) = (Instant::now(), cpu_time(), thread_times());
    let until = began + Duration::from_secs(seconds);
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        let store = store.clone();
        set.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let (checks, writes) = make(NEXT.fetch_add(1, Ordering::Relaxed));
                let began = Instant::now();
                let outcome = store.commit(checks, writes).await.unwrap();
                assert_eq!(outcome, Outcome::Committed);
                times.push(began.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = set.join_all().await.into_iter().flatten().collect();
    let (elapsed, cpu) = (began.elapsed(), cpu_time() - cpu);
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 1_000];
    println!(
        "commit {name}, {tasks:2} tasks: {:6.0}/s, {:5.1} us CPU each, p50 {:?} p99 {:?} p99.9 {:?} max {:?}; {}",
        times.len() as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / times.len() as f64,
        at(500),
        at(990),
        at(999),
        at(1_000),
        memory(),
    );
    for (name, time) in thread_times() {
        let time = time - threads.get(&name).copied().unwrap_or_default();
        let each = time.as_secs_f64() * 1e6 / times.len() as f64;
        println!("    {name}: {each:.1} us each");
    }
}

/// CPU of each thread, summed by name; to a hundredth of a second.
fn thread_times() -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // pid (name) state ... with user and system time as fields 14 and 15.
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        *times.entry(name.to_owned()).or_default() += Duration::from_millis(ticks * 10);
    }
    times
}

async fn reads(store: &Embedded) {
    let page = store.scan(everything(), 50_000, 1 << 30).await.unwrap();
    let keys: Vec<&[u8]> = page.rows().map(|row| row.0).collect();
    let cpu = cpu_time();
    let count = 200_000_usize;
    for n in 0..count {
        let key = keys[n.wrapping_mul(7_919) % keys.len()];
        assert!(store.get(key).await.unwrap().is_some());
    }
    let each = (cpu_time() - cpu).as_secs_f64() * 1e6 / count as f64;
    println!("get: {each:.2} us CPU");
    let cpu = cpu_time();
    for n in 0..count {
        let key = format!("o/bucket/a/{n:012}x");
        assert!(store.get(key.as_bytes()).await.unwrap().is_none());
    }
    let each = (cpu_time() - cpu).as_secs_f64() * 1e6 / count as f64;
    println!("get of a missing row: {each:.2} us CPU");
}

async fn scans(store: &Embedded) {
    for page_rows in [20, 1_000] {
        let mut range = everything();
        let (cpu, mut rows) = (cpu_time(), 0);
        while rows < 300_000 {
            let page = store.scan(range.clone(), page_rows, 1 << 30).await.unwrap();
            rows += page.len();
            if page.len() < page_rows {
                break;
            }
            let mut next = page.row(page.len() - 1).0.to_vec();
            next.push(0);
            range.start = next.into();
        }
        let rate = rows as f64 / (cpu_time() - cpu).as_secs_f64();
        println!("scan in pages of {page_rows}: {rate:.0} rows per second of CPU ({rows} rows)");
    }
}

fn everything() -> std::ops::Range<Bytes> {
    Bytes::from_static(b"o/")..Bytes::from_static(b"o0")
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

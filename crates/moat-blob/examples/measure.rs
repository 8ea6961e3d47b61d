//! Measures the disk engine: durable writes, reads of ranges, deletes, with CPU per operation.
//!
//! `cargo run --release -p moat-blob --example measure -- FOLDER [SECONDS]`; the folder must be on
//! the disk to be measured. Appends are of 64 KiB, as the store makes them.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool that prints figures"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_blob::{BlobReader, BlobStore, BlobWriter, Disk};
use moat_types::{BlobId, SystemRandom};
use tokio::task::JoinSet;

const CHUNK_BYTES: usize = 64 << 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder is the first argument");
    let seconds = arguments.next().map_or(2, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let disk = Arc::new(Disk::open(folder).unwrap());
    runtime.block_on(async {
        for (bytes, tasks) in [(256 << 10, 1), (256 << 10, 8), (64 << 20, 1), (64 << 20, 8)] {
            round(&disk, bytes, tasks, Duration::from_secs(seconds)).await;
        }
    });
}

/// Writes for a while, then reads all in ranges, then deletes all.
async fn round(disk: &Arc<Disk>, bytes: usize, tasks: usize, time: Duration) {
    let name = format!("{} KiB, {tasks} tasks", bytes >> 10);
    let meter = Meter::start();
    let until = Instant::now() + time;
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        let disk = disk.clone();
        set.spawn(async move {
            let mut written = Vec::new();
            let chunk = vec![0xA5; CHUNK_BYTES];
            while Instant::now() < until {
                let began = Instant::now();
                let id = BlobId::random(&SystemRandom);
                let mut writer = disk.create(id, bytes as u64).await.unwrap();
                for _ in 0..bytes / CHUNK_BYTES {
                    writer.append(&chunk).await.unwrap();
                }
                writer.finish().await.unwrap();
                written.push((id, began.elapsed()));
            }
            written
        });
    }
    let written: Vec<_> = set.join_all().await.into_iter().flatten().collect();
    let mut times: Vec<Duration> = written.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    meter.stop(
        &format!("write {name} (p50 {p50:?} p99 {p99:?})"),
        written.len(),
        bytes,
    );

    for range_bytes in [128 << 10, 1 << 20] {
        let meter = Meter::start();
        let mut count = 0;
        for (id, _) in written.iter().take(200) {
            let blob = disk.open(*id).await.unwrap();
            let mut at = 0;
            while at + range_bytes <= bytes as u64 && count < 5_000 {
                blob.read(at..at + range_bytes).await.unwrap();
                at += range_bytes;
                count += 1;
            }
        }
        if count > 0 {
            let name = format!("read {} KiB ranges", range_bytes >> 10);
            meter.stop(&name, count, range_bytes as usize);
        }
    }

    let meter = Meter::start();
    for (id, _) in &written {
        disk.delete(*id).await.unwrap();
    }
    meter.stop(&format!("delete {name}"), written.len(), bytes);
}

struct Meter {
    began: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            cpu: cpu_time(),
        }
    }

    fn stop(self, name: &str, count: usize, bytes: usize) {
        let (elapsed, cpu) = (self.began.elapsed(), cpu_time() - self.cpu);
        let gigabytes = (count * bytes) as f64 / f64::from(1 << 30);
        println!(
            "{name}: {:.0}/s, {:.0} us CPU each; {:.0} MiB/s, {:.2} s CPU per GiB",
            count as f64 / elapsed.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / count as f64,
            gigabytes * 1024.0 / elapsed.as_secs_f64(),
            cpu.as_secs_f64() / gigabytes,
        );
    }
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

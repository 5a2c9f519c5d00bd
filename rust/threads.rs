//! Rows of a buffer filled on many threads.

use std::panic::resume_unwind;

use crate::error::{Error, Result};

/// Bytes that are worth a thread: for fewer, starting it takes longer than writing them.
const BYTES_PER_THREAD: usize = 512 << 10;

/// The number of threads to use for so many bytes and rows: as asked for, or by the amount of work for 0.
pub(crate) fn choose(threads: usize, bytes: usize, rows: usize) -> usize {
    let threads = match threads {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            cores.min(bytes.div_ceil(BYTES_PER_THREAD))
        }
        threads => threads,
    };
    threads.clamp(1, rows.max(1))
}

/// Runs `work` on every share, the first on this thread.
///
/// Threads of this call only: a forked child has none of a pool's threads.
pub(crate) fn run<T: Send>(shares: Vec<T>, work: impl Fn(T) -> Result<()> + Copy + Send) -> Result<()> {
    let mut shares = shares.into_iter();
    let own = shares.next();
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for share in shares {
            running.push(std::thread::Builder::new().spawn_scoped(scope, move || work(share)).map_err(Error::Thread)?);
        }
        let own = own.map_or(Ok(()), work);
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).and(own)
    })
}

/// Fills rows of `length` bytes of `out` from the items that belong to them.
pub(crate) fn fill_rows<T: Sync>(
    items: &[T],
    length: usize,
    out: &mut [u8],
    threads: usize,
    fill: impl Fn(&T, &mut [u8]) -> Result<()> + Copy + Send + Sync,
) -> Result<()> {
    let rows = items.len().div_ceil(choose(threads, out.len(), items.len())).max(1);
    let shares = items.chunks(rows).zip(out.chunks_mut(rows * length)).collect();
    run(shares, |(items, out): (&[T], &mut [u8])| {
        items.iter().zip(out.chunks_exact_mut(length)).try_for_each(|(item, row)| fill(item, row))
    })
}

//! Throughput of the core on one thread: `cargo bench`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use t2i_native::batch::{Buffers, fill};
use t2i_native::pack::Pack;
use t2i_native::sampler::{Options, Sampler};
use t2i_native::tokenizer::{self, CAPTION_LENGTH, Tokenizer};

#[path = "../../rust/fixture.rs"]
#[allow(dead_code, reason = "written for the tests, which use all of it")]
mod fixture;

const ROWS: usize = 1024;

/// The obvious encoder: search the alphabet for each character.
fn search(caption: &str, out: &mut [u8]) {
    out.fill(0);
    for (slot, character) in out.iter_mut().zip(caption.chars().flat_map(char::to_lowercase)) {
        let found = tokenizer::ALPHABET.bytes().rposition(|byte| char::from(byte) == character);
        *slot = found.map_or(tokenizer::UNKNOWN, |found| u8::try_from(found + 1).expect("at most 70"));
    }
}

/// One character a look-up.
fn singly(caption: &str, table: &[u8; 256], out: &mut [u8]) {
    out.fill(0);
    for (slot, &byte) in out.iter_mut().zip(caption.as_bytes()) {
        *slot = table[usize::from(byte)];
    }
}

/// Clears the whole buffer first, and sets the ones afterwards.
fn cleared_first(ids: &[u8], out: &mut [f32]) {
    out.fill(0.0);
    for (caption, plane) in ids.chunks_exact(201).zip(out.chunks_exact_mut(201 * 70)) {
        for (column, &id) in caption.iter().enumerate() {
            if (1..tokenizer::UNKNOWN).contains(&id) {
                plane[(usize::from(id) - 1) * 201 + column] = 1.0;
            }
        }
    }
}

fn tokens(criterion: &mut Criterion) {
    let caption = "this flower has petals that are pink and has a yellow center with many thin stamens. ".repeat(2);
    let (mut ids, mut rival) = (vec![0; ROWS * 201], vec![0; ROWS * 201]);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes((caption.len() * ROWS) as u64));
    group.bench_function("table", |bench| {
        bench.iter(|| {
            ids.chunks_exact_mut(201).for_each(|row| tokenizer::encode(black_box(&caption), row).expect("a row"));
        });
    });
    let table: [u8; 256] =
        std::array::from_fn(|byte| tokenizer::id_of(char::from(u8::try_from(byte).expect("a byte"))));
    group.bench_function("one character at a time", |bench| {
        bench.iter(|| rival.chunks_exact_mut(201).for_each(|row| singly(black_box(&caption), &table, row)));
    });
    assert_eq!(ids, rival);
    group.bench_function("search", |bench| {
        bench.iter(|| rival.chunks_exact_mut(201).for_each(|row| search(black_box(&caption), row)));
    });
    group.finish();
    assert_eq!(ids, rival);

    for rows in [64, ROWS] {
        // A training batch, which fits the cache, and one that does not.
        let ids = &ids[..rows * 201];
        let mut out = vec![0.0_f32; rows * 201 * 70];
        let mut group = criterion.benchmark_group(format!("one_hot of {rows}"));
        group.throughput(Throughput::Bytes((out.len() * 4) as u64));
        group.bench_function("float32", |bench| {
            bench.iter(|| tokenizer::one_hot(black_box(ids), &mut out).expect("buffers that fit"));
        });
        let expected = out.clone();
        group.bench_function("cleared first", |bench| bench.iter(|| cleared_first(black_box(ids), &mut out)));
        assert_eq!(out, expected);
        group.bench_function("the same bytes of zeros", |bench| bench.iter(|| black_box(&mut out).fill(0.0)));
        group.finish();
    }
}

fn batches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let items: Vec<_> = (0..512)
        .map(|image| {
            let captions = [
                format!("this flower has petals that are pink and has a yellow center, number {image}"),
                format!("a flower with {image} long and thin petals of a white that turns to purple"),
            ];
            fixture::Item { class: image % 20, split: 0, captions: captions.to_vec() }
        })
        .collect();
    fixture::write(folder.path(), &[items], &["class"; 20], 76);
    let pack = Arc::new(Pack::open(folder.path(), false).expect("a pack"));
    let options = Options { batch: ROWS, captions_per_image: 4, ..Options::default() };
    let sampler = Sampler::new(Arc::clone(&pack), options).expect("a sampler");
    let plan = sampler.plan(0);
    let mut images = vec![0; ROWS * 64 * 64 * 3];

    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("plan", |bench| bench.iter(|| sampler.plan(black_box(1))));
    group.bench_function("fill images", |bench| {
        bench.iter(|| {
            let buffers = Buffers { images: Some(&mut images), ..Buffers::default() };
            fill(black_box(&plan), &pack, buffers, 1).expect("buffers that fit");
        });
    });
    group.finish();

    // Ids from the text of a pack beside ids from text at hand: what keeping captions as text costs a learned encoder.
    let rows: Vec<i64> = (0..1024).collect();
    let texts = pack.caption_texts(&rows).expect("rows of the pack");
    let mut group = criterion.benchmark_group("captions of a pack");
    group.throughput(Throughput::Elements(ROWS as u64));
    for tokenizer in [Tokenizer::Alphabet, Tokenizer::Bytes(CAPTION_LENGTH)] {
        let (mut ids, mut rival) = (vec![0; ROWS * CAPTION_LENGTH], vec![0; ROWS * CAPTION_LENGTH]);
        group.bench_function(format!("{tokenizer:?}"), |bench| {
            bench.iter(|| pack.read_captions(black_box(&rows), tokenizer, &mut ids, 1).expect("rows of the pack"));
        });
        group.bench_function(format!("{tokenizer:?}, text at hand"), |bench| {
            bench.iter(|| {
                for (text, row) in texts.iter().zip(rival.chunks_exact_mut(CAPTION_LENGTH)) {
                    tokenizer.encode(black_box(text), row).expect("a row");
                }
            });
        });
        assert_eq!(ids, rival);
    }
    group.finish();
}

criterion_group!(benches, tokens, batches);
criterion_main!(benches);

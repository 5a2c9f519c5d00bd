#![allow(clippy::type_complexity, reason = "tables")]

use super::*;
use crate::fixture::{self, Item, pixel};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs::File;

/// Two shards of three and two images with one to three captions.
fn items() -> Vec<Vec<Item>> {
    vec![
        vec![
            Item::new(0, 0, &["a red flower", "red petals"]),
            Item::new(1, 0, &["a blue flower"]),
            Item::new(0, 1, &["one", "two", "three"]),
        ],
        vec![Item::new(1, 1, &["last but one"]), Item::new(0, 0, &["last", "the last"])],
    ]
}

#[test]
fn a_pack_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
    let pack = Pack::open(folder.path(), true).unwrap();
    assert_eq!((pack.images(), pack.captions(), pack.image_size()), (5, 9, 5));
    assert_eq!(pack.class_names(), ["rose", "bluebell"]);
    assert_eq!(pack.classes(), [0, 1, 0, 1, 0]);
    assert_eq!(pack.splits(), [0, 0, 1, 1, 0]);
    assert_eq!(pack.caption_offsets(), [0, 2, 3, 6, 7, 9]);
    for image in 0..5 {
        for (at, &value) in pack.image(image).unwrap().iter().enumerate() {
            assert_eq!(value, pixel(image, at / 15, at / 3 % 5, at % 3));
        }
    }
    let texts: Vec<String> = items().concat().into_iter().flat_map(|item| item.captions).collect();
    for (row, text) in texts.iter().enumerate() {
        assert_eq!(pack.caption(row).unwrap(), *text);
    }
}

#[test]
fn rows_are_copied_in_the_order_asked_and_bad_indices_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
    let pack = Pack::open(folder.path(), false).unwrap();
    let mut out = vec![0; 3 * 75];
    pack.read_images(&[4, 0, 3], &mut out).unwrap();
    assert_eq!(out, [4, 0, 3].map(|image| pack.image(image).unwrap()).concat());
    assert_eq!(pack.caption_texts(&[8, 0]).unwrap(), ["the last", "a red flower"]);
    for bad in [-1, 9, i64::MAX, i64::MIN] {
        let message = pack.caption_texts(&[0, bad]).unwrap_err().to_string();
        assert_eq!(message, format!("caption index must be from 0 to 8, got {bad} at row 1"));
    }
    assert!(pack.read_images(&[0], &mut out).is_err(), "a buffer of the wrong length");
}

#[test]
fn a_pack_without_classes_has_minus_one_for_each_image() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &[vec![Item::new(-1, 0, &["a"]), Item::new(-1, 0, &["b"])]], &[], 2);
    let pack = Pack::open(folder.path(), true).unwrap();
    assert_eq!(pack.classes(), [-1, -1]);
    assert!(pack.class_names().is_empty());
}

#[test]
fn the_fingerprint_follows_the_data_and_not_the_file_names() {
    let print = |change: &dyn Fn(&mut Vec<Vec<Item>>), rename: bool| {
        let folder = tempfile::tempdir().unwrap();
        let mut items = items();
        change(&mut items);
        let mut manifest = fixture::write(folder.path(), &items, &["rose", "bluebell"], 5);
        if rename {
            std::fs::rename(folder.path().join("shard-00000.safetensors"), folder.path().join("x")).unwrap();
            manifest["shards"][0]["file"] = json!("x");
            std::fs::write(folder.path().join("pack.json"), manifest.to_string()).unwrap();
        }
        Pack::open(folder.path(), true).unwrap().fingerprint().to_owned()
    };
    let base = print(&|_| (), false);
    assert_eq!(base.len(), 64);
    assert_eq!(base, print(&|_| (), true));
    assert_ne!(base, print(&|items| items[0][0].captions[0].push('!'), false));
    assert_ne!(base, print(&|items| items.swap(0, 1), false));
}

type Change = Box<dyn Fn(&mut Value)>;

fn set(pointer: &'static str, value: Value) -> Change {
    Box::new(move |manifest| *manifest.pointer_mut(pointer).unwrap() = value.clone())
}

fn remove(name: &'static str) -> Change {
    Box::new(move |manifest| drop(manifest.as_object_mut().unwrap().remove(name)))
}

#[test]
fn hostile_manifests_are_refused_with_the_value_found() {
    let cases: Vec<(Change, &str)> = vec![
        (set("", json!([])), "expected an object with format and version"),
        (set("", json!("pack")), "expected an object"),
        (set("/format", json!("webdataset")), "must be of format t2i-pack 2, got \"webdataset\" 2"),
        (set("/version", json!(3)), "must be of format t2i-pack 2, got \"t2i-pack\" 3"),
        (remove("image_size"), "missing field `image_size`"),
        (remove("shards"), "missing field `shards`"),
        (remove("splits"), "missing field `splits`"),
        (set("/image_size", json!(0)), "image_size must be from 1 to 16384, got 0"),
        (set("/image_size", json!(1_u64 << 40)), "image_size must be from 1 to 16384"),
        (set("/image_size", json!(-5)), "invalid value"),
        (set("/image_size", json!(6)), "images must be U8 [3, 6, 6, 3], got U8 [3, 5, 5, 3]"),
        (set("/images", json!(6)), "images must be 5 as in the shards, got 6"),
        (set("/captions", json!(0)), "captions must be 9 as in the shards, got 0"),
        (set("/splits/test", json!(3)), "splits.test must be 2 as in the shards, got 3"),
        (set("/splits/train", json!(1)), "splits.train must be 3 as in the shards, got 1"),
        (set("/classes", json!([])), "class of image 0 must be -1, because pack.json names no classes, got 0"),
        (
            set("/classes", json!(["rose"])),
            "class of image 1 must be from 0 to 0, because pack.json names 1 classes, got 1",
        ),
        (set("/classes", json!([1, 2])), "invalid type"),
        (set("/shards", json!([])), "images must be 0 as in the shards, got 5"),
        (set("/shards/0/images", json!(u64::MAX)), "images of \"shard-00000.safetensors\" must be a count"),
        (set("/shards/0/captions", json!(u64::MAX)), "captions of \"shard-00000.safetensors\" must be a count"),
        (set("/shards/0/images", json!(2)), "images must be U8 [2, 5, 5, 3], got U8 [3, 5, 5, 3]"),
        (set("/shards/0/captions", json!(7)), "caption_byte_offsets must be I64 [8], got I64 [7]"),
        (set("/shards/0/bytes", json!(10)), "must have 10 bytes as pack.json says, got"),
        (set("/shards/0/sha256", json!("abc")), "must be 64 hex digits, got \"abc\""),
        (set("/shards/0/sha256", json!("0".repeat(64))), "sha256 must be 0000"),
        (set("/shards/0/file", json!("../x.safetensors")), "must be a plain name, got \"../x.safetensors\""),
        (set("/shards/0/file", json!("/etc/passwd")), "must be a plain name, got \"/etc/passwd\""),
        (set("/shards/0/file", json!("..")), "must be a plain name, got \"..\""),
        (set("/shards/0/file", json!(".")), "must be a plain name, got \".\""),
        (set("/shards/0/file", json!("")), "must be a plain name, got \"\""),
        (set("/shards/0/file", json!("./shard-00000.safetensors")), "must be a plain name"),
        (set("/shards/0/file", json!("a\u{0}b")), "must be a plain name"),
        (set("/shards/0/file", json!("a\\b")), "must be a plain name"),
        (set("/shards/0/file", json!("shard-00001.safetensors")), "is listed twice"),
        (set("/shards/0/file", json!("missing.safetensors")), "missing.safetensors: cannot be opened"),
        (set("/shards/0/file", json!("link")), "link that leads out of it"),
        (set("/shards/0/file", json!("folder")), "must be a file"),
    ];
    let outside = tempfile::NamedTempFile::new().unwrap();
    for (change, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        change(&mut manifest);
        std::fs::write(folder.path().join("pack.json"), manifest.to_string()).unwrap();
        let error = Pack::open(folder.path(), true).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.starts_with(folder.path().to_str().unwrap()), "the path comes first: {message}");
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
}

#[test]
fn text_that_is_not_a_manifest_is_refused() {
    for text in [&b""[..], b"{", b"\xff\xfe", b"nul", "[".repeat(100_000).as_bytes()] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pack.json"), text).unwrap();
        let message = Pack::open(folder.path(), false).unwrap_err().to_string();
        assert!(message.contains("pack.json: is not a valid pack.json"), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(Pack::open(folder.path(), false).unwrap_err().to_string().contains("pack.json: cannot be opened"));
    assert!(Pack::open(&folder.path().join("no"), false).unwrap_err().to_string().contains("no: cannot be opened"));
    std::fs::write(folder.path().join("file"), "").unwrap();
    let message = Pack::open(&folder.path().join("file"), false).unwrap_err().to_string();
    assert!(message.contains("must be a folder"), "{message}");
}

/// The pack.json of a single shard.
fn manifest_of(shard: &[u8], images: usize, captions: usize) -> Value {
    json!({
        "format": "t2i-pack", "version": 2, "image_size": 2, "images": images, "captions": captions,
        "classes": ["rose", "bluebell"], "splits": {"train": images, "test": 0},
        "shards": [fixture::entry("s", shard, images, captions)],
    })
}

fn open_with_shard(bytes: &[u8], images: usize, captions: usize) -> Result<Pack> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s"), bytes).unwrap();
    std::fs::write(folder.path().join("pack.json"), manifest_of(bytes, images, captions).to_string()).unwrap();
    Pack::open(folder.path(), true)
}

#[test]
fn hostile_tensors_are_refused_with_the_value_found() {
    let two = [Item::new(0, 0, &["a", "b"]), Item::new(1, 0, &["c"])];
    let offsets = |values: [i64; 3]| (Dtype::I64, vec![3], values.iter().flat_map(|v| v.to_le_bytes()).collect());
    let classes = |values: [i32; 2]| (Dtype::I32, vec![2], values.iter().flat_map(|v| v.to_le_bytes()).collect());
    let bytes = |text: &[u8]| (Dtype::U8, vec![text.len()], text.to_vec());
    let ends = |values: [i64; 4]| (Dtype::I64, vec![4], values.iter().flat_map(|v| v.to_le_bytes()).collect());
    let cases: Vec<(&'static str, (Dtype, Vec<usize>, Vec<u8>), &str)> = vec![
        ("caption_offsets", offsets([0, 2, 3]), ""), // the sound one
        ("caption_offsets", offsets([1, 2, 3]), "caption_offsets must start at 0, got 1"),
        ("caption_offsets", offsets([0, 2, 4]), "caption_offsets must end at 3, got 4"),
        (
            "caption_offsets",
            offsets([0, 0, 3]),
            "every image must have a caption, got caption_offsets 0 to 0 at image 0",
        ),
        ("caption_offsets", offsets([0, 3, 3]), "caption_offsets 3 to 3 at image 1"),
        ("caption_offsets", offsets([0, -1, 3]), "caption_offsets 0 to -1 at image 0"),
        ("caption_offsets", offsets([0, i64::MAX, 3]), "to 3 at image 1"),
        ("caption_offsets", (Dtype::I64, vec![2], vec![0; 16]), "caption_offsets must be I64 [3], got I64 [2]"),
        ("caption_offsets", (Dtype::U64, vec![3], vec![0; 24]), "caption_offsets must be I64 [3], got U64 [3]"),
        ("classes", classes([0, 2]), "class of image 1 must be from 0 to 1, because pack.json names 2 classes, got 2"),
        (
            "classes",
            classes([-1, 0]),
            "class of image 0 must be from 0 to 1, because pack.json names 2 classes, got -1",
        ),
        ("classes", classes([i32::MIN, 0]), "got -2147483648"),
        ("classes", (Dtype::I32, vec![2, 1], vec![0; 8]), "classes must be I32 [2], got I32 [2, 1]"),
        ("splits", (Dtype::U8, vec![2], vec![0, 2]), "split of image 1 must be 0 (train) or 1 (test), got 2"),
        ("splits", (Dtype::BOOL, vec![2], vec![0, 0]), "splits must be U8 [2], got BOOL [2]"),
        ("caption_bytes", bytes(b"xyz"), ""), // three captions of one letter each
        (
            "caption_bytes",
            bytes(b"xy"),
            "offsets must be from 0 to 2, the length of caption_bytes, got 2 to 3 at caption 2",
        ),
        ("caption_bytes", bytes(b"wxyz"), "caption_byte_offsets must end at 4, the length of caption_bytes, got 3"),
        ("caption_bytes", bytes(b"x\xffz"), "caption 1 must be UTF-8, got invalid utf-8 sequence of 1 bytes"),
        ("caption_bytes", bytes("x\u{e9}".as_bytes()), "caption 1 must be UTF-8"), // its two bytes are in two captions
        ("caption_bytes", (Dtype::U8, vec![3, 1], vec![65; 3]), "caption_bytes must be U8 of one dimension"),
        ("caption_bytes", (Dtype::I8, vec![3], vec![65; 3]), "caption_bytes must be U8"),
        ("caption_byte_offsets", ends([1, 1, 2, 3]), "caption_byte_offsets must start at 0, got 1"),
        (
            "caption_byte_offsets",
            ends([0, 1, 2, 2]),
            "caption_byte_offsets must end at 3, the length of caption_bytes, got 2",
        ),
        ("caption_byte_offsets", ends([0, 2, 1, 3]), "caption_byte_offsets must not fall, got 2 to 1 at caption 1"),
        (
            "caption_byte_offsets",
            ends([0, -1, 2, 3]),
            "must be from 0 to 3, the length of caption_bytes, got 0 to -1 at caption 0",
        ),
        ("caption_byte_offsets", ends([0, 1, i64::MAX, 3]), "got 1 to 9223372036854775807 at caption 1"),
        (
            "caption_byte_offsets",
            (Dtype::I64, vec![3], vec![0; 24]),
            "caption_byte_offsets must be I64 [4], got I64 [3]",
        ),
        ("images", (Dtype::F32, vec![2, 2, 2, 3], vec![0; 96]), "images must be U8 [2, 2, 2, 3], got F32 [2, 2, 2, 3]"),
        ("images", (Dtype::U8, vec![2, 3, 2, 2], vec![0; 24]), "images must be U8 [2, 2, 2, 3], got U8 [2, 3, 2, 2]"),
        ("names", (Dtype::U8, vec![2], vec![0xC3, 0x28]), "names must be UTF-8"),
        ("names", (Dtype::U8, vec![1, 1], vec![65]), "names must be U8 of one dimension"),
        ("attributes", (Dtype::I32, vec![2, 4], vec![0; 32]), ""), // unknown tensors are left alone
    ];
    for (name, tensor, expected) in cases {
        let mut tensors = fixture::tensors(&two, 0, 2);
        tensors.insert(name, tensor);
        let result = open_with_shard(&fixture::shard(&tensors), 2, 3);
        let message = result.as_ref().map_or_else(ToString::to_string, |_| String::new());
        assert_eq!(message.is_empty(), expected.is_empty(), "{name}: {message}");
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    }
    for name in ["images", "caption_bytes", "caption_byte_offsets", "caption_offsets", "classes", "splits", "names"] {
        let mut tensors = fixture::tensors(&two, 0, 2);
        tensors.remove(name);
        let message = open_with_shard(&fixture::shard(&tensors), 2, 3).unwrap_err().to_string();
        assert!(message.contains(&format!("must have a tensor {name}, got none")), "{message}");
    }
}

#[test]
fn shards_that_are_not_safetensors_are_refused() {
    let good = fixture::shard(&fixture::tensors(&[Item::new(0, 0, &["a"])], 0, 2));
    assert!(open_with_shard(&good, 1, 1).is_ok());
    let header = |text: &str, data: &[u8]| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), data].concat();
    let cases = [
        ("empty", Vec::new()),
        ("seven bytes", vec![0; 7]),
        ("no header", vec![0; 8]),
        ("a header longer than the file", 1000_u64.to_le_bytes().to_vec()),
        ("a huge header", [u64::MAX.to_le_bytes(), [0; 8]].concat()),
        ("a header of more than a megabyte", [&(2_u64 << 20).to_le_bytes()[..], &vec![b' '; 2 << 20]].concat()),
        ("not JSON", header("hello", b"")),
        ("offsets outside the file", header(r#"{"images":{"dtype":"U8","shape":[99],"data_offsets":[0,99]}}"#, b"x")),
        ("offsets turned round", header(r#"{"images":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#, b"x")),
        (
            "a shape that overflows",
            header(r#"{"images":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,1]}}"#, b"x"),
        ),
        ("a shape of another size", header(r#"{"images":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}"#, b"x")),
        ("cut by a byte", good[..good.len() - 1].to_vec()),
        ("a byte too many", [&good[..], &[0]].concat()),
    ];
    for (name, bytes) in cases {
        let error = open_with_shard(&bytes, 1, 1).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{name}");
        if name == "a header of more than a megabyte" {
            assert!(error.to_string().contains("must be at most 1048576 bytes, got 2097152"), "{error}");
        }
    }
}

/// A pack in memory and the same one in its files.
fn both(folder: &Path) -> [Pack; 2] {
    [2 << 30, 0].map(|memory| Pack::open_within(folder, true, memory).unwrap())
}

#[test]
fn a_pack_in_its_files_reads_as_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
    let [memory, file] = both(folder.path());
    for image in 0..5 {
        assert_eq!(memory.image(image).unwrap(), file.image(image).unwrap());
    }
    for row in 0..9 {
        assert_eq!(memory.caption(row).unwrap(), file.caption(row).unwrap());
    }
    assert_eq!(memory.fingerprint(), file.fingerprint());
}

/// Captions of every width of UTF-8, one of no character at all, the longest allowed, and more than are read at once.
fn many_captions() -> Vec<String> {
    let mut captions: Vec<String> =
        ["", "a red flower", "\u{82b1}\u{5f88}\u{7ea2}", "\u{1f33b}!", "caf\u{e9} \u{201c}x\u{201d}\n", "\0"]
            .map(str::to_owned)
            .to_vec();
    captions.extend((0..9000).map(|number| format!("caption {number}")));
    captions.extend((0..40).map(|_| "\u{e9}".repeat(32 << 10)));
    captions
}

#[test]
fn captions_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let captions = many_captions();
    let item = Item { class: -1, split: 0, captions: captions.clone() };
    fixture::write(folder.path(), &[vec![item], vec![Item::new(-1, 0, &["last"])]], &[], 2);
    let expected: Vec<&str> = captions.iter().map(String::as_str).chain(["last"]).collect();
    for pack in both(folder.path()) {
        let found: Vec<_> = (0..pack.captions()).map(|row| pack.caption(row).unwrap()).collect();
        assert_eq!(found, expected);
        let mut in_order = Vec::new();
        pack.for_each_caption(|row, text| in_order.push((row, text.to_owned()))).unwrap();
        assert_eq!(in_order, expected.iter().map(ToString::to_string).enumerate().collect::<Vec<_>>());
    }
}

#[test]
fn a_caption_of_over_64_kib_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let item = Item { class: -1, split: 0, captions: vec!["short".to_owned(), "x".repeat((64 << 10) + 1)] };
    fixture::write(folder.path(), &[vec![item]], &[], 2);
    let message = Pack::open(folder.path(), false).unwrap_err().to_string();
    assert!(message.ends_with("caption 1 must have at most 65536 bytes, got 65537"), "{message}");
}

#[test]
fn captions_that_change_under_a_running_reader_are_errors_and_no_panic() {
    // Each writes over the open file, whose length and identity stay: the text, then the offsets.
    let cases: [(&[u8], &[u8], &str); 3] = [
        (b"a red flower", b"a \xffed flower", "caption 0 must be UTF-8"),
        (&12_i64.to_le_bytes(), &(-12_i64).to_le_bytes(), "caption_byte_offsets must be from 0 to"),
        (&12_i64.to_le_bytes(), &i64::MAX.to_le_bytes(), "caption_byte_offsets must be from 0 to"),
    ];
    for (old, new, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let [memory, file] = both(folder.path());
        let shard = folder.path().join("shard-00000.safetensors");
        let mut bytes = std::fs::read(&shard).unwrap();
        let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
        bytes[at..at + old.len()].copy_from_slice(new);
        std::fs::write(&shard, bytes).unwrap();
        let message = file.caption(0).unwrap_err().to_string();
        assert!(message.contains("shard-00000.safetensors: changed while in use: "), "{message}");
        assert!(message.contains(says), "{message}");
        assert_eq!(memory.caption(0).unwrap(), "a red flower");
    }
}

#[test]
fn ids_are_those_of_the_tokenizer_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let captions = many_captions();
    fixture::write(folder.path(), &[vec![Item { class: -1, split: 0, captions: captions.clone() }]], &[], 2);
    let rows: Vec<i64> = (0..i64::try_from(captions.len()).unwrap()).rev().collect();
    for tokenizer in [Tokenizer::Alphabet, Tokenizer::Bytes(77)] {
        let mut expected = vec![9; captions.len() * tokenizer.length()];
        for (caption, row) in captions.iter().rev().zip(expected.chunks_exact_mut(tokenizer.length())) {
            tokenizer.encode(caption, row).unwrap();
        }
        for pack in both(folder.path()) {
            for threads in [0, 1, 3, 64] {
                let mut out = vec![8; expected.len()];
                pack.read_captions(&rows, tokenizer, &mut out, threads).unwrap();
                assert!(out == expected, "{tokenizer:?} on {threads} threads");
            }
            pack.read_captions(&[], tokenizer, &mut [], 0).unwrap();
            let refused = pack.read_captions(&[0, -1], tokenizer, &mut vec![0; 2 * tokenizer.length()], 0);
            assert_eq!(refused.unwrap_err().to_string(), "caption index must be from 0 to 9045, got -1 at row 1");
            assert!(pack.read_captions(&[0], tokenizer, &mut [0; 5], 0).is_err(), "a buffer of the wrong length");
        }
    }
}

#[test]
fn captions_that_a_tokenizer_does_not_keep_whole_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(201);
    let captions = ["a red flower", "caf\u{e9}", "\u{82b1}", &long, &(long.clone() + "y"), &(long.clone() + "\u{e9}")];
    fixture::write(folder.path(), &[vec![Item::new(-1, 0, &captions)]], &[], 2);
    let pack = Pack::open(folder.path(), false).unwrap();
    let cases = [(Tokenizer::Alphabet, 2, 3), (Tokenizer::Bytes(201), 2, 0), (Tokenizer::Bytes(4), 5, 0)];
    for (tokenizer, truncated, unknown) in cases {
        assert_eq!(pack.losses(tokenizer).unwrap(), Losses { truncated, unknown }, "{tokenizer:?}");
    }
}

#[test]
fn a_pack_of_version_1_is_refused_with_the_command_that_renews_it() {
    let cases = [
        (
            json!({"kind": "folder", "source": "flowers", "fit": "stretch", "boxes": false}),
            "folder flowers --out PATH --size 5 --force",
        ),
        (
            json!({"kind": "cub", "source": "CUB_200_2011", "fit": "crop", "boxes": true}),
            "cub CUB_200_2011 --out PATH --size 5 --fit crop --boxes --force",
        ),
        (
            json!({"kind": "blossoms", "seed": 7, "licence": "MIT"}),
            "blossoms --images 5 --seed 7 --out PATH --size 5 --force",
        ),
        // Nothing that a shell could act on is taken from the file.
        (json!({"kind": "folder; rm -rf /", "source": "$(rm -rf /)"}), "KIND SOURCE --out PATH --size 5 --force"),
        (json!({"kind": "csv", "source": "--help"}), "csv SOURCE --out PATH --size 5 --force"),
        (json!({"kind": "csv", "source": ["x"]}), "csv SOURCE --out PATH --size 5 --force"),
        (json!(null), "KIND SOURCE --out PATH --size 5 --force"),
    ];
    for (provenance, command) in cases {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("it's a pack");
        std::fs::create_dir(&folder).unwrap();
        let mut manifest = fixture::write(&folder, &items(), &["rose", "bluebell"], 5);
        (manifest["version"], manifest["provenance"]) = (json!(1), provenance);
        std::fs::write(folder.join("pack.json"), manifest.to_string()).unwrap();
        let message = Pack::open(&folder, false).unwrap_err().to_string();
        let path = format!("'{}'", folder.display().to_string().replace('\'', "'\\''"));
        assert!(message.contains("is of format t2i-pack 1, which kept captions as character ids"), "{message}");
        assert!(message.ends_with(&format!(": t2i-prepare {}", command.replace("PATH", &path))), "{message}");
    }
}

#[test]
fn a_shard_that_changes_under_a_running_reader_is_noticed_and_named() {
    let cases: [(&str, &dyn Fn(&Path)); 6] = [
        ("its sha256 was", &|shard| {
            // In place, of the same length, and with the time of before: the time of the last change of status tells.
            let before = std::fs::metadata(shard).unwrap().modified().unwrap();
            let mut bytes = std::fs::read(shard).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(shard, bytes).unwrap();
            File::options().write(true).open(shard).unwrap().set_modified(before).unwrap();
        }),
        ("it had", &|shard| drop(File::options().write(true).open(shard).unwrap().set_len(100))),
        ("it had", &|shard| std::fs::write(shard, []).unwrap()),
        ("its sha256 was", &|shard| {
            let mut bytes = std::fs::read(shard).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(shard.with_extension("new"), bytes).unwrap();
            std::fs::rename(shard.with_extension("new"), shard).unwrap();
        }),
        ("No such file", &|shard| std::fs::remove_file(shard).unwrap()),
        ("nobody has the permission", &|shard| {
            std::fs::set_permissions(shard, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        }),
    ];
    for (says, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
        let packs = both(folder.path());
        change(&folder.path().join("shard-00001.safetensors"));
        for pack in packs {
            let message = pack.read_images(&[0], &mut [0; 75]).unwrap_err().to_string();
            assert!(message.contains("shard-00001.safetensors: changed while in use"), "{message}");
            assert!(message.contains(says), "expected {says:?} in {message:?}");
        }
    }
}

#[test]
fn a_copy_of_the_same_content_may_take_a_shards_place() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
    let packs = both(folder.path());
    let shard = folder.path().join("shard-00001.safetensors");
    std::fs::copy(&shard, folder.path().join("copy")).unwrap();
    std::fs::rename(folder.path().join("copy"), &shard).unwrap();
    for pack in packs {
        for _ in 0..2 {
            pack.read_images(&[4], &mut [0; 75]).unwrap();
        }
    }
}

#[test]
fn a_file_cut_between_the_look_and_the_read_is_an_error_and_no_signal() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &items(), &["rose", "bluebell"], 5);
    let [memory, file] = both(folder.path());
    let shard = folder.path().join("shard-00001.safetensors");
    File::options().write(true).open(shard).unwrap().set_len(8).unwrap();
    assert_eq!(memory.image(4).unwrap()[0], pixel(4, 0, 0, 0));
    assert!(file.image(4).unwrap_err().to_string().contains("changed while in use"));
}

#[test]
fn of_many_shards_each_is_looked_at_in_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let shards: Vec<Vec<Item>> = (0..40).map(|image| vec![Item::new(image % 2, 0, &["a"])]).collect();
    fixture::write(folder.path(), &shards, &["rose", "bluebell"], 2);
    let pack = Pack::open(folder.path(), false).unwrap();
    std::fs::remove_file(folder.path().join("shard-00033.safetensors")).unwrap();
    let noticed = (0..3).filter(|_| pack.check_unchanged().is_err()).count();
    assert_eq!(noticed, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_offsets_and_bytes_are_captions_or_an_error_in_memory_as_in_the_file(
        text in prop::collection::vec(prop::sample::select(vec![b'a', b' ', 0xC3, 0xA9, 0xF0, 0xFF]), 0..6),
        inner in prop::collection::vec(-2_i64..8, 2)
    ) {
        let length = i64::try_from(text.len()).unwrap();
        let offsets = [0, inner[0], inner[1], length];
        let mut tensors = fixture::tensors(&[Item::new(0, 0, &["a", "b"]), Item::new(1, 0, &["c"])], 0, 2);
        tensors.insert("caption_bytes", (Dtype::U8, vec![text.len()], text.clone()));
        let bytes = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        tensors.insert("caption_byte_offsets", (Dtype::I64, vec![4], bytes));
        let expected: Option<Vec<String>> = offsets
            .windows(2)
            .map(|pair| {
                let range = usize::try_from(pair[0]).ok()?..usize::try_from(pair[1]).ok()?;
                String::from_utf8(text.get(range)?.to_vec()).ok()
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let shard = fixture::shard(&tensors);
        std::fs::write(folder.path().join("s"), &shard).unwrap();
        std::fs::write(folder.path().join("pack.json"), manifest_of(&shard, 2, 3).to_string()).unwrap();
        for memory in [2 << 30, 0] {
            let pack = Pack::open_within(folder.path(), false, memory).ok();
            let found = pack.map(|pack| (0..3).map(|row| pack.caption(row).unwrap().into_owned()).collect::<Vec<_>>());
            prop_assert_eq!(&found, &expected);
        }
    }
}

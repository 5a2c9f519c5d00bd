//! Any bytes as a shard, with a pack.json that fits them as far as it can: read in memory and from the file to the same
//! end; what opens can be read to its last row. The first byte says how many images and captions pack.json claims.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use t2i_native::pack::Pack;

fuzz_target!(|data: &[u8]| {
    let Some((&claim, shard)) = data.split_first() else { return };
    let (images, captions) = (usize::from(claim & 7), usize::from(claim >> 3 & 15));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s"), shard).unwrap();
    let sha256: String = Sha256::digest(shard).iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = serde_json::json!({
        "format": "t2i-pack", "version": 2, "image_size": 2, "images": images, "captions": captions,
        "classes": if claim & 128 == 0 { vec![] } else { vec!["a", "b"] }, "splits": {"train": images, "test": 0},
        "shards": [{"file": "s", "images": images, "captions": captions, "bytes": shard.len(), "sha256": sha256}],
    });
    std::fs::write(folder.path().join("pack.json"), manifest.to_string()).unwrap();
    let [memory, file] = [1 << 30, 0].map(|memory| Pack::open_within(folder.path(), true, memory));
    match (memory, file) {
        (Ok(memory), Ok(file)) => {
            for image in 0..images {
                assert_eq!(memory.image(image).unwrap(), file.image(image).unwrap());
            }
            for row in 0..captions {
                assert_eq!(memory.caption(row).unwrap(), file.caption(row).unwrap());
            }
        }
        (Err(memory), Err(file)) => assert_eq!(memory.to_string(), file.to_string()),
        (memory, file) => panic!("{memory:?} in memory, {file:?} from the file"),
    }
});

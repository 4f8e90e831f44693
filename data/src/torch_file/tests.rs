use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use rawzip::ZipArchiveWriter;
use rawzip::path::EntryPath;
use serde::Deserialize;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torch_files").join(name)
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<TorchTensor>, TorchFault> {
    read(Arc::new(bytes.to_vec()))
}

fn error(name: &str) -> String {
    read_torch_file(&fixture(name)).unwrap_err().to_string()
}

/// An archive as torch writes it, of a pickle and the storages `0`, `1`, ...
fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ZipArchiveWriter::new(&mut bytes);
    let storages = storages.iter().enumerate().map(|(key, data)| (format!("a/data/{key}"), *data));
    for (name, data) in std::iter::once(("a/data.pkl".to_owned(), pickle)).chain(storages) {
        let (mut entry, config) = writer.new_file(EntryPath::conformant(name)).start().unwrap();
        let mut data_writer = config.wrap(&mut entry);
        data_writer.write_all(data).unwrap();
        let (_, descriptor) = data_writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// `{"w": tensor}` of the storage `0`; sizes are written as opcodes.
fn tensor(class: &str, items: &str, offset: &str, shape: &str, strides: &str) -> Vec<u8> {
    let storage = format!("(Vstorage\nctorch\n{class}\nV0\nVcpu\n{items}tQ");
    let tensor = format!("ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}{shape}{strides}I00\n}}tR");
    format!("}}Vw\n{tensor}s.").into_bytes()
}

#[derive(Deserialize)]
struct Expected {
    dtype: String,
    shape: Vec<usize>,
    bytes: String,
}

fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn tensors_are_where_torch_wrote_them() {
    let expected: BTreeMap<String, BTreeMap<String, Expected>> =
        serde_json::from_slice(&bytes_of("expected.json")).unwrap();
    assert_eq!(expected.len(), 7);
    for (file, expected) in &expected {
        let (path, bytes) = (fixture(file), bytes_of(file));
        let tensors = read_torch_file(&path).unwrap();
        let names: Vec<&String> = tensors.iter().map(|tensor| &tensor.name).collect();
        assert!(names.into_iter().eq(expected.keys()), "{file}");
        for tensor in tensors {
            let expected = &expected[&tensor.name];
            let found = &bytes[tensor.span.start as usize..tensor.span.end as usize];
            assert_eq!(found, unhex(&expected.bytes), "{file}: {}", tensor.name);
            assert_eq!((format!("{:?}", tensor.dtype), &tensor.shape), (expected.dtype.clone(), &expected.shape));
        }
    }
}

#[test]
fn tied_tensors_share_their_bytes() {
    let tensors = read_torch_file(&fixture("module.bin")).unwrap();
    let span = |name: &str| tensors.iter().find(|tensor| tensor.name == name).unwrap().span.clone();
    assert_eq!(span("shared.weight"), span("lm_head.weight"));
    assert_ne!(span("shared.weight"), span("encoder.0.weight"));
}

#[test]
fn what_is_no_state_dict_is_refused_by_name() {
    for (file, problem, hint) in [
        ("transposed.bin", "the tensor `b.weight` is not contiguous: shape [4, 3] with strides [1, 4]", "contiguous()"),
        ("expanded.bin", "the tensor `a` is not contiguous: shape [1000, 12] with strides [0, 0]", "contiguous()"),
        ("training.bin", "there are tensors inside of `optimizer`, a dict", "model.state_dict()"),
        ("nested.bin", "there are tensors inside of `heads`, a dict", "model.state_dict()"),
        ("deeper.bin", "there are tensors inside of `state_dict.heads`, a dict", "model.state_dict()"),
        ("listed.bin", "it holds a list, not a state dict", "model.state_dict()"),
        ("plain.bin", "it holds no tensors", "model.state_dict()"),
        ("complex.bin", "refused to load `torch.ComplexFloatStorage`", "nothing is executed"),
        ("legacy.bin", "the format that torch wrote before version 1.6", "save it again"),
        ("packed.bin", "is compressed or encrypted", "a zip program may have"),
        ("repeated.bin", "the entry `views/data/0` is there twice", "malicious"),
        ("big_endian.bin", "its byte order is `big`", "safetensors"),
        ("missing.bin", "the entry `views/data/0` is missing", "download it again"),
    ] {
        let error = error(file);
        assert!(error.contains(file) && error.contains(problem), "{error}");
        assert!(error.split_once("hint: ").unwrap().1.contains(hint), "{error}");
    }
}

#[test]
fn functions_are_refused_by_name_and_never_run() {
    let error = error("hostile.bin");
    assert!(error.contains("refused to load `posix.system`"), "{error}");
    assert!(error.contains("hint: only tensors and plain data are read, nothing is executed"), "{error}");
    // What pickles of numpy may name is refused here, and so is each other name of torch.
    for global in ["numpy\nndarray", "_codecs\nencode", "torch._utils\n_rebuild_tensor", "torch\nload", "torch.jit\n_x"]
    {
        let file = archive(format!("c{global}\n.").as_bytes(), &[]);
        let fault = read_bytes(&file).unwrap_err().to_string();
        assert!(fault.contains(&format!("refused to load `{}`", global.replace('\n', "."))), "{fault}");
    }
    for pickle in [&b"Pid\n."[..], b"(Vmodule\nN)N)tQ.", b"ctorch._utils\n_rebuild_parameter\n(NI00\n}tR."] {
        assert!(matches!(read_bytes(&archive(pickle, &[])), Err(TorchFault::Pickle(_))), "{pickle:?}");
    }
}

#[test]
fn what_is_no_archive_is_told_apart() {
    let tar = [&[b'x'; 257][..], b"ustar\0", &[0; 100]].concat();
    for (bytes, problem) in [
        (&b""[..], "it is empty"),
        (b"<!DOCTYPE html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x80\x04N.", "does not begin as a zip archive does"),
        (b"PK\x03\x04 and no more", "its zip archive is damaged"),
        (&tar, "before version 1.6"),
    ] {
        let fault = read_bytes(bytes).unwrap_err().to_string();
        assert!(fault.contains(problem), "{fault}");
    }
    let fault = read_bytes(&archive(b".", &[])[30..]).unwrap_err().to_string();
    assert!(fault.contains("does not begin as a zip archive does"), "{fault}");
    assert!(error("absent.bin").contains("hint: check the path"));
}

#[test]
fn a_tensor_must_be_within_its_storage_and_its_storage_within_the_file() {
    let storage = [0_u8; 24];
    let read_one = |items: &str, offset: &str, shape: &str, strides: &str| {
        read_bytes(&archive(&tensor("FloatStorage", items, offset, shape, strides), &[&storage]))
    };
    let tensors = read_one("I6\n", "I1\n", "(I5\nt", "(I1\nt").unwrap();
    assert_eq!((tensors[0].shape.as_slice(), tensors[0].span.end - tensors[0].span.start), (&[5][..], 20));
    let huge = "I9223372036854775807\n";
    for (items, offset, shape, strides, problem) in [
        ("I7\n", "I0\n", "(I6\nt", "(I1\nt", "its storage `0` of 7 elements has 24 bytes"),
        (huge, "I0\n", "(I6\nt", "(I1\nt", "of 9223372036854775807 elements has 24 bytes"),
        ("I6\n", "I1\n", "(I6\nt", "(I1\nt", "from element 1 of 6 there is no room for its shape [6]"),
        ("I6\n", huge, "(I6\nt", "(I1\nt", "there is no room"),
        ("I6\n", huge, "(I0\nt", "(I1\nt", "there is no room"),
        ("I6\n", "I0\n", &format!("({huge}I0\nt"), "(I1\nI1\nt", "no file has room"),
        ("I6\n", "I0\n", &format!("({huge}I4\nt"), "(I1\nI1\nt", "no file has room"),
        ("I6\n", "I0\n", "(I2\nt", &format!("({huge}t"), "not contiguous"),
        ("I6\n", "I0\n", "(I2\nt", "(I1\nI1\nt", "shape [2] with strides [1, 1]"),
        ("I6\n", "I-1\n", "(I2\nt", "(I1\nt", "a size of -1"),
        ("I6\n", "I0\n", "(I-2\nt", "(I1\nt", "an axis of length -2"),
        ("N", "I0\n", "(I2\nt", "(I1\nt", "expected a size, found None"),
    ] {
        let fault = read_one(items, offset, shape, strides).unwrap_err().to_string();
        assert!(fault.contains(problem), "{fault}");
    }
}

#[test]
fn names_are_texts_and_no_name_comes_twice() {
    let one = tensor("FloatStorage", "I1\n", "I0\n", "(t", "(t");
    let entry = &one[4..one.len() - 2];
    let file = |pickle: &[&[u8]]| read_bytes(&archive(&pickle.concat(), &[&[0; 4]]));
    assert_eq!(file(&[b"}(Va\n", entry, b"Vb\n", entry, b"u."]).unwrap().len(), 2);
    let fault = file(&[b"}(Va\n", entry, b"Va\n", entry, b"u."]).unwrap_err().to_string();
    assert!(fault.contains("the tensor `a` is there twice"), "{fault}");
    for (key, found) in [(&b"N"[..], "None"), (b"I0\n", "an integer")] {
        let fault = file(&[b"}", key, entry, b"s."]).unwrap_err().to_string();
        assert!(fault.contains(&format!("the key of a tensor is {found}, not a text")), "{fault}");
    }
    // A dict that holds itself is looked at once.
    let fault = file(&[b"}p0\nVa\ng0\ns."]).unwrap_err();
    assert!(matches!(fault, TorchFault::NoTensors), "{fault}");
}

#[test]
fn a_lazily_negated_tensor_is_refused() {
    let plain = String::from_utf8(tensor("FloatStorage", "I1\n", "I0\n", "(t", "(t")).unwrap();
    let with = |mark: &str| read_bytes(&archive(plain.replace("}tR", &format!("}}{mark}tR")).as_bytes(), &[&[0; 4]]));
    assert!(with("N").is_ok() && with("}").is_ok());
    let fault = with("}Vneg\nI01\ns").unwrap_err().to_string();
    assert!(fault.contains("lazily conjugated or negated"), "{fault}");
}

#[test]
fn the_archive_is_bounded() {
    let mut bytes = archive(&tensor("FloatStorage", "I1\n", "I0\n", "(t", "(t"), &[&[0; 4]]);
    assert!(read_bytes(&bytes).is_ok());
    // The number of entries, as the end of the directory has it.
    let count = bytes.len() - 12;
    bytes[count] = 9;
    let fault = read_bytes(&bytes).unwrap_err().to_string();
    assert!(fault.contains("9 entries are announced, 2 are there"), "{fault}");
    let long = "x".repeat(513);
    let mut bytes = Vec::new();
    let mut writer = ZipArchiveWriter::new(&mut bytes);
    let (entry, config) = writer.new_file(EntryPath::conformant(long)).start().unwrap();
    let (_, descriptor) = config.wrap(Vec::new()).finish().unwrap();
    entry.finish(descriptor).unwrap();
    writer.finish().unwrap();
    let fault = read_bytes(&bytes).unwrap_err().to_string();
    assert!(fault.contains("more than 512 bytes in the name of an entry"), "{fault}");
}

/// Whatever was done to a file: what is read from it is within it.
fn sound(bytes: &[u8]) -> bool {
    let Ok(tensors) = read_bytes(bytes) else { return false };
    for tensor in tensors {
        assert!(tensor.span.start <= tensor.span.end && tensor.span.end <= bytes.len() as u64);
        let items: usize = tensor.shape.iter().product();
        assert_eq!(tensor.span.end - tensor.span.start, items as u64 * tensor.dtype.item_size());
    }
    true
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    for name in ["types.bin", "wrapped.bin", "views.bin", "old.bin"] {
        let bytes = bytes_of(name);
        assert!(sound(&bytes));
        for length in 0..bytes.len() {
            assert!(!sound(&bytes[..length]), "{name} cut to {length} bytes was accepted");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(
        file in 0..4_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = bytes_of(["types_p4.bin", "module.bin", "views.bin", "old.bin"][file]);
        for (place, in_pickle, value) in changes {
            // The pickle comes first in the file, behind a header; the rest is mostly zeros.
            let among = if in_pickle { bytes.len().min(1500) } else { bytes.len() };
            bytes[place.index(among)] = value;
        }
        sound(&bytes);
    }
}

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(path).unwrap()
}

fn read(bytes: &[u8]) -> Result<Document, PickleError> {
    Document::read(Box::new(bytes.to_vec()), Limits::default())
}

fn fault(bytes: &[u8]) -> PickleFault {
    read(bytes).unwrap_err().fault
}

/// All rows of a numeric array.
fn rows(document: &Document, key: &str) -> Vec<Vec<f32>> {
    let numbers = document.root().get(key).unwrap().numbers().unwrap().unwrap();
    (0..numbers.shape()[0] as usize).map(|row| numbers.row(row).unwrap()).collect()
}

fn texts(document: &Document, key: &str) -> Vec<String> {
    let column = document.root().get(key).unwrap().column().unwrap();
    (0..column.len()).map(|row| column.text(row).unwrap()).collect()
}

#[test]
fn numpy_arrays_of_every_protocol_read_as_numpy_wrote_them() {
    for protocol in 0..=5 {
        let document = read(&fixture(&format!("arrays_p{protocol}.pkl"))).unwrap();
        let grid = vec![vec![0., 1., 2.], vec![3., 4., 5.]];
        for code in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "fortran"] {
            assert_eq!(rows(&document, code), grid, "{code}, protocol {protocol}");
        }
        let quarters = vec![vec![0., 0.25, 0.5], vec![0.75, 1., 1.25]];
        assert_eq!(rows(&document, "half"), quarters);
        assert_eq!(rows(&document, "big"), quarters);
        assert_eq!(rows(&document, "negative"), [[0., -1., -2.], [-3., -4., -5.]]);
        assert_eq!(rows(&document, "bool"), [[0., 1., 0.], [1., 0., 1.]]);
        let strided = [[0., 1., 6., 7.], [2., 3., 8., 9.], [4., 5., 10., 11.]];
        assert_eq!(rows(&document, "strided"), strided, "protocol {protocol}");
        assert_eq!(texts(&document, "bytes"), ["ab", "cde", ""]);
        assert_eq!(texts(&document, "unicode"), ["né", "日本", ""]);
        let object = document.root().get("object").unwrap().column().unwrap();
        assert_eq!((object.text(1).unwrap().as_str(), object.value(2).unwrap().is_none()), ("y y", true));
        assert_eq!(rows(&document, "empty"), Vec::<Vec<f32>>::new());
        for (key, number) in [("point", 2.5), ("float32", 1.5), ("int64", -7.0)] {
            assert_eq!(document.root().get(key).unwrap().number().unwrap(), number, "{key}, protocol {protocol}");
        }
    }
}

#[test]
fn plain_values_of_every_protocol_read_as_python_wrote_them() {
    for protocol in 0..=5 {
        let document = read(&fixture(&format!("arrays_p{protocol}.pkl"))).unwrap();
        let root = document.root();
        let nested = root.get("nested").unwrap();
        let key = nested.get("key").unwrap().column().unwrap();
        let numbers: Vec<f64> = (0..key.len()).map(|row| key.number(row).unwrap()).collect();
        let large = (1u64 << 40) as f64;
        assert_eq!(numbers, [1., -2., 300., 70000., large, -large]);
        assert!(nested.get("none").unwrap().is_none());
        let flags = nested.get("flags").unwrap().column().unwrap();
        assert_eq!((flags.number(0).unwrap(), flags.number(1).unwrap()), (1.0, 0.0));
        assert_eq!(root.get("text").unwrap().text().unwrap(), "café ☃");
        assert_eq!(root.get("raw").unwrap().text().unwrap(), "\0ÿ€");
        assert_eq!(root.get("ordered").unwrap().get("b").unwrap().number().unwrap(), 1.25);
        let twice = root.get("twice").unwrap().column().unwrap();
        let shared = twice.value(1).unwrap().column().unwrap();
        assert_eq!(shared.text(0).unwrap(), "shared");
        assert!(root.get("absent").is_none());
    }
}

#[test]
fn strings_of_python_2_read_as_text() {
    // {'key': 'it\x92s'} with the opcodes of Python 2, whose strings are bytes.
    let document = read(b"\x80\x02}q\x00U\x03keyq\x01U\x05it\x92s!q\x02s.").unwrap();
    assert_eq!(document.root().get("key").unwrap().text().unwrap(), "it’s!");
    let document = read(b"(dp0\nS'key'\np1\nS'a\\'b\\x41'\np2\ns.").unwrap();
    assert_eq!(document.root().get("key").unwrap().text().unwrap(), "a'bA");
}

#[test]
fn a_long_array_stays_in_the_file_and_reads_the_same() {
    // A float32 array of 10000 numbers in protocol 5, assembled by hand so that no large fixture is needed.
    let values: Vec<f32> = (0..10_000_u16).map(f32::from).collect();
    let mut bytes = b"\x80\x05cnumpy.core.numeric\n_frombuffer\n(\x96".to_vec();
    bytes.extend((values.len() as u64 * 4).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend(b"cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87RK\x02M\x88\x13\x86\x8c\x01CtR.");
    let document = read(&bytes).unwrap();
    let numbers = document.root().numbers().unwrap().unwrap();
    assert_eq!(numbers.shape(), [2, 5000]);
    assert_eq!([numbers.row(0).unwrap(), numbers.row(1).unwrap()].concat(), values);
}

#[test]
fn functions_are_refused_by_name_and_never_run() {
    let refused = |bytes: &[u8]| match fault(bytes) {
        PickleFault::Global { module, name } => format!("{module}.{name}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(b"cos\nsystem\n(S'touch /tmp/owned'\ntR."), "os.system");
    assert_eq!(refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."), "builtins.eval");
    assert_eq!(refused(b"(S'id'\nios\nsystem\n."), "os.system");
    assert_eq!(
        refused(b"\x80\x02cnumpy.testing._private.utils\nrunstring\n."),
        "numpy.testing._private.utils.runstring"
    );
    assert_eq!(refused(b"cnumpy.core.multiarray\nfromfile\n."), "numpy.core.multiarray.fromfile");
    let hostile = [b'c'].into_iter().chain([b'm'; 4000]).chain(*b"\nname\n.").collect::<Vec<u8>>();
    assert!(refused(&hostile).len() < 100);
}

#[test]
fn other_ways_to_make_objects_are_refused() {
    for (bytes, what) in [
        (&b"Pid\n."[..], "a persistent id"),
        (b"\x80\x02N\x51.", "a persistent id"),
        (b"\x80\x02\x82\x01.", "an extension code"),
        (b"(No.", "the opcode OBJ"),
        (b"\x80\x04NNN\x92.", "the opcode NEWOBJ_EX"),
        (b"\x80\x05\x97.", "an out-of-band buffer"),
        (b"\x80\x06N.", "protocol 6"),
    ] {
        assert_eq!(fault(bytes), PickleFault::Unsupported(what.to_owned()));
    }
    assert_eq!(fault(b"\xff."), PickleFault::UnknownOpcode(0xff));
    // Only known functions are called, and only with arguments they take.
    assert!(matches!(fault(b"N)R."), PickleFault::Unexpected { .. }));
    assert!(matches!(fault(b"cnumpy\nndarray\n)R."), PickleFault::Unexpected { .. }));
    assert!(matches!(fault(b"\x80\x02]}b."), PickleFault::Unexpected { .. }));
}

#[test]
fn deep_nesting_is_a_limit_and_not_a_stack_overflow() {
    for depth in [100_000, 400_000] {
        let lists: Vec<u8> = [vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat();
        assert_eq!(fault(&lists), PickleFault::Limit { what: "levels of nesting", limit: 64 });
        let tuples: Vec<u8> = [vec![b'N'], vec![0x85; depth], vec![b'.']].concat();
        assert_eq!(fault(&tuples), PickleFault::Limit { what: "levels of nesting", limit: 64 });
        let marks: Vec<u8> = [vec![b'('; depth], vec![b't'; depth], vec![b'.']].concat();
        assert_eq!(fault(&marks), PickleFault::Limit { what: "levels of nesting", limit: 64 });
    }
}

#[test]
fn deep_values_are_dropped_without_recursion() {
    let depth = 400_000;
    let lists: Vec<u8> = [vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat();
    let limits = Limits { depth: u32::MAX, ..Limits::default() };
    let document = Document::read(Box::new(lists), limits).unwrap();
    assert_eq!(document.root().column().unwrap().len(), 1);
    drop(document);
}

#[test]
fn a_list_that_holds_itself_is_harmless() {
    let document = read(b"\x80\x02]q\x00h\x00a.").unwrap();
    let inner = document.root().column().unwrap().value(0).unwrap();
    assert_eq!(inner.column().unwrap().len(), 1);
    assert!(inner.number().is_err());
}

#[test]
fn doubling_by_the_memo_costs_nothing() {
    // x = [x, x] forty times over would be 2^40 values if they were copied.
    let mut bytes = b"\x80\x04]\x94".to_vec();
    for level in 0..40_u8 {
        bytes.extend([b']', 0x94, b'(', b'h', level, b'h', level, b'e']);
    }
    bytes.push(b'.');
    assert_eq!(read(&bytes).unwrap().root().column().unwrap().len(), 2);
}

#[test]
fn claimed_lengths_are_compared_with_the_file_before_anything_is_reserved() {
    let huge = (1u64 << 62).to_le_bytes();
    for opcode in [0x8d, 0x8e, 0x96, 0x95] {
        let bytes = [&[0x80, 4, opcode][..], &huge, b"abc."].concat();
        assert_eq!(fault(&bytes), PickleFault::Truncated { needed: 1 << 62, left: 4 });
    }
    assert_eq!(fault(b"\x80\x02X\xff\xff\xff\xffabc."), PickleFault::Truncated { needed: 0xffff_ffff, left: 4 });
    assert!(matches!(fault(b"T\xff\xff\xff\xff."), PickleFault::BadNumber(_)));
    assert!(matches!(fault(b"\x80\x02\x8b\xff\xff\xff\x7f1."), PickleFault::BadNumber(_)));
}

#[test]
fn arrays_must_have_the_bytes_of_their_shape() {
    let array = |shape: &[u8], data: &[u8]| {
        let head = b"\x80\x05cnumpy.core.numeric\n_frombuffer\n(C\x04";
        [head, data, b"cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R", shape, b"\x8c\x01CtR."].concat()
    };
    assert!(read(&array(b"K\x01\x85", b"\0\0\0\0")).is_ok());
    for shape in [
        &b"K\x02\x85"[..],
        b"J\xff\xff\xff\xff\x85",
        b"\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86",
        b"K\0\x8a\x08\0\0\0\0\0\0\0\x40\x86",
        b"N\x85",
    ] {
        let found = fault(&array(shape, b"\0\0\0\0"));
        assert!(matches!(found, PickleFault::Shape(_) | PickleFault::Unexpected { .. }), "{found:?}");
    }
}

#[test]
fn every_count_has_a_limit() {
    let limited = |bytes: &[u8], limits: Limits| Document::read(Box::new(bytes.to_vec()), limits).unwrap_err().fault;
    let nones = [vec![b'('], vec![b'N'; 100], b"t.".to_vec()].concat();
    let limits = Limits { items: 50, ..Limits::default() };
    assert_eq!(limited(&nones, limits), PickleFault::Limit { what: "values", limit: 50 });
    let memo = [vec![0x80, 4, b'N'], vec![0x94; 100], vec![b'.']].concat();
    let limits = Limits { memo: 50, ..Limits::default() };
    assert_eq!(limited(&memo, limits), PickleFault::Limit { what: "memo entries", limit: 50 });
    let text = [&b"\x80\x04\x8c\xff"[..], &[b'a'; 255], b"."].concat();
    let limits = Limits { bytes: 100, ..Limits::default() };
    assert_eq!(limited(&text, limits), PickleFault::Limit { what: "bytes of strings in memory", limit: 100 });
    let line = [&b"S"[..], &[b'a'; 255], b"\n."].concat();
    assert_eq!(limited(&line, limits), PickleFault::Limit { what: "bytes in a line", limit: 100 });
    // One list of pairs, made into a dict again and again: each is a copy.
    let mut copies = b"\x80\x04ccollections\nOrderedDict\n\x94](".to_vec();
    copies.extend(b"NN\x86".repeat(10));
    copies.extend(b"e\x94");
    copies.extend(b"h\x00h\x01\x85R".repeat(10));
    copies.push(b'.');
    assert!(read(&copies).is_ok());
    let limits = Limits { bytes: 500, ..Limits::default() };
    assert_eq!(limited(&copies, limits), PickleFault::Limit { what: "bytes of strings in memory", limit: 500 });
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    for name in ["mmsa_p2.pkl", "mmsa_p4.pkl", "mmsa_p5.pkl", "arrays_p0.pkl", "arrays_p3.pkl"] {
        let bytes = fixture(name);
        assert!(read(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{name} cut to {length} bytes was accepted");
        }
    }
}

#[test]
fn stack_and_memo_are_never_read_beyond_their_ends() {
    for bytes in [&b"."[..], b"a.", b"t.", b"e.", b"0.", b"1.", b"2.", b"R.", b"b.", b"N(\x85.", b"(}Nu."] {
        assert!(matches!(fault(bytes), PickleFault::EmptyStack), "{bytes:?}");
    }
    assert_eq!(fault(b"h\x05."), PickleFault::NoMemo(5));
    assert_eq!(fault(b"g7\n."), PickleFault::NoMemo(7));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    #[test]
    fn random_opcodes_never_panic(bytes in proptest::collection::vec(
        proptest::sample::select(&b"(.012NIJKLMGTUXBC])}tldaesu pqrghjcRbS\n\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8e\x8f\x90\x91\x93\x94\x95\x96\x00\x01\x02"[..]),
        0..200,
    )) {
        let _ = read(&bytes);
    }
}
